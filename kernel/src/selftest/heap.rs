//! What `alloc` builds on.

use crate::heap::{early_usage, give_back_early};
use crate::ktest::Failure;
use crate::memory::{MEMORY, free_frames};
use crate::num::to_usize;
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

/// A type that must lie on a page boundary.
#[derive(Debug)]
#[repr(align(4096))]
struct PageAligned([u8; 4096]);

/// A type as large as what one page table reaches.
#[derive(Debug)]
#[repr(align(0x20_0000))]
struct Huge([u8; 0x20_0000]);

ktest! {
    fn blocks_keep_what_is_written_to_them() {
        let blocks: Vec<Box<[u64]>> = (0..64_u64)
            .map(|n| (0..n).map(|i| n ^ i.wrapping_mul(0x9e37_79b9)).collect())
            .collect();
        for (n, block) in (0..64_u64).zip(&blocks) {
            let intact = (0..n).zip(block.iter()).all(|(i, &word)| word == n ^ i.wrapping_mul(0x9e37_79b9));
            ktest_assert!(intact, "block {n} changed");
        }
        Ok(())
    }

    /// From the smallest class to a run of pages, where there is one.
    fn growing_a_vector_keeps_its_elements() {
        let before = free_frames();
        let mut list = Vec::new();
        let wanted: u32 = if MEMORY.managed_frames() > 1 << 14 { 2_000_000 } else { 10_000 };
        for n in 0..wanted {
            list.push(n);
        }
        ktest_assert!(list.iter().copied().eq(0..wanted));
        list.truncate(100);
        list.shrink_to_fit();
        ktest_assert!(list.iter().copied().eq(0..100));
        drop(list);
        ktest_eq!(free_frames(), before);
        Ok(())
    }

    fn what_is_allocated_now_comes_from_kmalloc() {
        let block = Box::new([1_u64; 8]);
        ktest_eq!(MEMORY.ksize(NonNull::from_ref(&*block).cast()), Some(64));
        let zeroes = alloc::vec![0_u8; 10_000];
        ktest_assert!(zeroes.iter().all(|&byte| byte == 0));
        let first = NonNull::from_ref(zeroes.as_slice()).cast();
        ktest_eq!(MEMORY.ksize(first), Some(16_384));
        Ok(())
    }

    fn alignment_is_honoured() {
        let before = free_frames();
        let small = Box::new(1_u8);
        let page = Box::new(PageAligned([7; 4096]));
        ktest_eq!(core::ptr::from_ref(&*page).addr() % 4096, 0);
        ktest_assert!(page.0.iter().all(|&byte| byte == 7));
        drop((small, page));
        let mut room: Vec<Huge> = Vec::new();
        if room.try_reserve_exact(1).is_ok() {
            ktest_assert!(room.as_ptr().is_aligned());
            ktest_assert!(room.first().is_none_or(|huge| huge.0.is_empty()));
        }
        drop(room);
        ktest_eq!(free_frames(), before);
        Ok(())
    }

    fn out_of_memory_is_an_error() {
        let before = free_frames();
        let mut list: Vec<u8> = Vec::new();
        let all = to_usize(MEMORY.managed_frames()).saturating_mul(4096);
        ktest_assert!(list.try_reserve(all).is_err());
        ktest_assert!(list.try_reserve(usize::MAX).is_err());
        ktest_eq!(free_frames(), before);
        // And the heap goes on working.
        ktest_assert!(list.try_reserve(100).is_ok());
        Ok(())
    }

    fn the_early_heap_is_given_back() {
        let left = give_back_early().map_err(Failure::new)?;
        ktest_eq!(left, early_usage());
        let kept = left.size_bytes.saturating_sub(left.returned_bytes);
        ktest_assert!(left.used_bytes > 0 && left.used_bytes <= kept);
        ktest_assert!(kept <= left.size_bytes / 8, "{kept} bytes stay");
        Ok(())
    }
}
