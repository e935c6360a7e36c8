//! The early heap: what `alloc` builds on.

use crate::heap::{EARLY_HEAP_BYTES, usage};
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A type that must lie on a page boundary.
#[derive(Debug)]
#[repr(align(4096))]
struct PageAligned([u8; 4096]);

ktest! {
    fn blocks_keep_what_is_written_to_them() {
        let before = usage();
        let blocks: Vec<Box<[u64]>> = (0..64_u64)
            .map(|n| (0..n).map(|i| n ^ i.wrapping_mul(0x9e37_79b9)).collect())
            .collect();
        for (n, block) in (0..64_u64).zip(&blocks) {
            let intact = (0..n).zip(block.iter()).all(|(i, &word)| word == n ^ i.wrapping_mul(0x9e37_79b9));
            ktest_assert!(intact, "block {n} changed");
        }
        drop(blocks);
        ktest_eq!(usage(), before);
        Ok(())
    }

    fn growing_a_vector_keeps_its_elements() {
        let mut list = Vec::new();
        for n in 0..10_000_u32 {
            list.push(n);
        }
        ktest_assert!(list.iter().copied().eq(0..10_000));
        Ok(())
    }

    fn alignment_is_honoured() {
        let before = usage();
        let small = Box::new(1_u8);
        let page = Box::new(PageAligned([7; 4096]));
        ktest_eq!(core::ptr::from_ref(&*page).addr() % 4096, 0);
        ktest_assert!(page.0.iter().all(|&byte| byte == 7));
        drop((small, page));
        ktest_eq!(usage(), before);
        Ok(())
    }

    fn out_of_memory_is_an_error() {
        let before = usage();
        let mut list: Vec<u8> = Vec::new();
        ktest_assert!(list.try_reserve(EARLY_HEAP_BYTES.saturating_mul(2)).is_err());
        ktest_assert!(list.try_reserve(usize::MAX).is_err());
        ktest_eq!(usage(), before);
        // And the heap goes on working.
        ktest_assert!(list.try_reserve(100).is_ok());
        Ok(())
    }
}
