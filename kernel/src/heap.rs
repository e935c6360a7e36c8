//! The memory behind `alloc`: `kmalloc`, and a few pages of the image until memory is up.
//!
//! Those pages go to the page allocator once the kernel is up, but for those that a block from before is in.
//! Out of memory is a null pointer, which `try_reserve` turns into an error and `Vec::push` into an orderly panic.
//! Handlers of NMI, #DB and #MC have no memory: they take no locks.
#![expect(
    unsafe_code,
    reason = "vouches for where the pages lie that are given back"
)]

use crate::arch::image;
use crate::boot_info;
use crate::memory::Kernel;
use bootloader_api::BootInfo;
use mm::adapters::{EarlyHeapUsage, EarlyPages, KernelHeap};
use mm::addr::PhysRange;
use mm::system::FreeEarlyError;

/// Pages of the early heap: 2 MiB.
const EARLY_PAGES: usize = 512;

type Heap = KernelHeap<Kernel, EARLY_PAGES>;

static EARLY: EarlyPages<EARLY_PAGES> = EarlyPages::new();

#[global_allocator]
static HEAP: Heap = KernelHeap::new(Kernel, &EARLY);

/// How full the early heap is now.
#[must_use]
pub fn early_usage() -> EarlyHeapUsage {
    HEAP.early_usage()
}

/// Where the pages of the early heap lie.
pub(crate) fn early_pages(info: &BootInfo) -> PhysRange {
    let bytes = crate::num::to_u64(Heap::EARLY_BYTES);
    let first = image::physical_address(HEAP.early_pages().as_ptr(), info);
    PhysRange::from_size(first, bytes)
}

/// Gives the early heap's unused pages to the page allocator, and answers what is left.
///
/// # Errors
/// [`FreeEarlyError`].
///
/// # Context
/// Task, memory up.
pub(crate) fn give_back_early() -> Result<EarlyHeapUsage, FreeEarlyError> {
    let first = boot_info().map(early_pages).ok_or(FreeEarlyError::NotUp)?;
    // SAFETY: (1) the boot loader lays the image out in one piece; (2) `Firmware::read` has reserved all of it.
    unsafe { HEAP.give_back_early(first.start()) }
}

/// The same once the boot is over, with a line in the log: the records of these pages may have to be populated
/// first, and a boot does not take longer with more memory.
pub(crate) fn end_early() {
    match give_back_early() {
        Ok(left) => log::info!(
            "Freeing early heap memory: {}K, {}K stay",
            left.returned_bytes >> 10,
            left.size_bytes.saturating_sub(left.returned_bytes) >> 10
        ),
        Err(error) => log::warn!("early heap: {error}"),
    }
}
