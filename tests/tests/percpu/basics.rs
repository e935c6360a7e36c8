//! Copies, chunks, and what comes back.

use mm::buddy::Gfp;
use mm::platform::CpuId;
use mm::system::PerCpuError;
use mm_tests::for_four_configs;
use mm_tests::sim::{Checked, Machine, Plain, SimConfig, Sparse, Usual};

use super::{MIB, alloc, dirty, free, is_dirty};

for_four_configs! {
    copies_are_zeroed_each_time_and_nobody_elses,
    chunks_without_objects_go_back_but_for_one,
    bad_requests_change_nothing,
}

fn machine<C: SimConfig>(cpus: u32) -> Machine<C> {
    Machine::<C>::new().ram(0, 64 * MIB).cpus(cpus).boot()
}

fn copies_are_zeroed_each_time_and_nobody_elses<C: SimConfig>() {
    for cpus in [1, 2, 3, 8] {
        let machine = machine::<C>(cpus);
        for _ in 0..3 {
            let sizes = [1, 2, 3, 4, 8, 12, 16, 24, 32, 64, 65, 100, 4096, 32768];
            let objects = sizes.map(|size| {
                let first = alloc(&machine, (size, 4));
                dirty(&machine, first, size, size as u8);
                (first, size)
            });
            machine.validate_percpu().unwrap();
            for (first, size) in objects {
                is_dirty(&machine, first, size, size as u8);
                free(&machine, first, size);
            }
        }
        let stats = machine.percpu_stats();
        assert_eq!((stats.cpus, stats.objects), (cpus as usize, stats.at_hand));
        machine.check();
        machine.finish();
    }
}

fn chunks_without_objects_go_back_but_for_one<C: SimConfig>() {
    let machine = machine::<C>(4);
    let objects: Vec<_> = (0..5).map(|_| alloc(&machine, (32768, 4096))).collect();
    let stats = machine.percpu_stats();
    assert_eq!((stats.chunks, stats.empty, stats.free_bytes), (5, 0, 0));
    assert_eq!((stats.objects, stats.used_bytes), (5, 5 * 32768));
    for first in objects {
        assert_eq!(first.addr().get() % 4096, 0);
        free(&machine, first, 32768);
    }
    let stats = machine.percpu_stats();
    assert_eq!((stats.chunks, stats.empty, stats.objects), (1, 1, 0));
    // What a CPU has at hand keeps a chunk.
    free(&machine, alloc(&machine, (8, 8)), 8);
    let stats = machine.percpu_stats();
    assert_eq!((stats.chunks, stats.empty, stats.at_hand), (1, 0, 1));
    assert_eq!(machine.shrink_percpu(), 1);
    assert_eq!(machine.percpu_stats().chunks, 0);
    assert_eq!(machine.shrink_percpu(), 0);
    machine.finish();
}

fn bad_requests_change_nothing<C: SimConfig>() {
    let machine = machine::<C>(2);
    let kept = alloc(&machine, (40, 8));
    let before = machine.percpu_stats();
    let most = PerCpuError::TooLarge { most: 32768 };
    for (layout, error) in [
        ((0, 8), PerCpuError::ZeroSize),
        ((32769, 8), most),
        ((usize::MAX, 8), most),
        ((8, 0), PerCpuError::BadAlign(0)),
        ((8, 3), PerCpuError::BadAlign(3)),
        ((8, 6), PerCpuError::BadAlign(6)),
        ((24, 8192), PerCpuError::BadAlign(8192)),
        ((24, 1 << 63), PerCpuError::BadAlign(1 << 63)),
    ] {
        assert_eq!(machine.alloc_percpu(layout, Gfp::KERNEL), Err(error));
        assert!(!error.to_string().is_empty());
    }
    // More pages are needed, and the flags are none.
    let flags = Gfp::KERNEL | Gfp::DMA | Gfp::DMA32;
    let refused = machine.alloc_percpu((32768, 8), flags);
    assert!(matches!(refused, Err(PerCpuError::Flags(_))), "{refused:?}");
    assert_eq!(machine.percpu_stats(), before);
    free(&machine, kept, 40);
    machine.finish();
}

