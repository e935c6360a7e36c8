//! The contiguous memory allocator: its area, who borrows from it, and what is in the way when it is
//! wanted back.

use std::sync::Mutex;
use std::thread;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::relief::{Freed, Relief, ShrinkControl, Shrinker};
use mm::buddy::{Gfp, MigrateType, RangeError};
use mm::config::PAGE_SIZE;
use mm::proc::{meminfo, vmstat, zoneinfo};
use mm::system::{Block, CmaError, ContigError, Memory, PageRun};
use mm::zone::ZoneKind;
use mm_tests::oracles::Owners;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{
    Builder, Checked, Listed, Machine, Plain, SimConfig, SimPlatform, Usual, Vmemmap,
};

const MIB: u64 = 1 << 20;

type Handle<'m, C> = Block<&'m Memory<SimPlatform<C>>>;
type Run<'m, C> = PageRun<&'m Memory<SimPlatform<C>>>;

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn with_cma<C: SimConfig>(builder: Builder<C>, mib: u64) -> Builder<C> {
    builder.options(|options| options.cma_bytes = mib * MIB)
}

/// 128 MiB, so many of them CMA.
fn machine<C: SimConfig>(mib: u64) -> Machine<C> {
    with_cma(Machine::new().ram(16 * MIB, 128 * MIB), mib).boot()
}

fn area<C: SimConfig>(machine: &Machine<C>) -> PfnRange {
    machine.cma_stats().frames
}

fn text<C: SimConfig>(
    machine: &Machine<C>,
    print: impl Fn(&Memory<SimPlatform<C>>, &mut dyn std::fmt::Write) -> std::fmt::Result,
) -> String {
    let mut text = String::new();
    print(machine, &mut text).unwrap();
    text
}

#[test]
fn the_area_is_whole_blocks_of_one_zone_and_belongs_to_the_allocator() {
    for (mib, expected) in [(0, 0), (1, 4), (16, 16), (33, 36), (60, 60)] {
        let machine = machine::<Usual>(mib);
        let frames = area(&machine);
        assert_eq!(frames.frames() * PAGE_SIZE, expected * MIB);
        assert_eq!(machine.booted().cma, frames.frames());
        assert!(frames.first().is_aligned(Order::MAX));
        let zone = machine.nodes()[0].zone(ZoneKind::Dma32);
        assert_eq!(zone.cma(), (frames.frames(), frames.frames()));
        for pfn in frames.iter().step_by(512) {
            let kind = zone.pageblock_type(machine.hardware(), pfn);
            assert_eq!(kind, Some(MigrateType::Cma));
        }
        // It makes no difference to how much memory there is, but for the bitmap.
        assert_eq!(machine.managed_frames(), machine.free_frames());
        machine.finish();
    }
}

#[test]
fn an_area_for_which_there_is_no_room_is_left_out_and_nothing_is_lost() {
    for mib in [100, 128, 1 << 20, (u64::MAX / MIB)] {
        let machine = machine::<Usual>(mib);
        assert_eq!((machine.booted().cma, area(&machine)), (0, PfnRange::EMPTY));
        assert_eq!(
            machine.cma_alloc(1, Order::ZERO).unwrap_err(),
            CmaError::NoArea
        );
        let plain = Machine::<Usual>::new().ram(16 * MIB, 128 * MIB).boot();
        assert_eq!(machine.managed_frames(), plain.managed_frames());
        machine.finish();
        plain.finish();
    }
    // More than half of it, which is in two zones.
    let builder = Machine::<Usual>::new().ram(4096 * MIB - 64 * MIB, 128 * MIB);
    let machine = with_cma(builder, 68).boot();
    assert_eq!(machine.booted().cma, 0);
    machine.finish();
    // The higher zone is asked first, and any node.
    let builder = Machine::<Usual>::new()
        .ram(64 * MIB, 64 * MIB)
        .node(1, 4096 * MIB, 64 * MIB);
    let machine = with_cma(builder, 32).boot();
    let zone = machine.zone_of(area(&machine).first()).unwrap();
    assert_eq!((zone.id().node.0, zone.kind()), (1, ZoneKind::Normal));
    machine.finish();
}

