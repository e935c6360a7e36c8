//! What the kernel may do with its own pages, by Linux's names (`set_memory.c`): those of the direct map, of its image, and
//! of areas.
//!
//! # Areas
//!
//! A range of an area lies in it as a whole, its guard page left out; who has the area may change its rights, such as to
//! fill it with code, which is read-only before it is executed. Whatever the rights are when it is freed, nothing is left of
//! them: its entries are cleared as a whole, and written anew for the next one.
//!
//! What the direct map allows for the same frames stays as it is. Linux changes that, too, except for NX, and puts it right
//! when the area is freed (`VM_FLUSH_RESET_PERMS`). Here frames of an area are single pages from anywhere, so each
//! would cost the direct map one of its large pages, and freeing, which may happen in an interrupt, would have to
//! change page tables that it may not lock. Who wants nobody to write by the direct map either says so, for the
//! frames that [`Memory::vmalloc_to_pfn`] tells, and takes it back before the area is freed.

use crate::addr::{PfnRange, VirtRange};
use crate::kspace::{AreaKind, AreaState};
use crate::pagetable::{Change, PageSize, ProtectError, Protection};
use crate::platform::{PageAccess, Platform, TlbFlush};
use crate::sync::Pin;
use crate::sync::shootdown::CEILING;
use crate::system::Memory;

impl<P: Platform> Memory<P> {
    /// Makes pages of the direct map, of the kernel's image, or of an area of [`vmalloc`](Self::vmalloc) or
    /// [`vmap`](Self::vmap) read-only, and has all CPUs know it (Linux: `set_memory_ro`). Large pages are split where the
    /// range ends in them, and are put together again when all of one may be used alike. Where the same frames are mapped
    /// elsewhere as well, that stays as it is. Rights of an area end with it. Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody writes there, or whoever does expects the page fault; of an area, the caller has it.
    pub unsafe fn set_memory_ro(&self, range: VirtRange) -> Result<(), ProtectError> {
        self.protect_kernel(range, Change::Forbid(Protection::WRITE))
    }

    /// Makes pages writable that cannot be executed, as [`Self::set_memory_ro`] makes them read-only (Linux: `set_memory_rw`).
    /// Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// No reference to what lies there rests on nobody being able to write.
    pub unsafe fn set_memory_rw(&self, range: VirtRange) -> Result<(), ProtectError> {
        self.protect_kernel(range, Change::Allow(Protection::WRITE))
    }

    /// Makes pages executable that cannot be written to, as [`Self::set_memory_ro`] makes them read-only (Linux:
    /// `set_memory_x`, which lets them be both). Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// What lies there may be executed.
    pub unsafe fn set_memory_x(&self, range: VirtRange) -> Result<(), ProtectError> {
        self.protect_kernel(range, Change::Allow(Protection::EXECUTE))
    }

    /// Takes the right to be executed from pages, as [`Self::set_memory_ro`] the one to be written to (Linux: `set_memory_nx`).
    /// Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody executes what lies there, or whoever does expects the page fault.
    pub unsafe fn set_memory_nx(&self, range: VirtRange) -> Result<(), ProtectError> {
        self.protect_kernel(range, Change::Forbid(Protection::EXECUTE))
    }

    /// Puts pages out of everybody's reach; their frames and rights stay noted (Linux: `set_memory_np`). Otherwise as
    /// [`Self::set_memory_ro`]. Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody touches what lies there, the library included, or whoever does expects the page fault.
    pub unsafe fn set_memory_np(&self, range: VirtRange) -> Result<(), ProtectError> {
        self.protect_kernel(range, Change::Unreachable)
    }

    /// Makes pages reachable again that [`Self::set_memory_np`] put out of reach, with the rights that they had (Linux:
    /// `set_memory_p`). Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody rests on their being out of reach.
    pub unsafe fn set_memory_p(&self, range: VirtRange) -> Result<(), ProtectError> {
        self.protect_kernel(range, Change::Reachable)
    }

    /// Has frames be out of reach in the direct map, or within it again; for this CPU when the answer comes, for others at some
    /// time (Linux: `set_direct_map_invalid_noflush`, `set_direct_map_default_noflush`). Takes no lock and no memory: the
    /// direct map has 4 KiB pages here ([`KernelSpace::largest`](crate::system::KernelSpace)). For
    /// [`Platform::protect_free_pages`]. Context: any.
    ///
    /// # Errors
    /// [`ProtectError`]; pages before the one at fault are changed then.
    ///
    /// # Safety
    ///
    /// 1. Nobody touches what is put out of reach, or whoever does expects the page fault.
    /// 2. Nobody else changes how these frames are mapped meanwhile.
    pub unsafe fn set_direct_map(
        &self,
        frames: PfnRange,
        access: PageAccess,
    ) -> Result<(), ProtectError> {
        let space = self.kernel_space().ok_or(ProtectError::NoKernelSpace)?;
        let map = space.layout.direct_map;
        let place = frames.addrs();
        let start = map.start().checked_add(place.start().as_u64());
        let range = start.and_then(|start| VirtRange::from_size(start, place.size()));
        let range = range.unwrap_or_default();
        if !map.covers(range) || space.largest != PageSize::Size4K {
            return Err(ProtectError::Outside(range));
        }
        let is_reachable = access == PageAccess::ReadWrite;
        let pin = Pin::new(self.platform());
        space.tables.set_reach(self, range, is_reachable)?;
        if !is_reachable {
            self.platform()
                .flush_tlb_here(match range.pages() > CEILING {
                    true => TlbFlush::All,
                    false => TlbFlush::Pages(range),
                });
        }
        drop(pin);
        Ok(())
    }

    fn protect_kernel(&self, range: VirtRange, change: Change) -> Result<(), ProtectError> {
        let space = self.kernel_space().ok_or(ProtectError::NoKernelSpace)?;
        space.tables.check(range)?;
        let regions = [space.layout.direct_map, space.layout.image];
        let largest = match regions.iter().any(|region| region.covers(range)) {
            true => space.largest,
            false => self.largest_of_area(range)?,
        };
        let receipt = space.tables.protect(self, range, (change, largest))?;
        receipt.complete();
        Ok(())
    }

    /// The largest pages that the area may have in which all of a range lies.
    fn largest_of_area(&self, range: VirtRange) -> Result<PageSize, ProtectError> {
        let areas = self
            .kspace()
            .filter(|(space, _)| space.range().covers(range));
        let (space, _) = areas.ok_or(ProtectError::Outside(range))?;
        let area = space.containing(self.platform(), range.start());
        let is_right = area.is_some_and(|area| {
            area.state() == AreaState::Busy
                && matches!(area.kind(), AreaKind::Vmalloc | AreaKind::Vmap)
                && area.mapped().covers(range)
        });
        match is_right {
            true => Ok(PageSize::Size2M),
            false => Err(ProtectError::NoArea(range)),
        }
    }
}
