//! Kernel stacks: areas of kernel addresses, so that a page which is not mapped lies below each.
//!
//! Linux counterpart: `CONFIG_VMAP_STACK`. Each CPU keeps a few stacks of ended threads for new ones (Linux:
//! `cached_stacks`): these stay mapped, so that a thread which begins after another one has ended costs no page, no page
//! table, and no flush of all CPUs.

use super::Kernel;
use crate::arch::local;
use crate::arch::lock::IrqLock;
use crate::arch::smp::MAX_CPUS;
use crate::arch::stack::{GUARD_BYTES, StackExtent};
use crate::num::{to_u64, to_usize};
use mm::adapters::Vmalloc;
use mm::buddy::Gfp;
use mm::system::VmallocError;

/// Bytes of a thread's stack (Linux: `THREAD_SIZE`, which is twice as much, too, where code is larger than usual).
pub(crate) const THREAD_BYTES: u64 = if cfg!(debug_assertions) {
    32 << 10
} else {
    16 << 10
};

/// Stacks that a CPU keeps (Linux: `NR_CACHED_STACKS`).
const KEPT: usize = 2;

/// Stacks of [`THREAD_BYTES`] that nobody runs on, by CPU.
static AT_HAND: [IrqLock<[Option<Stack>; KEPT]>; MAX_CPUS] =
    [const { IrqLock::new([const { None }; KEPT]) }; MAX_CPUS];

/// Those of the CPU that the caller runs on, or did just now: any will do.
fn at_hand() -> Option<&'static IrqLock<[Option<Stack>; KEPT]>> {
    AT_HAND.get(to_usize(u64::from(local::current_id())))
}

/// A mapped stack, with the pages under it. Dropping it gives both back, if nobody runs on it any more.
#[derive(Debug)]
pub(crate) struct Stack(Vmalloc<Kernel>);

impl Stack {
    /// A stack of `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing is kept.
    ///
    /// # Context
    /// Task, memory up.
    pub(crate) fn new(bytes: u64) -> Result<Self, VmallocError> {
        if bytes == THREAD_BYTES
            && let Some(kept) =
                at_hand().and_then(|kept| kept.lock().iter_mut().find_map(Option::take))
        {
            return Ok(kept);
        }
        let pages = bytes.next_multiple_of(4096);
        Vmalloc::alloc(Kernel, to_usize(pages), Gfp::KERNEL).map(Self)
    }

    /// Where it lies. What is below an area is the page behind another one, which is not mapped.
    pub(crate) fn extent(&self) -> StackExtent {
        let bottom = to_u64(self.0.as_non_null().addr().get());
        StackExtent {
            guard: bottom.saturating_sub(to_u64(GUARD_BYTES)),
            bottom,
            top: bottom.saturating_add(to_u64(self.0.size())),
        }
    }
}

/// Makes a stack of `bytes`, rounded up to whole pages, for good.
///
/// # Errors
/// [`VmallocError`].
///
/// # Context
/// Task, memory up.
pub(crate) fn allocate(bytes: u64) -> Result<StackExtent, VmallocError> {
    let stack = Stack::new(bytes)?;
    let extent = stack.extent();
    core::mem::forget(stack);
    Ok(extent)
}

/// Takes stacks back that nobody runs on any more: this CPU keeps a few for new threads.
///
/// # Context
/// Task. Takes no memory.
pub(crate) fn free(stacks: impl IntoIterator<Item = Stack>) {
    for stack in stacks {
        let is_usual = to_u64(stack.0.size()) == THREAD_BYTES;
        let Some(kept) = at_hand().filter(|_| is_usual) else {
            continue;
        };
        // What does not fit is dropped when the lock is not held any more.
        let _full = put(&mut kept.lock(), stack);
    }
}

/// Puts a stack where there is room. Answers it if there is none.
fn put(kept: &mut [Option<Stack>; KEPT], stack: Stack) -> Option<Stack> {
    match kept.iter_mut().find(|place| place.is_none()) {
        Some(place) => place.replace(stack),
        None => Some(stack),
    }
}

/// Gives up all stacks that CPUs keep.
pub(crate) fn drain() {
    for kept in &AT_HAND {
        let gone = core::mem::replace(&mut *kept.lock(), [const { None }; KEPT]);
        drop(gone);
    }
}
