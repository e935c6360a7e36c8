//! O10: the lock order is watched, and a violation is reported.

use mm::buddy::Gfp;
use mm::platform::{LockClass, Platform};
use mm::sync::{SpinLock, rank};
use mm_tests::sim::{Checked, Machine, Trouble};

const MIB: u64 = 1 << 20;
const INNER: LockClass = LockClass {
    name: "inner",
    rank: 60,
};

#[test]
fn locks_in_order_are_no_trouble() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    let (zone, inner) = (SpinLock::new(rank::ZONE, 1), SpinLock::new(INNER, 2));
    let outer_guard = zone.lock(machine.hardware());
    assert_eq!(*outer_guard + *inner.lock(machine.hardware()), 3);
    drop(outer_guard);
    drop(
        machine
            .alloc_block(Gfp::KERNEL, mm::addr::Order::MAX)
            .unwrap(),
    );
    machine.finish();
}

#[test]
fn a_seeded_inversion_is_reported() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    let (zone, inner) = (SpinLock::new(rank::ZONE, ()), SpinLock::new(INNER, ()));
    let guard = inner.lock(machine.hardware());
    drop(zone.lock(machine.hardware()));
    drop(guard);
    let inversion = Trouble::Inversion {
        held: "inner",
        taken: "zone",
    };
    assert_eq!(machine.hardware().take_troubles(), [inversion]);
    machine.finish();
}

#[test]
fn two_locks_of_a_rank_are_never_held_together() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    let (one, other) = (SpinLock::new(INNER, ()), SpinLock::new(INNER, ()));
    let guard = one.lock(machine.hardware());
    drop(other.lock(machine.hardware()));
    drop(guard);
    let troubles = machine.hardware().take_troubles();
    let inversion = Trouble::Inversion {
        held: "inner",
        taken: "inner",
    };
    assert_eq!(
        troubles,
        [inversion, Trouble::Cycle(vec!["inner", "inner"])]
    );
    machine.abandon();
}

#[test]
fn a_circle_over_three_locks_is_found_even_if_nobody_ever_waits() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    let class = |name| LockClass { name, rank: 70 };
    let names = ["a", "b", "c"];
    let locks = names.map(|name| SpinLock::new(class(name), ()));
    for first in 0..3 {
        let guard = locks[first].lock(machine.hardware());
        drop(locks[(first + 1) % 3].lock(machine.hardware()));
        drop(guard);
    }
    let troubles = machine.hardware().take_troubles();
    let cycle = Trouble::Cycle(vec!["a", "b", "c", "a"]);
    assert!(troubles.contains(&cycle), "{troubles:?}");
    machine.abandon();
}

#[test]
fn a_lock_left_taken_and_interrupts_left_masked_are_found() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    let lock = SpinLock::new(INNER, ());
    core::mem::forget(lock.lock(machine.hardware()));
    let held = Trouble::LockHeld {
        cpu: 0,
        lock: "inner",
    };
    let masked = Trouble::IrqsMasked { cpu: 0, depth: 1 };
    assert_eq!(machine.hardware().take_troubles(), [masked, held]);
    machine.abandon();

    let machine = Machine::<Checked>::with_ram(16 * MIB);
    let outer = machine.hardware().irq_save();
    let inner = machine.hardware().irq_save();
    machine.hardware().irq_restore(outer);
    let _ = inner;
    let unbalanced = Trouble::IrqsUnbalanced { cpu: 0 };
    assert_eq!(machine.hardware().take_troubles()[0], unbalanced);
    machine.abandon();
}

#[test]
fn a_lock_that_is_taken_is_refused_and_interrupts_are_back() {
    let machine = Machine::<Checked>::new().ram(0, 16 * MIB).cpus(2).boot();
    let lock = SpinLock::new(INNER, 5);
    let guard = lock.lock(machine.hardware());
    std::thread::scope(|scope| {
        let (lock, machine) = (&lock, &machine);
        scope.spawn(move || {
            let here = machine.cpu(1);
            assert!(lock.try_lock(machine.hardware()).is_none());
            assert_eq!(machine.hardware().current_cpu(), here.id());
        });
    });
    drop(guard);
    assert_eq!(
        lock.try_lock(machine.hardware()).map(|guard| *guard),
        Some(5)
    );
    machine.finish();
}

#[test]
#[should_panic(expected = "another thread runs on CPU 0")]
fn two_threads_cannot_be_on_one_cpu() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    // This thread runs on CPU 0 since it booted the machine.
    let _here = machine.hardware().cpu(0);
}