fn runs_come_and_go<C: SimConfig>() {
    let machine = machine::<C>(16);
    let frames = area(&machine);
    let all = machine.cma_alloc(frames.frames(), Order::ZERO).unwrap();
    assert_eq!(all.frames(), frames);
    assert_eq!(
        machine.cma_alloc(1, Order::ZERO).unwrap_err(),
        CmaError::NoRoom
    );
    machine.check();
    machine.cma_release(all);
    assert_eq!(machine.cma_stats().taken, 0);
    // Small ones lie side by side, each at its alignment.
    let small: Vec<_> = [(3, 0), (5, 2), (1, 5), (700, 0), (1, 10)]
        .into_iter()
        .map(|(count, align)| {
            let run = machine.cma_alloc(count, order(align)).unwrap();
            assert_eq!(run.frames().frames(), count);
            assert!(run.frames().first().is_aligned(order(align)));
            run.frames().first().offset_from(frames.first()).unwrap()
        })
        .collect();
    assert_eq!(small, [0, 0, 0, 0, 0], "each was given back at once");
    let kept: Vec<_> = [(3, 0), (5, 2), (1, 5), (700, 0), (1, 10)]
        .into_iter()
        .map(|(count, align)| machine.cma_alloc(count, order(align)).unwrap())
        .collect();
    let places = kept
        .iter()
        .map(|run| run.frames().first().offset_from(frames.first()).unwrap());
    assert!(places.eq([0, 4, 32, 33, 1024]));
    assert_eq!(machine.cma_stats().taken, 710);
    for (count, error) in [
        (0, CmaError::Empty),
        (u64::MAX, CmaError::NoRoom),
        (4000, CmaError::NoRoom),
    ] {
        assert_eq!(machine.cma_alloc(count, Order::ZERO).unwrap_err(), error);
    }
    machine.check();
    drop(kept);
    let stats = machine.cma_stats();
    assert_eq!((stats.success, stats.fail), (11, 4));
    let text = text(&machine, |memory, out| vmstat(memory, out));
    assert!(
        text.contains("\ncma_alloc_success 11\ncma_alloc_fail 4\n"),
        "{text}"
    );
    machine.finish();
}

#[test]
fn runs_of_any_length_and_alignment_come_and_go() {
    runs_come_and_go::<Usual>();
    runs_come_and_go::<Checked>();
    runs_come_and_go::<Listed<(Plain, Vmemmap)>>();
}

#[test]
fn movable_pages_borrow_first_where_the_area_has_more_than_half_and_others_never_do() {
    let machine = machine::<Usual>(80);
    let frames = area(&machine);
    let gfp = Gfp::NOWAIT | Gfp::MOVABLE;
    // Half and half from the moment on when it has no more than the rest.
    let mut borrowed = Vec::new();
    while machine.nodes()[0].zone(ZoneKind::Dma32).cma().1 > machine.free_frames() / 2 {
        let page = machine.alloc_block(gfp, Order::ZERO).unwrap();
        assert!(frames.contains(page.pfn()));
        borrowed.push(page);
    }
    let own = machine.alloc_block(gfp, Order::ZERO).unwrap();
    assert!(!frames.contains(own.pfn()));
    // Others stop at their mark, with the area free.
    let free = machine.nodes()[0].zone(ZoneKind::Dma32).cma().1;
    let min = machine.nodes()[0]
        .zone(ZoneKind::Dma32)
        .watermarks()
        .marks()
        .min;
    let mut others = Vec::new();
    for gfp in [Gfp::NOWAIT, Gfp::NOWAIT | Gfp::RECLAIMABLE] {
        while let Ok(page) = machine.alloc_block(gfp, Order::ZERO) {
            assert!(!frames.contains(page.pfn()));
            others.push(page);
        }
        assert_eq!(machine.free_frames(), free + min);
    }
    while let Ok(page) = machine.alloc_block(Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO) {
        others.push(page);
    }
    assert_eq!(machine.free_frames(), free);
    machine.check();
    let meminfo = text(&machine, |memory, out| meminfo(memory, out));
    let lines = format!(
        "CmaTotal:       {:>8} kB\nCmaFree:        {:>8} kB\n",
        80 << 10,
        4 * free
    );
    assert!(meminfo.ends_with(&lines), "{meminfo}");
    let zones = text(&machine, |memory, out| zoneinfo(memory, out));
    assert!(zones.contains(&format!("        cma      {}\n", frames.frames())));
    assert!(
        zones.contains(&format!("      nr_free_cma  {free}\n")),
        "{zones}"
    );
    let counters = text(&machine, |memory, out| vmstat(memory, out));
    assert!(
        counters.contains(&format!("\nnr_free_cma {free}\n")),
        "{counters}"
    );
    // Movable ones get all of it, down to the mark.
    while let Ok(page) = machine.alloc_block(gfp, Order::ZERO) {
        borrowed.push(page);
    }
    assert_eq!(machine.free_frames(), min);
    drop((own, others, borrowed));
    machine.finish();
}

