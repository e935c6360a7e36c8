//! Memory of which each CPU has a copy, on a simulated machine.

mod basics;
mod concurrency;
mod failing;
mod misuse;
mod model;
mod near;
mod scattered;
mod typed;

use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::platform::CpuId;
use mm_tests::sim::{Machine, SimConfig};

const MIB: u64 = 1 << 20;

/// Bytes of an object's copy for a CPU.
fn copy<C: SimConfig>(
    machine: &Machine<C>,
    first: NonNull<u8>,
    cpu: u32,
    size: usize,
) -> &'static mut [u8] {
    let offset = machine.percpu_offset(CpuId(cpu)).unwrap();
    // SAFETY: the tests ask for objects that they own, as large as that, one copy at a time.
    unsafe { std::slice::from_raw_parts_mut(first.add(offset).as_ptr(), size) }
}

/// Whether every copy holds zeroes; then fills each with a byte of its own.
fn dirty<C: SimConfig>(machine: &Machine<C>, first: NonNull<u8>, size: usize, stamp: u8) {
    for cpu in 0..machine.percpu_stats().cpus as u32 {
        let bytes = copy(machine, first, cpu, size);
        assert!(bytes.iter().all(|byte| *byte == 0), "CPU {cpu}'s copy");
        bytes.fill(stamp.wrapping_add(cpu as u8));
    }
}

/// Whether nobody else wrote to a copy since.
fn is_dirty<C: SimConfig>(machine: &Machine<C>, first: NonNull<u8>, size: usize, stamp: u8) {
    for cpu in 0..machine.percpu_stats().cpus as u32 {
        let stamp = stamp.wrapping_add(cpu as u8);
        let bytes = copy(machine, first, cpu, size);
        assert!(bytes.iter().all(|byte| *byte == stamp), "CPU {cpu}'s copy");
    }
}

fn alloc<C: SimConfig>(machine: &Machine<C>, layout: (usize, usize)) -> NonNull<u8> {
    machine.alloc_percpu(layout, Gfp::KERNEL).unwrap()
}

fn free<C: SimConfig>(machine: &Machine<C>, first: NonNull<u8>, size: usize) {
    // SAFETY: of an object that the test owns and forgets.
    unsafe { machine.free_percpu(first, size) }.unwrap();
}
