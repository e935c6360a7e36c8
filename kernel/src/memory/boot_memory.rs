//! What only the boot needed goes to the page allocator: the boot loader's page tables, those that it started with, and its
//! stack. The early heap is the heap's own affair.
//!
//! It is done when the boot is over: all CPUs run on the kernel's tables and on stacks of the kernel.
#![expect(unsafe_code, reason = "vouches for memory that nobody uses any more")]

use super::MEMORY;
use crate::arch::image;
use crate::boot_info;
use alloc::vec::Vec;
use boot::RangeKind;
use core::fmt;
use mm::addr::{PhysAddr, PhysRange, VirtAddr, VirtRange};
use mm::pagetable::ChangeError;
use mm::system::{FreeEarlyError, KernelSpace};
use spin::Once;

/// What is given back, with its name in the log.
const KINDS: [(RangeKind, &str); 3] = [
    (RangeKind::PageTables, "page tables"),
    (RangeKind::EarlyTables, "early page tables"),
    (RangeKind::BootStack, "stack"),
];

static GIVEN: Once<Vec<PhysRange>> = Once::new();

/// Why a range stays as it is.
enum Kept {
    /// A table in it is on the way to a page of the kernel's.
    Walked(VirtAddr),
    /// The image's mapping of it stays.
    Mapped(ChangeError),
    /// The page allocator does not take it.
    Refused(FreeEarlyError),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walked(at) => write!(f, "it is on the way to {at:?}"),
            Self::Mapped(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// What was given back.
pub(super) fn given() -> &'static [PhysRange] {
    GIVEN.get().map(Vec::as_slice).unwrap_or_default()
}

/// Gives back what only the boot needed, with a line in the log; once.
///
/// # Context
/// Task, all CPUs up: they forget what the image mapped there.
pub(crate) fn give_back() {
    let Some(space) = MEMORY.kernel_space() else {
        return;
    };
    let walked = walked(space);
    let mut given = Vec::new();
    let mut kib = [0_u64; KINDS.len()];
    for range in boot::reserved_ranges() {
        let mut kinds = KINDS.iter().zip(&mut kib);
        let bytes = PhysRange::new(PhysAddr::new(range.start), PhysAddr::new(range.end));
        let found = kinds.find(|((kind, _), _)| *kind == range.kind).zip(bytes);
        let Some((((_, name), kib), bytes)) = found else {
            continue;
        };
        match give(space, &walked, range.kind, bytes) {
            Ok(()) => {
                *kib = kib.saturating_add(bytes.size() >> 10);
                given.push(bytes);
            }
            Err(kept) => log::warn!("{bytes}, {name} of the boot, stays: {kept}"),
        }
    }
    let [tables, early, stack] = kib;
    if !given.is_empty() {
        log::info!(
            "Freeing boot memory: {tables}K page tables, {early}K early page tables, {stack}K stack"
        );
    }
    GIVEN.call_once(|| given);
}

fn give(
    space: &KernelSpace,
    walked: &[(PhysAddr, VirtAddr)],
    kind: RangeKind,
    bytes: PhysRange,
) -> Result<(), Kept> {
    if let Some(&(_, at)) = walked.iter().find(|(table, _)| bytes.contains(*table)) {
        return Err(Kept::Walked(at));
    }
    if kind != RangeKind::PageTables {
        hide(space, bytes).map_err(Kept::Mapped)?;
    }
    // SAFETY: (1) the boot loader made it for itself; the tables are not on any way (looked at above), and CPUs that
    // come do so on the kernel's; nobody is on the stack, since this is a thread; (2) it is RAM of the boot loader's map.
    unsafe { MEMORY.free_reserved_area(bytes) }.map_err(Kept::Refused)
}

/// The tables that translations go through, each with the first address of those that it was found by.
fn walked(space: &KernelSpace) -> Vec<(PhysAddr, VirtAddr)> {
    // Enough for most machines: growing would leave slabs of many sizes behind.
    let mut tables = Vec::with_capacity(256);
    let mut at = VirtAddr::new(0);
    while let Some(span) = MEMORY.next_span(&space.tables, at) {
        let start = span.range.start();
        let walk = MEMORY.walk(&space.tables, start);
        tables.extend(walk.steps().map(|step| (step.table.addr(), start)));
        // All that the same table maps is found by the same way.
        let step = span.first.size.level();
        let table_bytes = step.entry_bytes().saturating_mul(512);
        let Some(next) = start.align_down(table_bytes).checked_add(table_bytes) else {
            break;
        };
        at = next.max(span.range.end());
    }
    tables
}

/// Takes away the image's own mapping: the memory is somebody else's soon.
fn hide(space: &KernelSpace, bytes: PhysRange) -> Result<(), ChangeError> {
    let Some(info) = boot_info() else {
        return Ok(());
    };
    let at = VirtAddr::new(image::virtual_address(bytes.start(), info));
    let range = VirtRange::from_size(at, bytes.size()).unwrap_or_default();
    // SAFETY: nobody uses it there.
    unsafe { MEMORY.unmap_pages(&space.tables, range, |_, _| ()) }?.complete();
    Ok(())
}
