//! Page faults that tell of wrong uses: of the sampling guard pool, and of free pages (`debug_pagealloc=on`).
#![expect(
    unsafe_code,
    reason = "takes page faults; touches a free page, to be found"
)]

use super::{Kernel, MEMORY, Pages, kfence};
use crate::arch::probe;
use crate::arch::trap::{self, Handled, TrapFrame, vector};
use crate::ktest::Failure;
use crate::num::to_u64;
use crate::shell::{CommandError, CommandResult};
use crate::{kernel_param, ktest, ktest_assert, ktest_eq};
use mm::addr::{Order, Pfn, VirtAddr};
use mm::buddy::Gfp;
use mm::frame::FrameState;
use mm::pagetable::PageSize;
use mm::report::AccessKind;
use mm::system::Summary;
use x86_64::registers::control::Cr2;

kernel_param!(
    "debug_pagealloc",
    "0|1|off|on|n|y",
    "put free pages out of reach: who touches one has a page fault"
);

/// Bits of a page fault's error code (SDM vol. 3A, "Page-Fault Exceptions"): the page was there, and the access
/// was a write.
const WAS_PRESENT: u64 = 1 << 0;
const WAS_WRITE: u64 = 1 << 1;

/// Takes page faults, if anything is out of reach. Context: boot.
pub(super) fn watch(summary: &Summary) {
    kfence::log_pool(summary);
    if MEMORY.hides_free_pages() {
        log::info!(
            "debug_pagealloc: free pages are out of reach; the map of memory has 4 KiB pages"
        );
    }
    if MEMORY.hides_free_pages() || MEMORY.kfence_stats().is_ok() {
        // SAFETY: (1) it takes locks that are held with interrupts off, the guard pool's by trying; (2) the frame stays as
        // it is: the access is tried again, or ends the kernel.
        unsafe { trap::set_handler(vector::PAGE_FAULT, Some(page_fault)) };
    }
}

/// An access to the guard pool is told and tried again; one to a free page is told, and is a crash then, as others are.
fn page_fault(frame: &mut TrapFrame) -> Handled {
    if frame.error_code & WAS_PRESENT != 0 {
        return Handled::No;
    }
    let kind = match frame.error_code & WAS_WRITE {
        0 => AccessKind::Read,
        _ => AccessKind::Write,
    };
    let at = VirtAddr::new(Cr2::read_raw());
    if MEMORY.kfence_page_fault(at, kind) {
        return Handled::Yes;
    }
    let _ = MEMORY.free_page_fault(at, kind);
    Handled::No
}

/// `crash page`: reads a page that was given back.
pub(crate) fn use_after_free() -> CommandResult {
    let mut page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(CommandError::failed)?;
    let address = to_u64(page.bytes_mut().as_ptr().addr());
    drop(page);
    // SAFETY: RAM, which a read does nothing to; where free pages are out of reach, the crash is what this is for.
    unsafe { probe::touch(address) };
    match MEMORY.hides_free_pages() {
        true => Ok(()),
        false => Err(CommandError::failed(
            "free pages are within reach, so nothing happened: boot with `debug_pagealloc=on`",
        )),
    }
}

/// Whether a frame is within reach, by the tables.
fn is_reachable(pfn: Pfn) -> bool {
    let Some(space) = MEMORY.kernel_space() else {
        return true;
    };
    let start = space.layout.direct_map.start();
    let at = start.checked_add(pfn.addr().as_u64()).unwrap_or(start);
    MEMORY.walk(&space.tables, at).leaf().is_some()
}

fn is_free(pfn: Pfn) -> bool {
    let head = MEMORY.frames().and_then(|frames| frames.head(pfn));
    let state = head.and_then(|head| head.frame().word().state());
    matches!(state, Some(FrameState::Free | FrameState::Cached))
}

ktest! {
    fn free_pages_are_out_of_reach_where_the_command_line_says_so() {
        let space = MEMORY.kernel_space().ok_or("no tables")?;
        let hides = MEMORY.hides_free_pages();
        ktest_eq!(space.largest == PageSize::Size4K, hides);
        for order in [0, 3, 9].into_iter().filter_map(Order::new) {
            let mut block = Pages::alloc(Kernel, Gfp::KERNEL, order).map_err(Failure::new)?;
            block.bytes_mut().fill(0x5a);
            let (first, last) = (block.pfn(), block.pfn().saturating_add(order.frames().saturating_sub(1)));
            ktest_assert!(is_reachable(first) && is_reachable(last));
            // Others may have got them meanwhile.
            drop(block);
            let found = [first, last].map(|pfn| (is_free(pfn), is_reachable(pfn)));
            let is_wrong = |&(is_free, is_reachable): &(bool, bool)| is_free && is_reachable == hides;
            ktest_assert!(!found.iter().any(is_wrong), "{found:?}");
        }
        Ok(())
    }
}
