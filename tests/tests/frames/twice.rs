//! Two CPUs that free one block by its number. That is undefined behaviour by the contract of the raw
//! functions; what is tested is how much of it is found out.

use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::FreeError;
use mm_tests::sim::{Checked, Listed, Machine, Plain, SimConfig, Usual, Vmemmap};
use mm_tests::threads::join;

const MIB: u64 = 1 << 20;

fn orders() -> [Order; 3] {
    [0, 3, 5].map(|order| Order::new(order).unwrap())
}

fn free<C: SimConfig>(machine: &Machine<C>, pfn: Pfn, order: Order) -> Result<(), FreeError> {
    // SAFETY: deliberately none for one of two calls: the library must say so.
    unsafe { machine.free_pages(pfn, order) }
}

/// At each point at which a free calls its platform, the same block is freed once more.
fn in_the_midst_of_a_free<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 32 * MIB).boot();
    for order in orders() {
        let mut points = 0;
        loop {
            let pfn = machine.alloc_pages(Gfp::KERNEL, order).unwrap();
            let (passed, second) = (Cell::new(0), Cell::new(None));
            let mut first = None;
            let again = || {
                if passed.get() == points {
                    // SAFETY: deliberately none, as above.
                    let freed = unsafe { machine.free_pages_nolock(pfn, order) };
                    second.set(Some(freed));
                }
                passed.set(passed.get() + 1);
            };
            let hardware = machine.hardware();
            hardware.with_nmis(again, || first = Some(free(&machine, pfn, order)));
            let Some(second) = second.get() else {
                break;
            };
            let outcome = [first.unwrap(), second];
            assert!(
                outcome == [Ok(()), Err(FreeError::AlreadyFree)]
                    || outcome == [Err(FreeError::AlreadyFree), Ok(())],
                "order {order:?}, point {points}: {outcome:?}"
            );
            points += 1;
        }
        assert!(points > 0, "no point at which anything can come between");
        machine.check();
    }
    machine.finish();
}

#[test]
fn a_block_that_is_being_freed_is_not_freed_again_with_all_checks_on() {
    in_the_midst_of_a_free::<Checked>();
    in_the_midst_of_a_free::<Listed<Checked>>();
}

/// Two threads free each block at once.
fn at_once<C: SimConfig>(rounds: u32) {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(3).boot();
    for order in orders() {
        let (block, meet) = (AtomicU64::new(0), Barrier::new(3));
        let (freed, refused) = (AtomicU32::new(0), AtomicU32::new(0));
        let both = |cpu| {
            let _here = machine.cpu(cpu);
            for _ in 0..rounds {
                meet.wait();
                let pfn = Pfn::new(block.load(Ordering::Acquire));
                match free(&machine, pfn, order) {
                    Ok(()) => freed.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        assert_eq!(error, FreeError::AlreadyFree);
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                };
                meet.wait();
            }
        };
        thread::scope(|scope| {
            let both = &both;
            let threads = [1, 2].map(|cpu| scope.spawn(move || both(cpu)));
            for round in 1..=rounds {
                let pfn = machine.alloc_pages(Gfp::KERNEL, order).unwrap();
                block.store(pfn.as_u64(), Ordering::Release);
                meet.wait();
                meet.wait();
                let counts = [&freed, &refused].map(|count| count.load(Ordering::Relaxed));
                assert_eq!(counts, [round; 2], "order {order:?}");
            }
            join(threads);
        });
        machine.check();
    }
    machine.finish();
}

#[test]
fn of_two_cpus_that_free_a_block_at_once_one_does_with_all_checks_on() {
    at_once::<Checked>(400);
    at_once::<Listed<Checked>>(400);
}

/// The second free begins after the first has ended.
fn one_after_the_other<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 32 * MIB).cpus(2).boot();
    for order in orders() {
        let pfn = machine.alloc_pages(Gfp::KERNEL, order).unwrap();
        let other = machine.cpu(1);
        free(&machine, pfn, order).unwrap();
        drop(other);
        let again = free(&machine, pfn, order);
        assert_eq!(again, Err(FreeError::AlreadyFree));
        machine.check();
    }
    machine.finish();
}

#[test]
fn a_block_that_another_cpu_has_freed_is_not_freed_again_in_any_profile() {
    one_after_the_other::<(Plain, Vmemmap)>();
    one_after_the_other::<Listed<(Plain, Vmemmap)>>();
    one_after_the_other::<Usual>();
    one_after_the_other::<Listed<Usual>>();
    one_after_the_other::<Checked>();
    one_after_the_other::<Listed<Checked>>();
}
