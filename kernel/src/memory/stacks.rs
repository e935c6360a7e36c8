//! Kernel stacks: pages mapped in a range of their own, each stack above a page that is not.
//!
//! Linux counterpart: `vmalloc`ed stacks (`CONFIG_VMAP_STACK`). The range lies between the map of
//! physical memory and vmalloc's. A stack that is given back is unmapped, forgotten by all CPUs, and
//! only then its pages are free and its addresses may be used again.
#![expect(unsafe_code, reason = "maps the stacks that threads run on")]

use super::{Kernel, KernelPlatform, MEMORY, Pages};
use crate::arch::lock::IrqLock;
use crate::arch::stack::{GUARD_BYTES, StackExtent};
use crate::num::{to_u64, to_usize};
use alloc::vec::Vec;
use core::fmt;
use mm::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::pagetable::{Attributes, FlushReceipt, MapError};
use mm::system::{AllocError, Memory};

/// Where the first stack's guard page lies, and where the range ends.
const START: u64 = 0xffff_c880_0000_0000;
const END: u64 = 0xffff_c900_0000_0000;

/// Stacks that are given back with one flush of all CPUs.
const AT_ONCE: usize = 16;

/// What of the range is in use.
static RANGE: IrqLock<Range> = IrqLock::new(Range {
    next: START,
    free: Vec::new(),
});

/// The range's addresses.
struct Range {
    /// Where the next stack's guard page goes, …
    next: u64,
    /// … unless one of these, which were used before, is of the right size.
    free: Vec<StackExtent>,
}

impl Range {
    /// Addresses for a stack of `bytes`, which are whole pages.
    fn take(&mut self, bytes: u64) -> Option<StackExtent> {
        let fits = |free: &StackExtent| free.top.saturating_sub(free.bottom) == bytes;
        if let Some(index) = self.free.iter().position(fits) {
            return Some(self.free.swap_remove(index));
        }
        let guard = self.next;
        let bottom = guard.saturating_add(to_u64(GUARD_BYTES));
        let top = bottom.checked_add(bytes).filter(|&top| top <= END)?;
        self.next = top;
        Some(StackExtent { guard, bottom, top })
    }

    /// Keeps addresses for the next stack. Without room for the note they are never used again.
    fn put(&mut self, extent: StackExtent) {
        if self.free.try_reserve(1).is_ok() {
            self.free.push(extent);
        }
    }
}

/// Why there is no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StackError {
    /// No pages.
    OutOfMemory(AllocError),
    /// No pages for page tables.
    OutOfTables,
    /// No addresses, or something else is mapped there.
    NoRoom,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(error) => error.fmt(f),
            Self::OutOfTables => f.write_str("no memory for page tables"),
            Self::NoRoom => f.write_str("no addresses left for stacks"),
        }
    }
}

/// A mapped stack, with the pages under it.
///
/// To be given back by [`free`]: a stack that is dropped keeps its pages and its addresses.
#[derive(Debug)]
#[must_use = "a stack is given back by `free`"]
pub(crate) struct Stack {
    extent: StackExtent,
    pages: Vec<Pages>,
}

impl Stack {
    /// Makes a stack of `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// [`StackError`]; nothing is kept.
    ///
    /// # Context
    /// Task, memory up.
    pub(crate) fn new(bytes: u64) -> Result<Self, StackError> {
        let bytes = bytes.checked_next_multiple_of(PAGE_SIZE);
        let bytes = bytes.ok_or(StackError::NoRoom)?;
        let count = usize::try_from(bytes.wrapping_div(PAGE_SIZE)).unwrap_or(usize::MAX);
        let mut pages = Vec::new();
        pages
            .try_reserve_exact(count)
            .map_err(|_| StackError::OutOfMemory(AllocError::OutOfMemory))?;
        for _ in 0..count {
            let page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO);
            pages.push(page.map_err(StackError::OutOfMemory)?);
        }

        let extent = RANGE.lock().take(bytes);
        let extent = extent.ok_or(StackError::NoRoom)?;
        let outcome = map(extent, &pages);
        let stack = Self { extent, pages };
        match outcome {
            Ok(()) => Ok(stack),
            Err(error) => {
                free([stack]);
                Err(error)
            }
        }
    }

    /// Where it lies.
    pub(crate) const fn extent(&self) -> StackExtent {
        self.extent
    }
}

/// Makes a stack of `bytes`, rounded up to whole pages, for good.
///
/// # Errors
/// [`StackError`].
///
/// # Context
/// Task, memory up.
pub(crate) fn allocate(bytes: u64) -> Result<StackExtent, StackError> {
    let stack = Stack::new(bytes)?;
    for page in stack.pages {
        let _pfn = page.into_raw();
    }
    Ok(stack.extent)
}

/// Gives stacks back that nobody runs on any more, their pages and their addresses.
///
/// # Context
/// Task, holding no lock: all CPUs flush, once for [`AT_ONCE`] of the stacks. Takes no memory.
pub(crate) fn free(stacks: impl IntoIterator<Item = Stack>) {
    let mut stacks = stacks.into_iter();
    loop {
        let mut some: [Option<Stack>; AT_ONCE] = [const { None }; AT_ONCE];
        for (place, stack) in some.iter_mut().zip(&mut stacks) {
            *place = Some(stack);
        }
        if some.first().is_none_or(Option::is_none) {
            return;
        }
        free_some(some);
    }
}

fn free_some(stacks: [Option<Stack>; AT_ONCE]) {
    let extents = || stacks.iter().flatten().map(Stack::extent);
    // One flush for all of them.
    let mut receipts = extents().filter_map(unmap);
    if let Some(first) = receipts.next() {
        receipts.fold(first, FlushReceipt::merge).complete();
    }
    // Nobody has a way to the pages any more.
    for stack in stacks.into_iter().flatten() {
        drop(stack.pages);
        RANGE.lock().put(stack.extent);
    }
}

/// The addresses of a stack.
fn range_of(extent: StackExtent) -> VirtRange {
    let [bottom, top] = [extent.bottom, extent.top].map(VirtAddr::new);
    VirtRange::new(bottom, top).unwrap_or_default()
}

/// Maps the pages of a stack.
fn map(extent: StackExtent, pages: &[Pages]) -> Result<(), StackError> {
    let space = MEMORY.kernel_space().ok_or(StackError::NoRoom)?;
    let frame_of = |index: u64| pages.get(to_usize(index)).map_or(Pfn::ZERO, Pages::pfn);
    // SAFETY: the addresses are this stack's alone; the pages are too, and nobody touches them but through the stack.
    let mapped = unsafe {
        MEMORY.map_each_page(
            &space.tables,
            range_of(extent),
            frame_of,
            Attributes::KERNEL,
        )
    };
    mapped.map_err(|error| match error {
        MapError::OutOfTables => StackError::OutOfTables,
        _ => StackError::NoRoom,
    })
}

/// Unmaps a stack; one that could not be mapped has nothing to unmap.
fn unmap(extent: StackExtent) -> Option<FlushReceipt<'static, Memory<KernelPlatform>>> {
    let space = MEMORY.kernel_space()?;
    // SAFETY: nobody runs on the stack any more.
    unsafe { MEMORY.unmap_pages(&space.tables, range_of(extent), |_, _| ()) }.ok()
}
