//! Page lists of CPUs: who may take what is on them, and how much that may be.

use std::sync::Barrier;
use std::thread;

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::frame::{FrameState, FreeError};
use mm::report::Corruption;
use mm::system::AllocError;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, Plain, SimConfig, Usual, Vmemmap};

const MIB: u64 = 1 << 20;

/// Frames on the lists of a CPU, all zones together.
fn on_lists<C: SimConfig>(machine: &Machine<C>, cpu: usize) -> u64 {
    let of_zone = machine.zones().filter_map(|zone| zone.pagesets().nth(cpu));
    of_zone.map(|set| set.count).sum()
}

/// Frames on all lists.
fn on_all_lists<C: SimConfig>(machine: &Machine<C>) -> u64 {
    let sets = machine.zones().flat_map(|zone| zone.pagesets());
    sets.map(|set| set.count).sum()
}

/// Takes a page and gives it back.
fn touch<C: SimConfig>(machine: &Machine<C>) -> Pfn {
    let pfn = machine.alloc_page(Gfp::KERNEL).unwrap();
    // SAFETY: allocated just now.
    unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
    pfn
}

/// Whoever asks for the place of a CPU that is there must not give that place up when it does not
/// get it: the next one would get it then, beside the CPU itself.
#[test]
fn a_cpu_that_runs_keeps_its_lists_however_often_others_ask() {
    let machine = Machine::<Listed<Usual>>::new()
        .ram(0, 32 * MIB)
        .cpus(2)
        .boot();
    let (ready, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _here = machine.cpu(1);
            touch(&machine);
            ready.wait();
            done.wait();
            let listed = on_lists(&machine, 1);
            assert!(listed > 0, "another CPU took what this one has");
            // It was asked for its pages, and gives them back when it is done with them.
            let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
            assert_eq!(on_lists(&machine, 1), 0);
            drop(page);
        });
        ready.wait();
        for _ in 0..3 {
            assert!(!machine.drain_all_pages(), "nobody is away");
        }
        done.wait();
    });
    assert!(machine.drain_all_pages());
    machine.finish();
}
