//! The smallest machine: one window of RAM, one CPU, nothing else.
//!
//! For tests of what only needs bytes behind addresses. The simulated machine is for the rest.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::mem::RamClaim;
use mm::memblock::Memblock;
use mm::platform::{CpuId, IrqState, Platform};
use mm::report::Corruption;

const PAGE: usize = 4096;

#[repr(align(4096))]
struct Page(
    #[expect(dead_code, reason = "reached through the direct map's pointers only")]
    UnsafeCell<[u8; PAGE]>,
);

/// RAM at `range`, filled with [`Window::DIRT`]; nothing anywhere else.
pub struct Window {
    range: PhysRange,
    pages: Box<[Page]>,
}

// SAFETY: all access goes through the pointers that `direct_map` gives, whose users are kept
// apart by memblock's tokens.
unsafe impl Sync for Window {}

impl core::fmt::Debug for Window {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Window")
            .field("range", &self.range)
            .finish()
    }
}

impl Window {
    /// What untouched RAM holds.
    pub const DIRT: u8 = 0x5a;

    /// A window of `pages` pages from `base`.
    #[must_use]
    pub fn new(base: u64, pages: usize) -> Self {
        let dirty = || Page(UnsafeCell::new([Self::DIRT; PAGE]));
        Self {
            range: PhysRange::from_size(PhysAddr::new(base), (pages * PAGE) as u64),
            pages: (0..pages).map(|_| dirty()).collect(),
        }
    }

    /// No RAM at all: for what is only computed.
    #[must_use]
    pub fn none() -> Self {
        Self::new(0, 0)
    }

    /// The RAM.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// An empty memblock over this window.
    ///
    /// One at a time: tests make a window for each. Memory outside the window may be added, but
    /// is never reached, since [`direct_map`](Platform::direct_map) does not know it.
    #[must_use]
    pub fn memblock(&mut self) -> Memblock {
        // SAFETY: (1) what lies outside the window is not reachable through the direct map, which
        // memblock asks first; (2, 3) the window is private to this value and borrowed
        // exclusively here; (4) tests that free by range hold no token for it.
        Memblock::new(unsafe { RamClaim::new() })
    }

    /// Copies the bytes of a range inside the window, which nobody may be writing to.
    #[must_use]
    pub fn bytes(&self, range: PhysRange) -> Vec<u8> {
        let first = self.direct_map(range).expect("inside the window");
        // SAFETY: the range lies inside `pages`, which are initialised; tests have one thread and
        // hold no reference into arrays while they look.
        let bytes = unsafe { core::slice::from_raw_parts(first.as_ptr(), range.size() as usize) };
        bytes.to_vec()
    }
}

// SAFETY: (1, 2) the window's pages are ordinary memory of this value, used by nobody else;
// (3, 4) one thread at a time uses a window, and it has no interrupts; (5, 6) nothing is mapped.
unsafe impl Platform for Window {
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        if range.is_empty() || !self.range.covers(range) {
            return None;
        }
        let offset = range.start().offset_from(self.range.start())? as usize;
        let first = NonNull::new(self.pages.as_ptr().cast_mut().cast::<u8>())?;
        Some(first.map_addr(|addr| addr.checked_add(offset).expect("inside an allocation")))
    }

    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        let first = VirtAddr::from_ptr(self.pages.as_ptr());
        let at = self.range.start().checked_add(addr.offset_from(first)?)?;
        self.range.contains(at).then_some(at)
    }

    fn current_cpu(&self) -> CpuId {
        CpuId(0)
    }

    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn corruption(&self, report: &Corruption) {
        panic!("{report}");
    }
}
