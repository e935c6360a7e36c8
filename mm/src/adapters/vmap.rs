//! Areas for other frames, by address (Linux: `vmap`, `vm_map_ram`, `ioremap`, `memremap`).

use core::panic::Location;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use super::vmalloc::{BadVfree, start};
use crate::addr::{Pfn, PhysAddr, PhysRange, VirtAddr, to_index};
use crate::config::PAGE_SIZE;
use crate::kspace::AreaKind;
use crate::pagetable::{Attributes, Cache};
use crate::platform::Platform;
use crate::system::{IoremapError, Memory, VmallocError};

impl<P: Platform> Memory<P> {
    /// Maps frames one behind the other, with a page behind them that is never mapped (Linux: `vmap`): data, or code that
    /// cannot be written to. Context: task.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// 1. The frames are RAM that the caller owns, and what is done by these addresses keeps the rules that hold for them.
    /// 2. They stay the caller's until a purge that begins after [`Self::vunmap`] is over
    ///    ([`Self::vmalloc_purge`]): CPUs may reach them until then.
    #[track_caller]
    pub unsafe fn vmap(
        &self,
        frames: &[Pfn],
        how: Attributes,
    ) -> Result<NonNull<u8>, VmallocError> {
        let kind = (AreaKind::Vmap, Location::caller());
        let area = self.map_others(frames, how, kind)?;
        start(area).ok_or(VmallocError::NotUp)
    }

    /// Ends what [`Self::vmap`] began. Context: any but NMI; see [`Self::vfree`].
    ///
    /// # Errors
    /// [`BadVfree`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the area, and nobody uses the addresses any more.
    pub unsafe fn vunmap(&self, first: NonNull<u8>) -> Result<(), BadVfree> {
        self.end_by_address(first, AreaKind::Vmap)
    }

    /// As [`Self::vmap`], for a short time (Linux: `vm_map_ram`). Context: task.
    ///
    /// # Errors
    /// As [`Self::vmap`].
    ///
    /// # Safety
    ///
    /// As [`Self::vmap`].
    #[track_caller]
    pub unsafe fn vm_map_ram(&self, frames: &[Pfn]) -> Result<NonNull<u8>, VmallocError> {
        let kind = (AreaKind::VmMapRam, Location::caller());
        let area = self.map_others(frames, Attributes::KERNEL, kind)?;
        start(area).ok_or(VmallocError::NotUp)
    }

    /// Ends what [`Self::vm_map_ram`] began. Context: any but NMI; see [`Self::vfree`].
    ///
    /// # Errors
    /// As [`Self::vunmap`].
    ///
    /// # Safety
    ///
    /// As [`Self::vunmap`].
    pub unsafe fn vm_unmap_ram(&self, first: NonNull<u8>) -> Result<(), BadVfree> {
        self.end_by_address(first, AreaKind::VmMapRam)
    }

    /// Maps registers of a device, cached as said (Linux: `ioremap`, `ioremap_wc`, `ioremap_wt`, `ioremap_cache`). The
    /// answer is as far from a page's start as `at` is. Context: task.
    ///
    /// # Errors
    /// [`IoremapError`]; nothing is changed then. RAM is refused, and what is mapped already with another cache mode.
    ///
    /// # Safety
    ///
    /// The device may be used by whoever gets the address.
    #[track_caller]
    pub unsafe fn ioremap(
        &self,
        at: PhysAddr,
        size: u64,
        cache: Cache,
    ) -> Result<NonNull<u8>, IoremapError> {
        let at = self.map_device((at, size), cache, Location::caller())?;
        pointer(at)
    }

    /// Ends what [`Self::ioremap`] began. Context: any but NMI; see [`Self::vfree`].
    ///
    /// # Errors
    /// As [`Self::vunmap`].
    ///
    /// # Safety
    ///
    /// As [`Self::vunmap`].
    pub unsafe fn iounmap(&self, at: NonNull<u8>) -> Result<(), BadVfree> {
        let page = VirtAddr::from_ptr(at.as_ptr()).align_down(PAGE_SIZE);
        match self.end_at(page, AreaKind::Ioremap) {
            true => Ok(()),
            false => Err(BadVfree(page)),
        }
    }

    /// Where memory is reached, cached as said: RAM by the direct map, and only write-back; anything else as
    /// [`Self::ioremap`] (Linux: `memremap`). Context: task.
    ///
    /// # Errors
    /// As [`Self::ioremap`].
    ///
    /// # Safety
    ///
    /// As [`Self::ioremap`].
    #[track_caller]
    pub unsafe fn memremap(
        &self,
        at: PhysAddr,
        size: u64,
        cache: Cache,
    ) -> Result<NonNull<u8>, IoremapError> {
        let mapped = self.map_device((at, size), cache, Location::caller());
        match mapped {
            Ok(at) => pointer(at),
            Err(IoremapError::Ram(ram)) if cache == Cache::WriteBack => {
                let range = PhysRange::from_size(at, size);
                let frames = range.touched_frames();
                let all = frames.iter().all(|pfn| self.zone_of(pfn).is_some());
                let direct = self.platform().direct_map(range).filter(|_| all);
                direct.ok_or(IoremapError::Ram(ram))
            }
            Err(error) => Err(error),
        }
    }

    /// Ends what [`Self::memremap`] began. Context: any but NMI; see [`Self::vfree`].
    ///
    /// # Errors
    /// As [`Self::vunmap`].
    ///
    /// # Safety
    ///
    /// As [`Self::vunmap`].
    pub unsafe fn memunmap(&self, at: NonNull<u8>) -> Result<(), BadVfree> {
        let addr = VirtAddr::from_ptr(at.as_ptr());
        match self.is_vmalloc_addr(addr) {
            // SAFETY: the caller's word, passed on.
            true => unsafe { self.iounmap(at) },
            false if self.platform().virt_to_phys(addr).is_some() => Ok(()),
            false => Err(BadVfree(addr)),
        }
    }

    #[inline(always)]
    pub(super) fn end_by_address(
        &self,
        first: NonNull<u8>,
        kind: AreaKind,
    ) -> Result<(), BadVfree> {
        let at = VirtAddr::from_ptr(first.as_ptr());
        match self.end_at(at, kind) {
            true => Ok(()),
            false => Err(BadVfree(at)),
        }
    }
}

fn pointer(at: VirtAddr) -> Result<NonNull<u8>, IoremapError> {
    let at = NonNull::new(with_exposed_provenance_mut(to_index(at.as_u64())));
    Ok(at.ok_or(VmallocError::NotUp)?)
}
