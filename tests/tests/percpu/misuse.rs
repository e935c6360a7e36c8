//! What is given back wrongly is refused, and nothing changes.

use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::system::BadPerCpuFree;
use mm_tests::for_four_configs;
use mm_tests::sim::{Checked, Machine, SimConfig, Usual};

use super::{MIB, alloc, free};

for_four_configs! { what_is_no_object_is_refused }

fn refused<C: SimConfig>(machine: &Machine<C>, first: NonNull<u8>, size: usize) -> BadPerCpuFree {
    let before = machine.percpu_stats();
    // SAFETY: it is refused (the caller sees to that), so nothing is given back.
    let error = unsafe { machine.free_percpu(first, size) }.unwrap_err();
    assert_eq!(machine.percpu_stats(), before);
    machine.validate_percpu().unwrap();
    assert!(!error.to_string().is_empty());
    error
}

fn what_is_no_object_is_refused<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(2).boot();
    let first = alloc(&machine, (100, 8));
    let other = alloc(&machine, (100, 8));
    let at = |offset: usize| first.map_addr(|addr| addr.saturating_add(offset));
    assert_eq!(refused(&machine, first, 96), BadPerCpuFree::OtherSize(100));
    assert_eq!(refused(&machine, first, 104), BadPerCpuFree::OtherSize(100));
    assert_eq!(
        refused(&machine, first, usize::MAX),
        BadPerCpuFree::NoObject
    );
    for (inside, size) in [(4, 96), (1, 99), (96, 100)] {
        assert_eq!(refused(&machine, at(inside), size), BadPerCpuFree::NoObject);
    }
    // CPU 1's copy, and memory of a chunk that no object has.
    for outside in [32768, 32768 - 104, 2 * 32768 - 4] {
        assert_eq!(refused(&machine, at(outside), 100), BadPerCpuFree::NoObject);
    }
    free(&machine, first, 100);
    assert_eq!(refused(&machine, first, 100), BadPerCpuFree::NoObject);
    // Other people's memory.
    let object = machine.kmalloc(100, Gfp::KERNEL).unwrap();
    assert!(matches!(
        refused(&machine, object, 100),
        BadPerCpuFree::NotPerCpu | BadPerCpuFree::NoObject
    ));
    // SAFETY: allocated above.
    unsafe { machine.kfree(object) }.unwrap();
    let mut foreign = [0_u64; 20];
    let foreign = NonNull::from(&mut foreign).cast();
    assert_eq!(refused(&machine, foreign, 100), BadPerCpuFree::NotPerCpu);
    free(&machine, other, 100);
    machine.finish();
}

/// The hardened profile finds what is at hand of the CPU already, the debug profile the rest.
#[test]
fn small_objects_are_not_given_back_twice() {
    fn twice<C: SimConfig>() {
        let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(2).boot();
        for size in [4, 8, 16, 32, 64] {
            let first = alloc(&machine, (size, 4));
            free(&machine, first, size);
            assert_eq!(refused(&machine, first, size), BadPerCpuFree::NoObject);
        }
        machine.finish();
    }
    twice::<Usual>();
    twice::<Checked>();
}

#[test]
fn the_debug_profile_looks_at_small_objects_closely() {
    let machine = Machine::<Checked>::new().ram(0, 64 * MIB).cpus(2).boot();
    let first = alloc(&machine, (64, 8));
    let at = |offset: usize| first.map_addr(|addr| addr.saturating_add(offset));
    assert_eq!(refused(&machine, first, 32), BadPerCpuFree::OtherSize(64));
    assert_eq!(refused(&machine, at(32), 32), BadPerCpuFree::NoObject);
    assert_eq!(refused(&machine, at(32768), 64), BadPerCpuFree::NoObject);
    free(&machine, first, 64);
    machine.shrink_percpu();
    assert_eq!(refused(&machine, first, 64), BadPerCpuFree::NotPerCpu);
    machine.finish();
}
