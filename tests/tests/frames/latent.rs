//! Latent memory: sections that get their records when their memory is needed.

use mm::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange};
use mm::buddy::Gfp;
use mm::config::{DMA32_LIMIT, PAGE_SIZE, SECTION_FRAMES};
use mm::frame::FrameState;
use mm::memblock::Direction;
use mm::platform::NodeId;
use mm::proc::{self, Recording};
use mm::report::Corruption;
use mm::system::{AllocError, Block, FreeEarlyError, PageOwner, Populate};
use mm_tests::oracles::{Owners, latent_sections};
use mm_tests::sim::{
    Builder, Debug, Flat, Hardened, Latent, Listed, Machine, Plain, SimConfig, SimPlatform, Sparse,
    Vmemmap,
};
use mm_workload::Random;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SECTION: u64 = 128 * MIB;
type Quick = Latent<(Plain, Vmemmap)>;
/// Reserves do not matter to it, and it may have memory populated.
const ALL: Gfp = Gfp::KERNEL.union(Gfp::MEMALLOC).union(Gfp::NOWARN);
/// As `ALL`, for who cannot wait.
const NOW: Gfp = Gfp::HIGH.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

/// Two zones and six sections, one of them with a hole in it.
fn six<C: SimConfig>() -> Builder<C> {
    Machine::<C>::new()
        .ram(0, 3 * SECTION + 40 * MIB)
        .ram(3 * SECTION + 60 * MIB, 2 * SECTION + 68 * MIB)
}

/// Takes blocks until there are none.
fn exhaust<C: SimConfig>(machine: &Machine<C>, gfp: Gfp, order: Order) -> Blocks<'_, C> {
    let mut blocks = Vec::new();
    loop {
        match machine.alloc_block(gfp, order) {
            Ok(block) => blocks.push(block),
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                return blocks;
            }
        }
    }
}

type Blocks<'a, C> = Vec<Block<&'a mm::system::Memory<SimPlatform<C>>>>;

fn first_of(section: u64) -> Pfn {
    Pfn::new(section * SECTION_FRAMES)
}

fn text<C: SimConfig>(machine: &Machine<C>, pfn: Pfn) -> String {
    let mut text = String::new();
    proc::page(machine, pfn, &mut text).unwrap();
    text
}

fn boot_leaves_sections_latent_on<C: SimConfig>() {
    let machine = six::<C>().boot();
    // One section is populated for DMA and DMA32 together.
    assert_eq!(latent_sections(&machine), [1, 2, 3, 4, 5]);
    let dma32 = &machine.nodes()[0].zones()[1];
    assert!(dma32.latent_frames() > 4 * SECTION_FRAMES);
    assert_eq!(machine.free_frames(), machine.managed_frames());
    assert_eq!(machine.booted().managed, machine.managed_frames());
    assert_eq!(machine.validate().unwrap().latent, dma32.latent_frames());
    let booted = machine.booted();
    assert_eq!(booted.recorded, 6 * SECTION_FRAMES);
    assert_eq!(booted.record_bytes, 6 * MIB);

    let pfn = first_of(2);
    assert!(machine.page(pfn).is_none() && machine.is_latent(pfn));
    assert_eq!(machine.zone_of(pfn).unwrap().id(), dma32.id());
    assert!(text(&machine, pfn).contains("latent"));
    assert!(machine.frames().unwrap().try_get(pfn).is_none());
    let hole = PhysAddr::new(3 * SECTION + 50 * MIB).frame();
    assert!(!machine.is_latent(hole) && machine.zone_of(hole).is_none());
    assert!(!machine.is_latent(Pfn::new(100)) && !machine.is_latent(Pfn::new(u64::MAX)));
    machine.check();
    machine.finish();
}

#[test]
fn boot_leaves_sections_latent() {
    boot_leaves_sections_latent_on::<Latent<(Plain, Sparse)>>();
    boot_leaves_sections_latent_on::<Quick>();
    boot_leaves_sections_latent_on::<Latent<Listed<(Hardened, Vmemmap)>>>();
}

