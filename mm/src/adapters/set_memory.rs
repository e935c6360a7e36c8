//! What the kernel may do with its own pages, by Linux's names (`set_memory.c`).

use crate::addr::VirtRange;
use crate::pagetable::{Change, ProtectError, Protection};
use crate::platform::Platform;
use crate::system::Memory;

impl<P: Platform> Memory<P> {
    /// Makes pages of the direct map or of the kernel's image read-only, and has all CPUs know it (Linux: `set_memory_ro`).
    /// Large pages are split where the range ends in them, and are put together again when all of one may be used alike.
    /// Where the same frames are mapped elsewhere as well, that stays as it is. Context: task; no lock held.
    ///
    /// # Errors
    /// [`ProtectError`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody writes there, or whoever does expects the page fault.
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

    fn protect_kernel(&self, range: VirtRange, change: Change) -> Result<(), ProtectError> {
        let space = self.kernel_space().ok_or(ProtectError::NoKernelSpace)?;
        space.tables.check(range)?;
        let regions = [space.layout.direct_map, space.layout.image];
        if !regions.iter().any(|region| region.covers(range)) {
            return Err(ProtectError::Outside(range));
        }
        let receipt = space.tables.protect(self, range, (change, space.largest))?;
        receipt.complete();
        Ok(())
    }
}
