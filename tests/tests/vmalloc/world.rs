//! A machine with page tables for areas.

use std::ops::Deref;
use std::ptr::NonNull;

use mm::addr::{PfnRange, VirtAddr, VirtRange};
use mm::config::PAGE_SIZE;
use mm::pagetable::{Attributes, PageSize};
use mm_tests::sim::{Builder, Machine, Mapped, SimConfig, SimSpace};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const PAGE: usize = PAGE_SIZE as usize;
/// Where areas start.
pub(crate) const START: u64 = 0xffff_c900_0000_0000;

/// A machine whose kernel addresses are up.
pub(crate) struct World<C: SimConfig> {
    machine: Machine<C>,
    space: SimSpace,
}

impl<C: SimConfig> World<C> {
    /// With so many bytes of RAM, as many of addresses, and records for so many areas.
    pub(crate) fn new(ram: u64, addresses: u64, areas: u32) -> Self {
        Self::on(Machine::<C>::new().ram(0, ram), addresses, areas)
    }

    pub(crate) fn on(builder: Builder<C>, addresses: u64, areas: u32) -> Self {
        let mut machine = builder.boot();
        let range = VirtRange::from_size(VirtAddr::new(START), addresses).unwrap();
        let space = SimSpace::adopt(&machine, range).unwrap();
        machine.vmalloc_reserve(areas).unwrap();
        assert!(machine.drain_all_pages());
        machine.rebase();
        Self { machine, space }
    }

    /// The page at an address, by the page tables.
    pub(crate) fn mapping(&self, at: VirtAddr) -> Option<Mapped> {
        self.space.page(&self.machine, at)
    }

    /// How many pages are mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.space.mapped(&self.machine)
    }

    /// Frames that nobody has, and those of page tables.
    pub(crate) fn free_or_tables(&self) -> u64 {
        self.machine.free_frames() + self.space.count(&self.machine)
    }

    /// How often all CPUs were told to forget something.
    pub(crate) fn flushes(&self) -> u64 {
        self.machine.tlb_generation()
    }

    /// The bytes of a page, by its address in an area; the CPU remembers where they were.
    pub(crate) fn page(&self, at: VirtAddr) -> NonNull<u8> {
        self.space.reach(&self.machine, at)
    }

    /// Writes a byte to every one of `pages` pages.
    pub(crate) fn fill(&self, area: NonNull<u8>, pages: usize, byte: u8) {
        for page in 0..pages {
            // SAFETY: a page of an area that the test owns.
            unsafe { self.page(at(area, page * PAGE)).write_bytes(byte, PAGE) };
        }
    }

    /// Whether every byte of `pages` pages is `byte`.
    pub(crate) fn holds(&self, area: NonNull<u8>, pages: usize, byte: u8) -> bool {
        (0..pages).all(|page| {
            let first = self.page(at(area, page * PAGE));
            // SAFETY: as above; RAM always holds something.
            let bytes = unsafe { std::slice::from_raw_parts(first.as_ptr(), PAGE) };
            bytes.iter().all(|&found| found == byte)
        })
    }

    /// Frees an area that the test owns.
    pub(crate) fn free(&self, area: NonNull<u8>) {
        // SAFETY: the test forgets it.
        unsafe { self.vfree(area) }.unwrap();
    }

    /// Maps frames where nobody but the library is to map anything.
    pub(crate) fn map_stray(&self, at: VirtAddr, frames: PfnRange) {
        let (tables, how) = (self.space.tables(), Attributes::KERNEL);
        // SAFETY: nobody uses the address.
        let mapped = unsafe { self.map_pages(tables, (at, frames), how, PageSize::Size4K) };
        mapped.unwrap();
    }

    /// Takes a page away again.
    pub(crate) fn unmap_stray(&self, at: VirtAddr) {
        let page = VirtRange::from_size(at, PAGE_SIZE).unwrap();
        // SAFETY: as above.
        let gone = unsafe { self.unmap_pages(self.space.tables(), page, |_, _| ()) };
        gone.unwrap().complete();
    }

    /// Looks at everything, once page tables that nobody has any more are freed.
    pub(crate) fn look(&self) {
        self.grace().barrier().unwrap();
        self.validate_vmalloc().unwrap();
        let _ = self.space.count(&self.machine);
        self.machine.check();
    }

    /// Nobody has an area any more: everything goes back.
    pub(crate) fn finish(self) {
        self.look();
        let _ = self.vmalloc_purge();
        self.look();
        self.space.dismantle(&self.machine);
        self.machine.finish();
    }
}

impl<C: SimConfig> Deref for World<C> {
    type Target = Machine<C>;

    fn deref(&self) -> &Machine<C> {
        &self.machine
    }
}

/// An address inside of an area, or behind it.
pub(crate) fn at(area: NonNull<u8>, offset: usize) -> VirtAddr {
    VirtAddr::from_ptr(area.as_ptr())
        .checked_add(offset as u64)
        .unwrap()
}