#[test]
fn everything_is_populated_at_boot_where_that_is_asked_for_or_needed() {
    let all = [
        six::<Quick>()
            .options(|options| options.populate = Populate::AtBoot)
            .try_boot(),
        six::<Quick>()
            .options(|options| options.page_owner = PageOwner::On)
            .try_boot(),
    ];
    // With nothing latent, no pages for page tables are wanted.
    for machine in all.into_iter().map(Result::unwrap) {
        assert!(latent_sections(&machine).is_empty());
        assert_eq!(machine.validate().unwrap().latent, 0);
        machine.finish();
    }
    let machine = Machine::<Latent<(Plain, Flat)>>::with_ram(2 * SECTION);
    assert!(latent_sections(&machine).is_empty());
    machine.finish();
}

fn all_memory_can_be_taken_on<C: SimConfig>() {
    let machine = six::<C>().boot();
    let managed = machine.managed_frames();
    for order in [Order::ZERO, Order::MAX, Order::PAGEBLOCK] {
        let mut owners = Owners::new();
        let blocks = exhaust(&machine, ALL, order);
        for block in &blocks {
            owners.took(machine.hardware().ram(), block.frames());
        }
        let taken = blocks.len() as u64 * order.frames();
        // Holes and metadata cost each of their ranges less than two blocks.
        let odd = if order == Order::ZERO { 0 } else { 32 };
        assert!(managed - taken <= odd * order.frames(), "{order:?}");
        assert!(latent_sections(&machine).is_empty());
        machine.check();
        for block in blocks {
            owners.giving(machine.hardware().ram(), block.pfn());
        }
    }
    assert_eq!(
        machine.managed_frames(),
        managed,
        "what a section costs is known before"
    );
    machine.finish();
}

#[test]
fn all_memory_can_be_taken() {
    all_memory_can_be_taken_on::<Quick>();
    all_memory_can_be_taken_on::<Latent<Listed<(Plain, Sparse)>>>();
}

#[test]
fn a_request_that_cannot_wait_uses_populated_memory_only() {
    let machine = six::<Latent<Listed<(Plain, Vmemmap)>>>().boot();
    let before = latent_sections(&machine);
    let latent = machine.nodes()[0].zones()[1].latent_frames();
    let blocks = exhaust(&machine, NOW, Order::ZERO);
    assert_eq!(latent_sections(&machine), before);
    assert_eq!(machine.free_frames(), latent);
    let mut pages = [None; 4];
    assert_eq!(machine.alloc_pages_bulk(NOW, &mut pages), Ok(0));
    assert!(machine.alloc_pages_exact(NOW, 5 * PAGE_SIZE).is_err());
    // Others have memory populated; after that there is some for all.
    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert_eq!(latent_sections(&machine).len(), before.len() - 1);
    drop(block);
    drop(machine.alloc_block(Gfp::ATOMIC, Order::ZERO).unwrap());
    drop(blocks);
    machine.finish();
}

#[test]
fn requests_without_rights_leave_what_is_populated_to_urgent_ones() {
    let machine = Machine::<Quick>::new()
        .node(0, DMA32_LIMIT, 1024 * MIB)
        .node(1, DMA32_LIMIT + 1024 * MIB, 1024 * MIB)
        .cpus_on(&[0, 1])
        .boot();
    let plain = exhaust(&machine, Gfp::NOWAIT, Order::ZERO);
    assert!(!plain.is_empty());
    // Much is latent, but those that may go below `min` cannot have it populated either.
    let urgent = exhaust(&machine, Gfp::ATOMIC | Gfp::NOWARN, Order::ZERO);
    let min = machine.zones().map(|zone| zone.watermarks().marks().min);
    assert!(urgent.len() as u64 >= min.sum::<u64>() / 2);
    drop((plain, urgent));
    machine.finish();
}

