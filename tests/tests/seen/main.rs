//! Memory seen from outside (`mm::inspect`, `mm_viewer`) is memory as the library counts it.

mod past;
mod recorded;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::inspect::{self, Header, MAGIC, VERSION};
use mm::slab::SlabFlags;
use mm::system::{Block, KmemCache, PageOwner};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{
    Debug, Flat, Hardened, Latent, Listed, Machine, Plain, SimConfig, Sparse, Usual,
};
use mm_viewer::frame::describe;
use mm_viewer::guest::{AttachError, Guest};
use mm_viewer::owner::Owner;
use mm_viewer::ram::Ram;
use mm_viewer::snapshot::Snapshot;
use mm_viewer::tui::{Pane, Ui, draw};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

const MIB: u64 = 1 << 20;

/// Records that are in the direct map: a simulated machine has no page tables by which others could be found.
#[test]
fn frames_are_seen_as_they_are_counted() {
    counted::<(Plain, Sparse)>();
    counted::<Listed<(Hardened, Flat)>>();
    counted::<Listed<(Debug, Sparse)>>();
    counted::<Latent<(Plain, Sparse)>>();
}

/// Most of it: what a boot does not need has no records yet.
#[test]
fn memory_without_records_is_seen() {
    let machine = Machine::<Latent<(Plain, Sparse)>>::with_ram(600 * MIB);
    machine.publish().unwrap();
    let mut guest = attach(&machine).unwrap();
    compare(&machine, &mut guest);
    let counts = Snapshot::take(&guest).counts();
    assert!(counts[Owner::Latent.index()] * 4096 > 256 * MIB);
    // What it is written down in stays.
    machine.abandon();
}

fn attach<C: SimConfig>(machine: &Machine<C>) -> Result<Guest, AttachError> {
    let ram = Ram::open(&[machine.hardware().ram().path()]).unwrap();
    Guest::attach(ram).map_err(|(error, _)| error)
}

/// What is seen, and what is counted.
fn compare<C: SimConfig>(machine: &Machine<C>, guest: &mut Guest) {
    // What came back last is merged where somebody counts blocks.
    let counted: Vec<_> = machine
        .zones()
        .filter(|zone| zone.is_populated())
        .map(|zone| (zone, zone.snapshot(machine.platform()).blocks))
        .collect();
    guest.refresh();
    let snapshot = Snapshot::take(guest);
    // The kernel itself finds the same.
    let mut owners = vec![Owner::Poisoned; snapshot.owners.len()];
    inspect::owners(machine, &mut owners);
    assert!(owners == snapshot.owners);
    let counts = snapshot.counts();
    let of = |owner: Owner| counts[owner.index()];
    let free: u64 = Owner::ALL
        .into_iter()
        .filter(|owner| owner.is_free())
        .map(of)
        .sum();
    assert_eq!(free, machine.free_frames());
    assert_eq!(of(Owner::PageTable), machine.page_table_frames());
    let lists: u64 = machine
        .zones()
        .flat_map(|zone| zone.pagesets())
        .map(|list| list.count)
        .sum();
    // Blocks whose freeing is put off look like those on lists; none is.
    assert_eq!(of(Owner::PerCpu), lists);
    for (seen, (zone, blocks)) in snapshot.zones.iter().zip(counted) {
        let span = (zone.span().first().as_u64(), zone.span().end().as_u64());
        assert_eq!(
            (seen.name.as_str(), seen.span, seen.present),
            (zone.kind().name(), span, zone.present())
        );
        assert_eq!(
            (seen.free(), seen.number("managed")),
            (zone.free_frames(), zone.managed())
        );
        let marks = zone.watermarks().unboosted();
        let found = ["min", "low", "high"].map(|name| seen.number(name));
        assert_eq!(found, [marks.min, marks.low, marks.high]);
        for order in Order::all() {
            let all: u64 = blocks.iter().map(|row| row[order.index()]).sum();
            assert_eq!(seen.blocks[order.index()], all, "order {order}");
        }
        for (list, told) in seen.lists.iter().zip(zone.pagesets()) {
            assert_eq!(
                (list.count, list.high, list.batch, list.freed),
                (told.count, told.high, told.batch, told.freed)
            );
            assert_eq!((list.refills, list.drains), (told.refills, told.drains));
        }
    }
    let mut caches = snapshot.caches.iter();
    let mut frames = 0;
    machine.for_each_cache(|name, stats| {
        let seen = caches.find(|cache| name.starts_with(&cache.name)).unwrap();
        assert_eq!(seen.slabs, stats.slabs, "{name}");
        assert_eq!(seen.taken, stats.active_objects + stats.at_hand, "{name}");
        frames += seen.frames;
    });
    assert_eq!(of(Owner::Slab), frames);
}