#[test]
fn every_chunk_has_the_same_offsets() {
    let machine = machine::<Usual>(8);
    let offsets: Vec<_> = (0..9)
        .map(|cpu| machine.percpu_offset(CpuId(cpu)))
        .collect();
    let expected: Vec<_> = (0..8).map(|cpu| Some(cpu * 32768)).chain([None]).collect();
    assert_eq!(offsets, expected);
    machine.finish();
}

#[test]
fn many_cpus_share_a_block_of_the_largest_order() {
    let machine = machine::<Usual>(130);
    let most = 28 << 10;
    let refused = machine.alloc_percpu((most + 1, 8), Gfp::KERNEL);
    assert_eq!(refused, Err(PerCpuError::TooLarge { most }));
    let first = alloc(&machine, (most, 8));
    dirty(&machine, first, most, 1);
    free(&machine, first, most);
    machine.finish();
}

#[test]
fn there_is_nothing_before_memory_is_up() {
    let machine = mm::system::Memory::new(mm_tests::window::Window::none());
    let refused = machine.alloc_percpu((8, 8), Gfp::KERNEL);
    assert_eq!(refused, Err(PerCpuError::NotUp));
    assert_eq!(machine.percpu_offset(CpuId(0)), None);
    assert_eq!(
        (machine.percpu_stats().chunks, machine.shrink_percpu()),
        (0, 0)
    );
}

/// The lowest room that fits is taken.
#[test]
fn holes_are_filled_lowest_first() {
    let machine = machine::<Usual>(2);
    let all: Vec<_> = (0..20).map(|_| alloc(&machine, (40, 4))).collect();
    assert!(
        all.windows(2)
            .all(|pair| pair[0].addr().get() + 40 == pair[1].addr().get())
    );
    for number in [15, 3, 7] {
        free(&machine, all[number], 40);
    }
    // The hole of 40 bytes is not aligned for this one, …
    let aligned = alloc(&machine, (40, 1024));
    assert!(aligned > all[19]);
    // … and these fill the holes from below.
    let again = [3, 7, 15].map(|number| assert_eq!(alloc(&machine, (40, 4)), all[number]));
    assert_eq!(again.len(), 3);
    machine.validate_percpu().unwrap();
    free(&machine, aligned, 40);
    for first in all {
        free(&machine, first, 40);
    }
    machine.finish();
}

/// What was given back is handed out again without a lock; the debug profile counts locks, and takes one to look
/// at what comes back.
#[test]
fn small_objects_at_hand_need_no_lock() {
    let machine = machine::<Checked>(2);
    for size in [4, 8, 16, 32, 64] {
        let first = alloc(&machine, (size, 4));
        free(&machine, first, size);
        let before = machine.hardware().taken_locks();
        assert_eq!(alloc(&machine, (size, size)), first);
        assert_eq!(machine.hardware().taken_locks(), before, "{size} bytes");
        free(&machine, first, size);
        // A larger alignment is not there for the taking.
        let other = alloc(&machine, (size, 128));
        assert_eq!(other.addr().get() % 128, 0);
        assert!(machine.hardware().taken_locks() > before);
        free(&machine, other, size);
    }
    machine.finish();
}

/// There is room for 16 of a size; the 17th goes back to its chunk.
#[test]
fn what_a_cpu_has_at_hand_has_a_limit() {
    let machine = machine::<(Plain, Sparse)>(2);
    let all: Vec<_> = (0..40).map(|_| alloc(&machine, (8, 8))).collect();
    for first in all {
        free(&machine, first, 8);
    }
    let stats = machine.percpu_stats();
    assert_eq!((stats.at_hand, stats.objects), (16, 16));
    machine.finish();
}