#[test]
fn memory_for_requests_that_cannot_wait_is_populated_before_it_runs_out() {
    let machine = six::<Quick>().boot();
    let dma32 = &machine.nodes()[0].zones()[1];
    let min = dma32.watermarks().marks().min.min(SECTION_FRAMES / 4);
    let mut blocks = Vec::new();
    while dma32.latent_frames() > 0 {
        blocks.push(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
        assert!(dma32.populated_free() >= min);
    }
    drop(blocks);
    machine.finish();
}

#[test]
fn types_do_not_mix_while_memory_is_latent() {
    let machine = six::<Quick>().boot();
    let movable = Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC;
    // Movable pages are all over the populated section: every other one goes back.
    let populated = machine.nodes()[0]
        .zones()
        .iter()
        .map(|zone| zone.populated_free());
    let count = populated.sum::<u64>() - 100;
    let blocks: Vec<_> = (0..count)
        .map(|_| {
            machine
                .alloc_block(movable & !Gfp::DIRECT_RECLAIM, Order::ZERO)
                .unwrap()
        })
        .collect();
    let (kept, given): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|block| block.pfn().as_u64() % 2 == 0);
    drop(given);
    let sections = latent_sections(&machine).len();
    let before = steals(&machine);
    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert_eq!(
        latent_sections(&machine).len(),
        sections - 1,
        "populated, not mixed"
    );
    assert_eq!(steals(&machine), before);
    drop((kept, block));
    machine.finish();
}

fn steals<C: SimConfig>(machine: &Machine<C>) -> u64 {
    let zones = machine
        .zones()
        .map(|zone| zone.snapshot(machine.hardware()));
    zones.map(|zone| zone.stats.steals).sum()
}

#[test]
fn a_zone_is_populated_before_another_one_is_asked() {
    let machine = Machine::<Quick>::new()
        .node(0, DMA32_LIMIT, 3 * SECTION)
        .node(1, DMA32_LIMIT + 3 * SECTION, 3 * SECTION)
        .boot();
    let node_of = |block: &Block<_>| machine.zone_of(block.pfn()).unwrap().id().node.0;
    let own = machine.nodes()[0].zones()[2].managed();
    let mut nodes = Vec::new();
    for block in exhaust(&machine, ALL, Order::ZERO).iter().map(node_of) {
        if nodes.last().is_none_or(|&(node, _)| node != block) {
            nodes.push((block, 0_u64));
        }
        nodes.last_mut().unwrap().1 += 1;
    }
    // Down to its mark first, then the other node, then the rest of both.
    let (node, count) = nodes[0];
    assert_eq!(node, 0);
    assert!(own - count <= machine.nodes()[0].zones()[2].watermarks().marks().low);
    machine.finish();
}

#[test]
fn a_request_tells_what_it_populated() {
    let machine = six::<Quick>().boot();
    let taken = exhaust(&machine, NOW, Order::ZERO);
    let mut recording = Recording::new();
    let block = Block::alloc_traced(&*machine, ALL, Order::MAX, &mut recording);
    assert!(
        recording
            .to_string()
            .contains("populated the section at frame 0x8000"),
        "{recording}"
    );
    drop((block, taken));
    machine.finish();
}

#[test]
fn bulk_requests_populate_as_well() {
    for lists in [true, false] {
        let machine = six::<Quick>()
            .options(|options| {
                if lists {
                    options.page_lists = mm::system::PageLists::Tuned;
                }
            })
            .boot();
        let mut pages = vec![None; machine.free_frames() as usize];
        let got = machine.alloc_pages_bulk(ALL, &mut pages).unwrap();
        assert_eq!(got, pages.len());
        assert!(latent_sections(&machine).is_empty());
        for pfn in pages.into_iter().flatten() {
            // SAFETY: allocated just now, freed once.
            unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
        }
        machine.finish();
    }
}