fn counted<C: SimConfig>() {
    let mut random = Random::new(seed("seen"));
    let machine = Machine::<C>::with_ram(64 * MIB);
    assert_eq!(attach(&machine).unwrap_err(), AttachError::Nothing);
    machine.publish().unwrap();
    let mut guest = attach(&machine).unwrap();
    let mut blocks = Vec::new();
    let mut objects = Vec::new();
    for _ in 0..cases(12) {
        for _ in 0..200 {
            let order = Order::new(random.below(11) as u8).unwrap();
            let kind = [
                Gfp::KERNEL,
                Gfp::HIGHUSER_MOVABLE,
                Gfp::KERNEL | Gfp::RECLAIMABLE,
            ];
            let gfp = kind[random.below_index(3)] | Gfp::NOWARN;
            match random.below(4) {
                0 if order.as_u8() < 6 => blocks.extend(Block::alloc(&*machine, gfp, order)),
                1 if !blocks.is_empty() => {
                    drop(blocks.swap_remove(random.below_index(blocks.len())))
                }
                2 => objects.extend(
                    machine.kmalloc(1 + random.below_index(9000), Gfp::KERNEL | Gfp::NOWARN),
                ),
                _ if !objects.is_empty() => {
                    let object = objects.swap_remove(random.below_index(objects.len()));
                    // SAFETY: it was allocated above, and is forgotten.
                    unsafe { machine.kfree(object) }.unwrap();
                }
                _ => {}
            }
        }
        compare(&machine, &mut guest);
    }
    drop(blocks);
    for object in objects {
        // SAFETY: as above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    // What it is written down in stays.
    machine.abandon();
}

/// Caches come and go after memory was published.
#[test]
fn caches_are_seen_as_long_as_they_are_there() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    machine.publish().unwrap();
    let mut guest = attach(&machine).unwrap();
    let names = |guest: &mut Guest| -> Vec<String> {
        guest.refresh();
        let snapshot = Snapshot::take(guest);
        snapshot
            .caches
            .into_iter()
            .map(|cache| cache.name)
            .collect()
    };
    let before = names(&mut guest);
    for round in 0..3 {
        let name = format!("inode_cache_{round}");
        let flags = SlabFlags::NO_MERGE;
        let caches: Vec<_> = (0..100)
            .map(|_| KmemCache::create(&*machine, &name, (600 + round, 8), flags).unwrap())
            .collect();
        let seen = names(&mut guest);
        assert_eq!(seen.iter().filter(|seen| **seen == name).count(), 100);
        caches
            .into_iter()
            .for_each(|cache| cache.destroy().unwrap());
        assert_eq!(names(&mut guest), before);
    }
    // A second time, nothing is added.
    let first = machine.publish().unwrap();
    assert_eq!(first, guest.header().own);
    assert_eq!(names(&mut guest), before);
    machine.abandon();
}

/// Another version is named, and what only looks like a page is none.
#[test]
fn another_version_is_named() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let page = || Block::alloc(&*machine, Gfp::KERNEL, Order::ZERO).unwrap();
    let mut copy = page();
    copy.bytes_mut()[..16].copy_from_slice(&MAGIC);
    assert_eq!(attach(&machine).unwrap_err(), AttachError::Nothing);
    let mut newer = page();
    let header = Header {
        own: newer.pfn().addr(),
        direct_map: 1,
        ..Header::default()
    };
    newer.bytes_mut()[..Header::BYTES].copy_from_slice(&header.to_bytes());
    newer.bytes_mut()[16] = VERSION as u8 + 1;
    let error = attach(&machine).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("version {}", VERSION + 1)),
        "{error}"
    );
    // One that can be read is found beside others.
    machine.publish().unwrap();
    attach(&machine).unwrap();
    drop((copy, newer));
    machine.abandon();
}

/// Who gave a frame back, where that is kept. (Source locations are in the test's own memory, where no viewer finds them.)
#[test]
fn who_freed_a_frame_is_named() {
    let machine = Machine::<Usual>::new()
        .ram(0, 32 * MIB)
        .options(|options| options.page_owner = PageOwner::On)
        .boot();
    machine.publish().unwrap();
    let block = Block::alloc(&*machine, Gfp::KERNEL, Order::new(3).unwrap()).unwrap();
    let last = block.pfn().as_u64() + 7;
    drop(block);
    let guest = attach(&machine).unwrap();
    let snapshot = Snapshot::take(&guest);
    let nobody = describe(&guest, &snapshot, last, &mut |_| None);
    let freed = "freed last by task 1 on CPU 0";
    let wanted = format!("{freed}, from 0xffffffff80201234 0xffffffff80205678");
    assert_eq!(nobody.last(), Some(&wanted));
    // The library's own functions are passed over: who called them is looked for.
    let mut names = |at: u64| match at {
        0xffff_ffff_8020_1233 => {
            Some("mm::free (a:1), inlined into <mm::Block as Drop>::drop (b:2)".to_owned())
        }
        _ => Some("core::ptr::drop (c:3), inlined into kernel::work (d:4)".to_owned()),
    };
    let named = describe(&guest, &snapshot, last, &mut names);
    assert_eq!(
        named.last(),
        Some(&format!("{freed} in kernel::work (d:4)"))
    );
    machine.abandon();
}

/// Whatever the pages say, a viewer does not believe it blindly.
#[test]
fn damaged_pages_are_survived() {
    let mut random = Random::new(seed("damaged"));
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let first = machine.publish().unwrap();
    let image = std::fs::read(machine.hardware().ram().path()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for round in 0..cases(40) {
        let mut image = image.clone();
        let at = first.as_u64() as usize;
        for _ in 0..1 + random.below(6) {
            // Bytes anywhere, and whole numbers of the header and of the first entries: of zones.
            match round % 2 {
                0 => image[at + 32 + random.below_index(4064)] = random.below(256) as u8,
                _ => {
                    let place = at + 32 + 8 * random.below_index(60);
                    let number = [0, 1, u64::MAX, u64::MAX / 3, 1 << 40][random.below_index(5)];
                    image[place..place + 8].copy_from_slice(&number.to_le_bytes());
                }
            }
        }
        std::fs::write(file.path(), &image).unwrap();
        let ram = Ram::open(&[file.path().to_owned()]).unwrap();
        if let Ok(guest) = Guest::attach(ram) {
            let mut ui = Ui::new("damaged");
            ui.snapshot = Snapshot::take(&guest);
            ui.selected = describe(&guest, &ui.snapshot, random.below(9000), &mut |_| None);
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            for pane in Pane::ALL {
                ui.pane = pane;
                terminal.draw(|frame| draw(frame, &mut ui)).unwrap();
            }
        }
    }
    machine.abandon();
}
