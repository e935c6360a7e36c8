//! R01, scaled down: many CPUs at once, no frame handed out twice.
//!
//! What threads share here is locked by `spin`, and threads are joined one by one: ThreadSanitizer does
//! not see what happens inside of std (`scripts/tsan.sh`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::frame::FrameState;
use mm::report::Corruption;
use mm::system::{Block, Memory};
use mm_tests::oracles::{Blocks, Owners};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, SimPlatform, Usual, Vmemmap};
use spin::Mutex;

const MIB: u64 = 1 << 20;

type Handle<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

/// Each CPU allocates and frees for itself, and hands every fourth block to whoever comes next.
fn hammer<C: SimConfig>(cpus: u32, operations: u64) {
    let machine = Machine::<C>::new().ram(0, 96 * MIB).cpus(cpus + 1).boot();
    let seed = seed("hammer");
    let (owners, handed) = (Mutex::new(Owners::new()), Mutex::new(Vec::new()));
    on_cpus(&machine, cpus, |cpu| {
        let mut random = Random::new(seed ^ u64::from(cpu));
        let mut live: Vec<Handle<'_, C>> = Vec::new();
        for _ in 0..operations {
            work(&machine, &owners, &handed, &mut random, &mut live);
        }
        for block in live {
            give(&machine, &owners, block);
        }
    });
    let reports = machine.hardware().take_reports();
    assert!(reports.is_empty(), "{reports:?}");
    machine.check();
    for block in handed.into_inner() {
        give(&machine, &owners, block);
    }
    assert!(owners.into_inner().is_empty());
    machine.finish();
}

/// Runs `body` on CPUs 1 to `cpus`, each with a thread of its own.
fn on_cpus<C: SimConfig>(machine: &Machine<C>, cpus: u32, body: impl Fn(u32) + Sync) {
    thread::scope(|scope| {
        let body = &body;
        let spawn = |cpu| {
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                body(cpu);
            })
        };
        let threads: Vec<_> = (1..=cpus).map(spawn).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

fn work<'m, C: SimConfig>(
    machine: &'m Machine<C>,
    owners: &Mutex<Owners>,
    handed: &Mutex<Vec<Handle<'m, C>>>,
    random: &mut Random,
    live: &mut Vec<Handle<'m, C>>,
) {
    let order = Order::new([0, 0, 0, 1, 2, 3, 5, 9, 10][random.below_index(9)]).unwrap();
    let gfp = [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::ATOMIC | Gfp::DMA32][random.below_index(3)];
    match random.below(8) {
        0..=3 => {
            if let Ok(block) = machine.alloc_block(gfp, order) {
                owners.lock().took(machine.hardware().ram(), block.frames());
                live.push(block);
            }
        }
        4 if !live.is_empty() => {
            let block = live.swap_remove(random.below_index(live.len()));
            let mut handed = handed.lock();
            let other = handed.len() > 8;
            handed.push(block);
            if other {
                live.push(handed.swap_remove(0));
            }
        }
        _ if !live.is_empty() => {
            let block = live.swap_remove(random.below_index(live.len()));
            give(machine, owners, block);
        }
        _ => {}
    }
}

fn give<C: SimConfig>(machine: &Machine<C>, owners: &Mutex<Owners>, block: Handle<'_, C>) {
    // The stamps are read and forgotten before anybody else can have the frames.
    owners.lock().giving(machine.hardware().ram(), block.pfn());
    drop(block);
}

#[test]
fn eight_cpus_never_get_the_same_frame() {
    hammer::<Usual>(8, 6_000);
}

#[test]
fn three_cpus_never_get_the_same_frame_with_all_checks_on() {
    hammer::<Checked>(3, 2_500);
    hammer::<(mm_tests::sim::Plain, Vmemmap)>(2, 10_000);
}

#[test]
fn cpus_with_page_lists_never_get_the_same_frame() {
    hammer::<Listed<Usual>>(8, 6_000);
    hammer::<Listed<Checked>>(3, 2_500);
    hammer::<Listed<(mm_tests::sim::Plain, Vmemmap)>>(2, 10_000);
}

/// Who has each frame of a machine: nobody, or somebody.
struct Ledger(Vec<AtomicBool>);

impl Ledger {
    fn of<C: SimConfig>(machine: &Machine<C>) -> Self {
        let frames = machine.frames().unwrap().limit().as_u64();
        Self((0..frames).map(|_| AtomicBool::new(false)).collect())
    }

    /// Turns all frames of a block from one to the other.
    fn turn(&self, block: PfnRange, taken: bool) {
        let first = block.first().as_u64() as usize;
        for (at, frame) in self.0[first..][..block.frames() as usize]
            .iter()
            .enumerate()
        {
            let before = frame.swap(taken, Ordering::AcqRel);
            assert_ne!(before, taken, "frame {} of {block:?}", first + at);
        }
    }
}