#[test]
fn exact_ranges_populate_what_they_need_and_no_more() {
    let machine = six::<Quick>().boot();
    let middle = PfnRange::from_count(first_of(2), 3_000).unwrap();
    let run = machine.alloc_contig_range(middle, Gfp::KERNEL).unwrap();
    assert_eq!(run.frames(), middle);
    assert_eq!(latent_sections(&machine), [1, 3, 4, 5]);
    // Across a border.
    let first = Pfn::new(first_of(5).as_u64() - 1_000);
    let border = PfnRange::from_count(first, 2_000).unwrap();
    // The end of each section holds its records.
    assert!(machine.alloc_contig_range(border, Gfp::KERNEL).is_err());
    assert_eq!(latent_sections(&machine), [1, 3]);
    machine.populate(PfnRange::from_numbers(0, u64::MAX));
    assert!(latent_sections(&machine).is_empty());
    drop(run);
    machine.finish();
}

#[test]
fn early_memory_comes_back_into_latent_sections() {
    let machine = six::<Quick>()
        .reserve(2 * SECTION + 8 * MIB, 2 * MIB)
        .boot();
    let managed = machine.managed_frames();
    let range = PhysRange::from_size(PhysAddr::new(2 * SECTION + 9 * MIB), MIB);
    // SAFETY: reserved above, and nobody has a token for it.
    let ram = unsafe { machine.hardware().early_ram(range) };
    assert!(!machine.is_latent(range.start().frame()));
    machine.free_early(NodeId(0), ram).unwrap();
    assert_eq!(machine.managed_frames(), managed + 256);
    // What is free but latent was never early memory.
    let range = PhysRange::from_size(PhysAddr::new(4 * SECTION + MIB), MIB);
    // SAFETY: nothing is done through the token: it must be refused.
    let ram = unsafe { machine.hardware().early_ram(range) };
    let refused = machine.free_early(NodeId(0), ram).unwrap_err().0;
    assert_eq!(refused, FreeEarlyError::NotReserved(range.start().frame()));
    let reserved = PhysAddr::new(2 * SECTION + 8 * MIB).frame();
    assert_eq!(
        machine.page(reserved).unwrap().state(),
        Some(FrameState::Reserved)
    );
    machine.check();
    machine.finish();
}

#[test]
fn a_section_without_room_for_its_records_gets_them_at_boot() {
    // Section 1 has free ranges of 1 MiB at most, but for one that is reserved in its middle;
    // section 2 has just enough: records, one area and one page for tables.
    let needed = MIB + 8 * KIB;
    let build = |room: u64| {
        Machine::<Quick>::new()
            .ram(0, SECTION + MIB)
            .ram(SECTION + 2 * MIB, 2 * MIB)
            .reserve(SECTION + 2 * MIB + 1020 * KIB, 4 * KIB)
            .ram(2 * SECTION + 64 * MIB, room)
            .early(Direction::BottomUp)
            .boot()
    };
    let machine = build(needed);
    assert_eq!(latent_sections(&machine), [2]);
    machine.check();
    // Nothing is left of it: it is populated all the same, once it is asked for.
    machine.populate(PfnRange::from_numbers(0, u64::MAX));
    assert!(latent_sections(&machine).is_empty());
    machine.finish();

    let machine = build(needed - 4 * KIB);
    assert!(latent_sections(&machine).is_empty());
    machine.finish();
}