#[test]
fn a_page_that_was_borrowed_is_in_the_way_and_runs_beside_it_are_found() {
    let machine = machine::<Usual>(80);
    let frames = area(&machine);
    let gfp = Gfp::HIGHUSER_MOVABLE;
    let page = machine.alloc_block(gfp, Order::ZERO).unwrap();
    assert!(frames.contains(page.pfn()));
    let busy = CmaError::Busy { pfn: page.pfn() };
    let before = machine.cma_stats();
    assert_eq!(
        machine.cma_alloc(frames.frames(), Order::ZERO).unwrap_err(),
        busy
    );
    assert_eq!(machine.cma_stats().taken, before.taken);
    let run = machine.cma_alloc(1024, Order::ZERO).unwrap();
    assert!(!run.frames().contains(page.pfn()));
    machine.check();
    drop((page, run));
    let all = machine.cma_alloc(frames.frames(), Order::ZERO).unwrap();
    // Nobody else takes or isolates it by its place.
    for range in [frames, PfnRange::block(frames.first(), order(3))] {
        let error = machine.alloc_contig_range(range, Gfp::KERNEL).unwrap_err();
        let expected = RangeError::Cma {
            pfn: frames.first(),
        };
        assert_eq!(error, ContigError::Range(expected));
    }
    drop(all);
    let error = machine
        .alloc_contig_range(frames, Gfp::HIGHUSER_MOVABLE)
        .unwrap_err();
    assert!(matches!(error, ContigError::Range(RangeError::Cma { .. })));
    machine.finish();
}

#[test]
fn pages_on_lists_of_cpus_make_way() {
    let machine = with_cma(Machine::<Listed<Usual>>::new().ram(16 * MIB, 128 * MIB), 80)
        .cpus(3)
        .boot();
    let frames = area(&machine);
    for cpu in 1..3 {
        let _here = machine.cpu(cpu);
        let take = |_| {
            machine
                .alloc_block(Gfp::HIGHUSER_MOVABLE, Order::ZERO)
                .unwrap()
        };
        let pages: Vec<_> = (0..500).map(take).collect();
        assert!(pages.iter().any(|page| frames.contains(page.pfn())));
    }
    let listed: u64 = machine
        .zones()
        .flat_map(|zone| zone.pagesets())
        .map(|set| set.count)
        .sum();
    assert!(listed > 0);
    let all = machine.cma_alloc(frames.frames(), Order::ZERO).unwrap();
    drop(all);
    machine.finish();
}

