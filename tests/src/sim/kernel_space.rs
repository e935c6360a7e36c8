//! A kernel's half of the address space on a simulated machine: the library's own page tables, which its CPUs use.

use std::ptr::NonNull;

use mm::addr::{Order, Pfn, PfnRange, PhysRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::{Layout, PAGE_SIZE};
use mm::pagetable::{Attributes, Level, PageSize, PageTable};
use mm::platform::Platform;
use mm::system::{Memory, VmallocError};

use super::mmu::{Access, Registers};
use super::{Machine, SimConfig, SimPlatform};

/// A page that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// Its frame.
    pub pfn: Pfn,
    /// How.
    pub how: Attributes,
    /// Whether it is part of a larger page.
    pub huge: bool,
}

/// Page tables that all CPUs of a machine use, and what the library has in them.
#[derive(Debug)]
pub struct SimSpace {
    tables: PageTable,
    vmalloc: VirtRange,
}

impl SimSpace {
    /// Makes tables, has all CPUs use them, and gives addresses to areas.
    ///
    /// # Errors
    /// [`VmallocError`].
    ///
    /// # Panics
    /// If there is no memory for the root, or the machine has such tables already.
    pub fn adopt<C: SimConfig>(
        machine: &Memory<SimPlatform<C>>,
        vmalloc: VirtRange,
    ) -> Result<Self, VmallocError> {
        Self::adopt_with(machine, vmalloc, VirtRange::EMPTY)
    }

    /// The same with addresses for CPUs' copies: those of [`Ram::percpu_range`](super::Ram::percpu_range).
    ///
    /// # Errors
    /// [`VmallocError`].
    ///
    /// # Panics
    /// As [`Self::adopt`].
    pub fn adopt_with<C: SimConfig>(
        machine: &Memory<SimPlatform<C>>,
        vmalloc: VirtRange,
        percpu: VirtRange,
    ) -> Result<Self, VmallocError> {
        let tables = machine.new_page_table(Level::P4D).expect("a root");
        let registers = Registers::kernel(tables.root().addr(), 4);
        machine
            .platform()
            .switch_paging_on(registers, VirtRange::EMPTY);
        let layout = Layout {
            vmalloc,
            percpu,
            ..Layout::LINUX_LIKE
        };
        // SAFETY: all CPUs use them from now on, and nothing else is mapped in them.
        unsafe { machine.adopt_kernel_space(tables, layout, PageSize::Size1G) }.expect("the first");
        machine.vmalloc_init()?;
        Ok(Self { tables, vmalloc })
    }

    /// The tables.
    #[must_use]
    pub const fn tables(&self) -> &PageTable {
        &self.tables
    }

    /// The page at an address, by the tables.
    pub fn page<C: SimConfig>(
        &self,
        memory: &Memory<SimPlatform<C>>,
        at: VirtAddr,
    ) -> Option<Mapped> {
        let leaf = memory.walk(&self.tables, at).leaf()?;
        let offset = at.as_u64() & (leaf.size.bytes() - 1);
        Some(Mapped {
            pfn: Pfn::new(leaf.pfn.as_u64() + offset / PAGE_SIZE),
            how: leaf.attributes,
            huge: leaf.size != PageSize::Size4K,
        })
    }

    /// How many pages are mapped in the region for areas.
    pub fn mapped<C: SimConfig>(&self, memory: &Memory<SimPlatform<C>>) -> usize {
        let mut pages = 0;
        let mut at = self.vmalloc.start();
        while let Some(span) = memory.next_span(&self.tables, at) {
            pages += span.range.size() / PAGE_SIZE;
            at = span.range.end();
        }
        usize::try_from(pages).unwrap()
    }

    /// How many tables there are, after a recount.
    ///
    /// # Panics
    /// If one is damaged.
    pub fn count<C: SimConfig>(&self, memory: &Memory<SimPlatform<C>>) -> u64 {
        memory.validate_page_table(&self.tables).unwrap()
    }

    /// The bytes that the CPU reaches by an address; it remembers that.
    ///
    /// # Panics
    /// If nothing is mapped there, or the CPU remembers something that is somebody else's by now.
    pub fn reach<C: SimConfig>(&self, machine: &Machine<C>, at: VirtAddr) -> NonNull<u8> {
        let phys = machine.touch(at, Access::READ);
        let phys = phys.unwrap_or_else(|fault| panic!("{at:?}: {fault:?}"));
        let range = PhysRange::from_size(phys, PAGE_SIZE - at.as_u64() % PAGE_SIZE);
        machine.hardware().direct_map(range).unwrap()
    }

    /// Frees the tables, but for the frame of the root, which was taken before the machine's baseline.
    ///
    /// # Panics
    /// If something is mapped.
    pub fn dismantle<C: SimConfig>(self, machine: &Machine<C>) {
        assert_eq!(self.mapped(machine), 0);
        let root = PfnRange::block(self.tables.root(), Order::ZERO);
        // SAFETY: nothing is mapped, and no area is taken any more.
        unsafe { machine.destroy_page_table(self.tables) };
        machine.grace().barrier().unwrap();
        assert!(machine.drain_all_pages());
        let root = machine.alloc_contig_range(root, Gfp::KERNEL);
        std::mem::forget(root.expect("it is free"));
    }
}