#[test]
fn memory_is_populated_ahead_of_requests_but_not_all_of_it() {
    let machine = Machine::<Listed<Quick>>::new().ram(0, 12 * SECTION).boot();
    machine.hardware().has_populators();
    let dma32 = &machine.nodes()[0].zones()[1];
    let ahead = |high: u64| SECTION_FRAMES.max(2 * high);
    // One section is not all free; a second one is enough.
    assert_eq!(machine.populate_ahead(NodeId(0)), 1);
    assert_eq!(machine.populate_ahead(NodeId(0)), 0);
    assert!(dma32.populated_free() >= ahead(dma32.watermarks().marks().high));
    assert_eq!(machine.hardware().woken_to_populate(), []);
    assert_eq!(machine.populate_ahead(NodeId(7)), 0);

    machine.set_min_free_kbytes(256 << 10).unwrap();
    let high = dma32.watermarks().marks().high;
    assert!(2 * high > SECTION_FRAMES);
    drop(machine.alloc_block(Gfp::KERNEL, Order::MAX).unwrap());
    assert_eq!(machine.hardware().woken_to_populate()[0], NodeId(0));
    assert!(machine.populate_ahead(NodeId(0)) > 1);
    let spare = dma32.populated_free() - 2 * high;
    assert!(spare < SECTION_FRAMES, "and then it stops");
    assert!(dma32.latent_frames() > 0);
    machine.finish();
}

/// Populates a section while another CPU looks, whenever interrupts are unmasked, and in the gap of this
/// number needs the section itself. Answers how many frames were handed over between two looks at most.
fn most_at_once(wipes: bool, needed_in: u32) -> u64 {
    let machine = Machine::<Listed<Quick>>::new().ram(0, 12 * SECTION).cpus(2);
    let machine = machine.options(|options| options.init_on_free = wipes);
    let machine = machine.boot();
    let zone = &machine.nodes()[0].zones()[1];
    let range = PfnRange::from_count(first_of(7), SECTION_FRAMES / 2).unwrap();
    let (mut most, mut before) = (0, zone.latent_frames());
    let gaps = machine.hardware().gaps(0);
    std::thread::scope(|scope| {
        let (machine, most, before) = (&machine, &mut most, &mut before);
        scope.spawn(move || {
            let _here = machine.cpu(1);
            let mut number = 0;
            gaps.each(|| {
                let now = zone.latent_frames();
                *most = (*most).max(*before - now);
                number += 1;
                if number == needed_in {
                    // What is left of it is handed over here.
                    drop(machine.alloc_contig_range(range, Gfp::KERNEL).unwrap());
                }
                *before = zone.latent_frames();
            });
        });
        machine.populate(range);
        machine.hardware().no_more_gaps();
    });
    assert!(!machine.is_latent(range.first()));
    drop(machine.alloc_contig_range(range, Gfp::KERNEL).unwrap());
    machine.finish();
    most
}

#[test]
fn a_section_is_wiped_a_pageblock_at_a_time_and_others_do_not_wait_for_it() {
    // Whole, where nothing is written to but records.
    assert!(most_at_once(false, 0) > SECTION_FRAMES / 2);
    for needed_in in [0, 1, 5, 20, 70] {
        let most = most_at_once(true, needed_in);
        assert!((1..=512).contains(&most), "{most} in gap {needed_in}");
    }
}

#[test]
fn a_section_that_cannot_be_populated_is_reported_and_left_out() {
    let machine = six::<Quick>().boot();
    let (managed, free) = (machine.managed_frames(), machine.free_frames());
    machine.hardware().refuse_to_map(2);
    let blocks = exhaust(&machine, ALL, Order::ZERO);
    let lost = [1, 2].map(|section| Corruption::LostSection {
        pfn: first_of(section),
    });
    assert_eq!(machine.hardware().take_reports(), lost);
    let gone = 2 * (SECTION_FRAMES - 256 - 2);
    assert_eq!(machine.managed_frames(), managed - gone);
    assert_eq!(blocks.len() as u64, free - gone);
    assert_eq!(latent_sections(&machine), [1, 2]);
    machine.populate(PfnRange::from_numbers(0, u64::MAX));
    assert_eq!(latent_sections(&machine), [1, 2], "nobody tries again");
    machine.validate().unwrap();
    drop(blocks);
    machine.abandon();
}