/// A cache of movable pages.
struct Cache(&'static Machine<Usual>, Mutex<Vec<Pfn>>);

impl Relief for Cache {
    fn count_objects(&self, _: &ShrinkControl) -> u64 {
        self.1.lock().unwrap().len() as u64
    }

    fn scan_objects(&self, _: &ShrinkControl, objects: u64) -> Option<Freed> {
        let mut pages = self.1.lock().unwrap();
        let left = pages.len().saturating_sub(objects as usize);
        let given = pages.split_off(left);
        for &page in &given {
            // SAFETY: taken as a number, freed once.
            unsafe { self.0.free_pages(page, Order::ZERO) }.unwrap();
        }
        let pages = given.len() as u64;
        Some(Freed {
            objects: pages,
            pages,
        })
    }
}

/// Shrinkers live for good, and so does the machine.
#[test]
fn caches_give_back_what_is_in_the_way() {
    let machine: &'static Machine<Usual> = Box::leak(Box::new(machine(80)));
    let pages = (0..400).map(|_| machine.alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap());
    let cache: &'static Cache = Box::leak(Box::new(Cache(machine, Mutex::new(pages.collect()))));
    let frames = area(machine);
    assert!(
        cache
            .1
            .lock()
            .unwrap()
            .iter()
            .all(|&page| frames.contains(page))
    );
    let error = machine.cma_alloc(frames.frames(), Order::ZERO).unwrap_err();
    assert!(matches!(error, CmaError::Busy { .. }));
    machine
        .register_shrinker(Box::leak(Box::new(Shrinker::new("cache", cache))))
        .unwrap();
    drop(machine.cma_alloc(frames.frames(), Order::ZERO).unwrap());
    assert!(cache.1.lock().unwrap().is_empty());
    machine.check();
}

/// Random requests of all sorts, and runs.
fn churn<C: SimConfig>(steps: usize) {
    let machine = machine::<C>(32);
    let frames = area(&machine);
    let zeroed = machine.options().unwrap().init_on_alloc;
    let mut owners = if zeroed {
        Owners::of_zeroed()
    } else {
        Owners::new()
    };
    let ram = machine.hardware().ram();
    let mut random = Random::new(seed("cma"));
    let (mut live, mut runs): (Vec<Handle<'_, C>>, Vec<Run<'_, C>>) = (Vec::new(), Vec::new());
    let mut served = 0;
    for step in 0..steps {
        match random.below(10) {
            0 => {
                let (count, align) = (1 + random.below(1500), order(random.below(11) as u8));
                if let Ok(run) = machine.cma_alloc(count, align) {
                    assert!(frames.covers(run.frames()) && run.frames().first().is_aligned(align));
                    owners.took(ram, run.frames());
                    runs.push(run);
                    served += 1;
                }
            }
            1 if !runs.is_empty() => {
                let run = runs.swap_remove(random.below_index(runs.len()));
                owners.giving(ram, run.frames().first());
                machine.cma_release(run);
            }
            1..=6 => {
                let gfp = [
                    Gfp::KERNEL,
                    Gfp::HIGHUSER_MOVABLE,
                    Gfp::NOWAIT | Gfp::RECLAIMABLE,
                ];
                let gfp = gfp[random.below_index(3)] | Gfp::NOWARN;
                let size = order([0, 0, 0, 1, 2, 3, 5, 9, 10][random.below_index(9)]);
                if let Ok(block) = machine.alloc_block(gfp, size) {
                    let movable = gfp.contains(Gfp::MOVABLE);
                    assert!(movable || !frames.contains(block.pfn()), "{gfp:?}");
                    owners.took(ram, block.frames());
                    live.push(block);
                }
            }
            _ => {
                for _ in 0..random.below_index(live.len().min(8) + 1) {
                    let block = live.swap_remove(random.below_index(live.len()));
                    owners.giving(ram, block.pfn());
                }
            }
        }
        if step % 1_000 == 0 {
            machine.check();
        }
    }
    assert!(served > 0);
    machine.check();
    drop((live, runs));
    drop(machine.cma_alloc(frames.frames(), Order::ZERO).unwrap());
    machine.finish();
}

#[test]
fn a_run_has_one_owner_whatever_else_goes_on() {
    churn::<Usual>(10_000);
    churn::<Listed<Usual>>(10_000);
    churn::<Checked>(1_000);
}

#[test]
fn several_cpus_never_get_the_same_frames() {
    let machine = with_cma(Machine::<Listed<Usual>>::new().ram(16 * MIB, 128 * MIB), 32)
        .cpus(4)
        .boot();
    let owners = Mutex::new(Owners::of_zeroed());
    let seed = seed("cma_cpus");
    thread::scope(|scope| {
        for cpu in 1..4 {
            let (machine, owners) = (&machine, &owners);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                let mut random = Random::new(seed ^ u64::from(cpu));
                for _ in 0..200 {
                    let page = machine
                        .alloc_block(Gfp::HIGHUSER_MOVABLE, Order::ZERO)
                        .unwrap();
                    if let Ok(run) = machine.cma_alloc(1 + random.below(600), Order::ZERO) {
                        owners
                            .lock()
                            .unwrap()
                            .took(machine.hardware().ram(), run.frames());
                        owners
                            .lock()
                            .unwrap()
                            .giving(machine.hardware().ram(), run.frames().first());
                    }
                    drop(page);
                }
            });
        }
    });
    assert!(machine.cma_stats().success > 0);
    assert_eq!(machine.cma_stats().taken, 0);
    machine.finish();
}
