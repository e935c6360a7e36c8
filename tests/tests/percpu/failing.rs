//! Memory runs out, by chance or on purpose: whoever asked has nothing then, and nothing is lost.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::system::{FailPageAlloc, PerCpuError, Times};
use mm_tests::sim::{Machine, Usual};

use super::{MIB, alloc, dirty, free};

/// A chunk needs its own memory, its record, and up to two pages of the table; each of them fails once.
#[test]
fn a_request_that_fails_half_way_leaves_nothing() {
    let mut failures = Vec::new();
    for number in 1..=5 {
        let rule = FailPageAlloc {
            interval: number,
            times: Times::AtMost(1),
            ..FailPageAlloc::per_cent(100, 0)
        };
        let builder = Machine::<Usual>::new().ram(0, 64 * MIB).cpus(4);
        let machine = builder
            .options(|options| options.fail_page_alloc = Some(rule))
            .boot();
        let result = machine.alloc_percpu((100, 8), Gfp::KERNEL);
        failures.push(result.is_err());
        let first = match result {
            Ok(first) => first,
            Err(error) => {
                assert_eq!(error, PerCpuError::OutOfMemory);
                assert_eq!(machine.percpu_stats().chunks, 0);
                machine.check();
                alloc(&machine, (100, 8))
            }
        };
        dirty(&machine, first, 100, 7);
        machine.validate_percpu().unwrap();
        free(&machine, first, 100);
        machine.finish();
    }
    // Root and leaf of the table, record, units; there is no fifth request.
    assert_eq!(failures, [true, true, true, true, false]);
}

#[test]
fn everything_comes_back_after_memory_ran_out() {
    let machine = Machine::<Usual>::new().ram(0, 32 * MIB).cpus(4).boot();
    for size in [8, 40, 700, 5000, 32768] {
        let mut all = Vec::new();
        while let Ok(first) = machine.alloc_percpu((size, 4), Gfp::KERNEL) {
            all.push(first);
        }
        let stats = machine.percpu_stats();
        let room = 32 * MIB / 4 / 2;
        assert!(stats.used_bytes as u64 > room, "{size} bytes: {stats:?}");
        machine.validate_percpu().unwrap();
        all.into_iter()
            .for_each(|first| free(&machine, first, size));
        machine.check();
    }
    machine.finish();
}

/// A chunk that is kept for who comes next, and one that objects at hand keep, go when pages are short.
#[test]
fn a_request_for_pages_gets_chunks_without_objects() {
    let machine = Machine::<Usual>::new().ram(0, 32 * MIB).cpus(4).boot();
    let large = alloc(&machine, (32768, 4));
    let small = alloc(&machine, (8, 8));
    free(&machine, large, 32768);
    free(&machine, small, 8);
    assert_eq!(machine.percpu_stats().chunks, 2);
    let mut pages = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::KERNEL | Gfp::NOWARN, Order::ZERO) {
        pages.push(block);
    }
    assert_eq!(machine.percpu_stats().chunks, 0);
    drop(pages);
    machine.finish();
}