fn threads_share_what_is_populated_on<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 10 * SECTION).cpus(4).boot();
    let work = |cpu: u32| {
        let running = (cpu > 0).then(|| machine.cpu(cpu));
        let mut random = Random::new(u64::from(cpu) + 1);
        let mut blocks = Vec::new();
        loop {
            let order = Order::new([0, 3, 9, 10][(random.next_u64() % 4) as usize]).unwrap();
            let gfp = [ALL, NOW, ALL | Gfp::MOVABLE][(random.next_u64() % 3) as usize];
            match machine.alloc_block(gfp, order) {
                Ok(block) => blocks.push(block),
                // Nothing of the largest order and nothing latent: the end is near.
                Err(_) if gfp != NOW && order == Order::MAX => break,
                Err(_) => {}
            }
        }
        let frames: Vec<PfnRange> = blocks.iter().map(Block::frames).collect();
        (frames, blocks, running.map(drop))
    };
    let taken = std::thread::scope(|scope| {
        let others: Vec<_> = (1..4).map(|cpu| scope.spawn(move || work(cpu))).collect();
        let mut taken = vec![work(0)];
        taken.extend(others.into_iter().map(|thread| thread.join().unwrap()));
        taken
    });
    let mut owners = Owners::new();
    for frames in taken.iter().flat_map(|(frames, ..)| frames) {
        owners.took(machine.hardware().ram(), *frames);
    }
    assert!(latent_sections(&machine).is_empty());
    machine.check();
    drop(taken);
    machine.finish();
}

#[test]
fn threads_share_what_is_populated() {
    threads_share_what_is_populated_on::<Quick>();
    threads_share_what_is_populated_on::<Latent<Listed<(Plain, Sparse)>>>();
}

/// Requests of all kinds on machines with odd sections, until all is populated.
fn random_requests_on<C: SimConfig>(seed: u64) {
    let mut random = Random::new(seed);
    let mut machine = Machine::<C>::new().kernelcore(300 * MIB);
    let mut at = (random.next_u64() % 64) * PAGE_SIZE;
    let mut reserved = Vec::new();
    for _ in 0..12 {
        let pages = match random.next_u64() % 3 {
            0 => 1 + random.next_u64() % 600,
            1 => 1 + random.next_u64() % 20_000,
            _ => SECTION_FRAMES,
        };
        let node = (random.next_u64() % 2) as u16;
        machine = machine.node(node, at, pages * PAGE_SIZE);
        if pages > 600 {
            reserved.push((at + (random.next_u64() % pages) * PAGE_SIZE + 17, 5_000));
        }
        at += (pages + random.next_u64() % 3 * 900) * PAGE_SIZE;
    }
    for (start, bytes) in reserved.into_iter().step_by(2) {
        machine = machine.reserve(start, bytes);
    }
    let Ok(machine) = machine.try_boot() else {
        panic!("seed {seed}");
    };
    machine.check();
    let mut blocks = Vec::new();
    for step in 0..3_000 {
        if random.next_u64().is_multiple_of(4) && !blocks.is_empty() {
            let index = (random.next_u64() as usize) % blocks.len();
            drop(blocks.swap_remove(index));
            continue;
        }
        let order = Order::new((random.next_u64() % 11) as u8).unwrap();
        let gfp = [ALL, NOW, Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, ALL | Gfp::DMA];
        let gfp = gfp[(random.next_u64() % 5) as usize] | Gfp::NOWARN;
        blocks.extend(machine.alloc_block(gfp, order));
        if step % 1_000 == 0 {
            machine.check();
        }
    }
    drop(blocks);
    machine.finish();
}

#[test]
fn random_requests_on_odd_machines() {
    for seed in 0..12 {
        random_requests_on::<Quick>(seed);
        random_requests_on::<Latent<Listed<(Plain, Sparse)>>>(seed);
    }
    random_requests_on::<Latent<(Debug, Vmemmap)>>(99);
}