/// R01: eight CPUs, orders 0 to 10, 4 GiB, 16 seeds, all oracles after each. `MM_CASES` sets how many
/// operations each CPU does for each seed: 5,000,000 at full size (docs/testing.md).
fn sixteen_seeds<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 4096 * MIB).cpus(9).boot();
    let ledger = Ledger::of(&machine);
    let seed = seed("sixteen_seeds");
    let operations = cases(2_000);
    for round in 0..16 {
        on_cpus(&machine, 8, |cpu| {
            let mut random = Random::new(seed ^ (round << 8) ^ u64::from(cpu));
            let mut live: Vec<Handle<'_, C>> = Vec::new();
            for _ in 0..operations {
                let takes = live.len() < 200 && random.below(2) == 0;
                if takes || live.is_empty() {
                    let order = Order::new(random.below(11) as u8).unwrap();
                    let gfp = [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::ATOMIC];
                    let gfp = gfp[random.below_index(3)] | Gfp::NOWARN;
                    let Ok(block) = machine.alloc_block(gfp, order) else {
                        continue;
                    };
                    assert!(block.pfn().is_aligned(order) && block.order() == order);
                    ledger.turn(block.frames(), true);
                    live.push(block);
                } else {
                    let block = live.swap_remove(random.below_index(live.len()));
                    ledger.turn(block.frames(), false);
                    drop(block);
                }
            }
            for block in live {
                ledger.turn(block.frames(), false);
                drop(block);
            }
        });
        machine.check();
    }
    machine.finish();
}

#[test]
fn eight_cpus_on_four_gibibytes_never_get_the_same_frame() {
    sixteen_seeds::<Listed<(mm_tests::sim::Plain, Vmemmap)>>();
}

#[test]
fn references_dropped_on_many_cpus_free_the_block_once() {
    let machine = Machine::<Usual>::new().ram(0, 16 * MIB).cpus(5).boot();
    for _ in 0..300 {
        let shared = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
        let shared = shared.share().unwrap();
        on_cpus(&machine, 4, |_| {
            let twin = shared.clone();
            for _ in 0..50 {
                drop(twin.clone());
                let pfn = machine.get_page(twin.pfn()).unwrap();
                // SAFETY: the reference just taken.
                unsafe { machine.put_page(pfn) }.unwrap();
            }
        });
        assert_eq!(shared.count(), 1);
    }
    machine.finish();
}

/// A broken allocator that offers a frame again is refused by the frame's own record.
#[test]
fn a_frame_that_is_on_a_list_but_in_use_is_refused_every_time() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let mut refused = 0;
    let mut held = Vec::new();
    let mut random = Random::new(seed("broken_buddy"));
    while refused < 1_000 {
        // Makes single free pages of whatever is there: every second page stays in use.
        let mut pages: Vec<_> = (0..64)
            .map(|_| machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap())
            .collect();
        let victims: Vec<Pfn> = pages
            .iter()
            .map(Block::pfn)
            .filter(|pfn| pfn.as_u64() % 2 == 1)
            .collect();
        pages.retain(|page| page.pfn().as_u64() % 2 == 0);
        held.extend(pages);
        let free = |pfn: &Pfn| machine.page(*pfn).unwrap().state() == Some(FrameState::Free);
        let victims: Vec<_> = victims.into_iter().filter(free).collect();
        let mut forged = Vec::new();
        for pfn in victims {
            let order = machine.page(pfn).unwrap().order();
            let frames = PfnRange::block(pfn, order).frames();
            assert_eq!(frames, 1);
            forged.push(forge(&machine, pfn, &mut random));
        }
        let offered = machine.free_frames();
        let mut taken: Vec<Handle<'_, Usual>> = Vec::new();
        while taken.len() < 64 {
            let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
            assert!(
                !forged.contains(&page.pfn()),
                "{} was handed out again",
                page.pfn()
            );
            taken.push(page);
        }
        assert!(machine.free_frames() < offered);
        let reports = machine.hardware().take_reports();
        for report in &reports {
            assert!(matches!(report, Corruption::NotFree { pfn, .. } if forged.contains(pfn)));
        }
        refused += reports.len();
        held.extend(taken);
        if machine.free_frames() < 256 {
            break;
        }
    }
    assert!(refused >= 1_000, "{refused} refusals");
    assert!(Blocks::of(&*machine).count() > 0);
    drop(held);
    machine.abandon();
}

/// Writes an owner into the record of a free page, behind the allocator's back: now the lists
/// offer a frame that is in use.
fn forge<C: SimConfig>(machine: &Machine<C>, pfn: Pfn, random: &mut Random) -> Pfn {
    let frame = machine.page(pfn).unwrap().frame();
    let record = core::ptr::from_ref(frame).cast::<u8>().cast_mut();
    let state = [3_u8, 4, 0, 2][random.below_index(4)];
    // SAFETY: the state's nibble of a record in this machine's RAM; records are atomics, so there
    // is no reference that forbids writing, and no other thread is there.
    unsafe { record.write_volatile(state) };
    pfn
}
