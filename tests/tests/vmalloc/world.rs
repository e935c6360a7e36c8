//! A machine with page tables for areas.

use std::ops::Deref;
use std::ptr::NonNull;

use mm::addr::{PhysRange, VirtAddr, VirtRange};
use mm::config::PAGE_SIZE;
use mm::platform::Platform;
use mm_tests::sim::{Builder, Machine, SimConfig, SimTables};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const PAGE: usize = PAGE_SIZE as usize;
/// Where areas start.
pub(crate) const START: u64 = 0xffff_c900_0000_0000;

/// A machine whose kernel addresses are up.
pub(crate) struct World<C: SimConfig> {
    machine: Machine<C>,
    pub(crate) tables: &'static SimTables,
}

impl<C: SimConfig> World<C> {
    /// With so many bytes of RAM, as many of addresses, and records for so many areas.
    pub(crate) fn new(ram: u64, addresses: u64, areas: u32) -> Self {
        Self::on(Machine::<C>::new().ram(0, ram), addresses, areas, true)
    }

    pub(crate) fn on(builder: Builder<C>, addresses: u64, areas: u32, huge: bool) -> Self {
        let mut machine = builder.boot();
        let tables = SimTables::leak(huge);
        let ram = machine.hardware().ram().ranges();
        tables.set_ram_end(ram.map(|range| range.end().as_u64()).max().unwrap());
        let range = VirtRange::from_size(VirtAddr::new(START), addresses).unwrap();
        // SAFETY: nobody has these addresses on this machine.
        unsafe { machine.vmalloc_init(range, tables) }.unwrap();
        machine.vmalloc_reserve(areas).unwrap();
        assert!(machine.drain_all_pages());
        machine.rebase();
        Self { machine, tables }
    }

    /// The bytes of a page, by its address in an area.
    pub(crate) fn page(&self, at: VirtAddr) -> NonNull<u8> {
        let pfn = self.tables.page(at).expect("mapped").pfn;
        let range = PhysRange::from_size(pfn.addr(), PAGE_SIZE);
        self.hardware().direct_map(range).unwrap()
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

    /// Looks at everything.
    pub(crate) fn look(&self) {
        self.validate_vmalloc().unwrap();
        self.tables.check(&self.machine);
        self.machine.check();
    }

    /// Nobody has an area any more: everything goes back.
    pub(crate) fn finish(self) {
        self.look();
        let _ = self.vmalloc_purge();
        assert_eq!((self.tables.mapped(), self.tables.stale()), (0, 0));
        self.look();
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
