//! Kernel page tables without a kernel: a list of pages, and everything that a CPU may still remember.
//!
//! What was unmapped and not flushed since is *stale*: some CPU may reach the old frame by it. An address that is
//! mapped anew while it is stale, or a frame that is mapped anywhere while a stale address leads to it, is a fault of the
//! library, as is a stale frame that is free.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use mm::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange};
use mm::config::PAGE_SIZE;
use mm::frame::FrameState;
use mm::kspace::{KernelMap, MapAttributes, MapError};
use mm::system::Memory;

use super::{SimConfig, SimPlatform};

/// A page that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// Its frame.
    pub pfn: Pfn,
    /// How.
    pub how: MapAttributes,
    /// Whether it is part of a page of 2 MiB.
    pub huge: bool,
}

#[derive(Debug, Default)]
struct State {
    /// By page number.
    live: BTreeMap<u64, Mapped>,
    /// What may be remembered, by page number.
    stale: BTreeMap<u64, Pfn>,
    /// How many stale pages lead to a frame.
    stale_frames: BTreeMap<Pfn, u64>,
    faults: Vec<String>,
    flushes: u64,
}

/// The page tables of a simulated kernel.
#[derive(Debug)]
pub struct SimTables {
    state: Mutex<State>,
    /// How many more blocks can be mapped.
    budget: AtomicU64,
    /// Where RAM ends: what is above are devices, which nobody owns.
    ram_end: AtomicU64,
    huge: bool,
}

impl SimTables {
    /// Empty ones, for good: the library keeps them for as long as there is a machine.
    #[must_use]
    pub fn leak(huge: bool) -> &'static Self {
        Box::leak(Box::new(Self {
            state: Mutex::default(),
            budget: AtomicU64::new(u64::MAX),
            ram_end: AtomicU64::new(u64::MAX),
            huge,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Says where RAM ends.
    pub fn set_ram_end(&self, end: u64) {
        self.ram_end.store(end, Ordering::Relaxed);
    }

    fn is_ram(&self, pfn: Pfn) -> bool {
        pfn.addr().as_u64() < self.ram_end.load(Ordering::Relaxed)
    }

    /// From now on so many blocks can be mapped, and no more.
    pub fn set_budget(&self, blocks: u64) {
        self.budget.store(blocks, Ordering::Relaxed);
    }

    /// The page at an address.
    #[must_use]
    pub fn page(&self, at: VirtAddr) -> Option<Mapped> {
        let number = at.as_u64() / PAGE_SIZE;
        self.state().live.get(&number).copied()
    }

    /// How many pages are mapped.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.state().live.len()
    }

    /// How many pages may be remembered that are not mapped any more.
    #[must_use]
    pub fn stale(&self) -> usize {
        self.state().stale.len()
    }

    /// How often all CPUs were told to forget something.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// What went wrong.
    #[must_use]
    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.state().faults)
    }

    /// Looks whether a frame is free that may be remembered.
    ///
    /// # Panics
    /// If one is, or something went wrong before.
    pub fn check<C: SimConfig>(&self, memory: &Memory<SimPlatform<C>>) {
        let state = self.state();
        assert_eq!(state.faults, Vec::<String>::new());
        for (page, pfn) in state.stale.iter().filter(|(_, pfn)| self.is_ram(**pfn)) {
            let head = memory.frames().and_then(|frames| frames.head(*pfn));
            let is_owned = head.is_some_and(|head| head.state() == Some(FrameState::Unique));
            assert!(
                is_owned,
                "page {page:#x} may still lead to {pfn}, which nobody has"
            );
        }
    }
}

// SAFETY: (1, 2) nobody reaches anything by these tables but tests that ask them; (3) they are made for one machine.
unsafe impl KernelMap for SimTables {
    unsafe fn map(
        &self,
        at: VirtAddr,
        blocks: &[Pfn],
        order: Order,
        how: MapAttributes,
    ) -> Result<(), MapError> {
        let huge = order != Order::ZERO;
        if huge && !self.huge {
            return Err(MapError::Unsupported);
        }
        assert!(at.is_aligned(order.bytes()), "{at:?} for order {order:?}");
        let count = u64::try_from(blocks.len()).unwrap();
        let left = self.budget.load(Ordering::Relaxed);
        let left = left.checked_sub(count).ok_or(MapError::OutOfTables)?;
        self.budget.store(left, Ordering::Relaxed);
        let mut state = self.state();
        let first = at.as_u64() / PAGE_SIZE;
        let all = first..first + count * order.frames();
        if let Some((page, _)) = state.live.range(all).next() {
            return Err(MapError::Occupied(VirtAddr::new(page * PAGE_SIZE)));
        }
        let frames = blocks
            .iter()
            .flat_map(|block| (0..order.frames()).map(|frame| Pfn::new(block.as_u64() + frame)));
        for (page, pfn) in (first..).zip(frames) {
            if let Some(old) = state.stale.get(&page).copied() {
                let fault = format!("page {page:#x} may still lead to {old}: mapped anew");
                state.faults.push(fault);
            }
            if self.is_ram(pfn) && state.stale_frames.contains_key(&pfn) {
                let fault = format!("{pfn} may still be reached elsewhere: mapped at {page:#x}");
                state.faults.push(fault);
            }
            state.live.insert(page, Mapped { pfn, how, huge });
        }
        Ok(())
    }

    unsafe fn unmap(&self, range: VirtRange) {
        let mut state = self.state();
        let pages = range.start().as_u64() / PAGE_SIZE..range.end().as_u64() / PAGE_SIZE;
        let gone: Vec<u64> = state.live.range(pages).map(|(&page, _)| page).collect();
        for page in gone {
            let Mapped { pfn, .. } = state.live.remove(&page).unwrap();
            state.stale.insert(page, pfn);
            *state.stale_frames.entry(pfn).or_default() += 1;
        }
    }

    fn flush(&self, ranges: &[VirtRange]) {
        let mut state = self.state();
        state.flushes += 1;
        for range in ranges {
            let pages = range.start().as_u64() / PAGE_SIZE..range.end().as_u64() / PAGE_SIZE;
            let known: Vec<u64> = state.stale.range(pages).map(|(&page, _)| page).collect();
            for page in known {
                let pfn = state.stale.remove(&page).unwrap();
                let left = state.stale_frames.get_mut(&pfn).unwrap();
                *left -= 1;
                if *left == 0 {
                    state.stale_frames.remove(&pfn);
                }
            }
        }
    }

    fn translate(&self, at: VirtAddr) -> Option<PhysAddr> {
        let offset = at.as_u64() % PAGE_SIZE;
        self.page(at)
            .map(|page| PhysAddr::new(page.pfn.addr().as_u64() + offset))
    }

    fn has_huge_pages(&self) -> bool {
        self.huge
    }
}
