//! Memory that is contiguous if that is easy (Linux: `kvmalloc`).

use core::ptr::NonNull;

use super::BadVfree;
use crate::addr::{VirtAddr, to_count, to_index};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;
use crate::platform::Platform;
use crate::system::{AllocError, Memory, VmallocError};

const PAGE: usize = to_index(PAGE_SIZE);

impl<P: Platform> Memory<P> {
    /// Allocates `size` bytes: by [`Self::kmalloc`] if that needs no trouble, else by [`Self::vmalloc`] (Linux:
    /// `kvmalloc`). Requests that may not sleep get the former only. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`VmallocError`].
    #[track_caller]
    pub fn kvmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, VmallocError> {
        let may_map = gfp.contains(Gfp::DIRECT_RECLAIM) && size > PAGE;
        let first = match may_map {
            // There is another way: no need to reclaim for it, or to complain.
            true => gfp.difference(Gfp::NOFAIL | Gfp::DIRECT_RECLAIM) | Gfp::NOWARN,
            false => gfp,
        };
        match self.kmalloc(size, first) {
            Err(AllocError::OutOfMemory) if may_map => self.vmalloc(size, gfp),
            found => found.map_err(VmallocError::Alloc),
        }
    }

    /// Gives back what [`Self::kvmalloc`] handed out (Linux: `kvfree`). Context: any but NMI.
    ///
    /// # Errors
    /// [`BadVfree`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the bytes, and nobody uses them any more.
    pub unsafe fn kvfree(&self, first: NonNull<u8>) -> Result<(), BadVfree> {
        let at = VirtAddr::from_ptr(first.as_ptr());
        if self.is_vmalloc_addr(at) {
            // SAFETY: the caller's word, passed on.
            return unsafe { self.vfree(first) };
        }
        // SAFETY: as above.
        unsafe { self.kfree(first) }.map_err(|_| BadVfree(at))
    }

    /// Changes how many bytes there are (Linux: `kvrealloc`): in place where they fit into the pages of an area. What is there
    /// stays; what is new holds anything, or zeroes with [`Gfp::ZERO`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`VmallocError`]; the bytes are the caller's as before.
    ///
    /// # Safety
    ///
    /// `first` has `old` bytes of [`Self::kvmalloc`], the caller owns them, and does not use them any more after
    /// success.
    #[track_caller]
    pub unsafe fn kvrealloc(
        &self,
        first: NonNull<u8>,
        (old, new): (usize, usize),
        gfp: Gfp,
    ) -> Result<NonNull<u8>, VmallocError> {
        let at = VirtAddr::from_ptr(first.as_ptr());
        let pages = self.area_at(at).map_or(0, |area| to_index(area.pages()));
        let room = pages.saturating_mul(PAGE);
        if new <= room && new > room / 2 {
            if gfp.contains(Gfp::ZERO) && new > old {
                // SAFETY: the caller owns the area, which has as many bytes.
                unsafe { self.zero_behind(first, old, new) };
            }
            return Ok(first);
        }
        let moved = self.kvmalloc(new, gfp)?;
        // SAFETY: the caller owns the old ones, and the new ones were handed out just now; neither is shorter.
        unsafe { self.copy_bytes(first, moved, old.min(new)) };
        // SAFETY: the caller's word.
        if unsafe { self.kvfree(first) }.is_err() {
            self.lose_object(first);
        }
        Ok(moved)
    }

    /// Where the direct map reaches a byte, and how many behind it are in the same page.
    fn reach(&self, first: NonNull<u8>, offset: usize) -> Option<(NonNull<u8>, usize)> {
        let at = VirtAddr::from_ptr(first.as_ptr()).checked_add(to_count(offset))?;
        let left = PAGE.wrapping_sub(to_index(at.as_u64()) & (PAGE - 1));
        if !self.is_vmalloc_addr(at) {
            // SAFETY: the callers have so many bytes.
            return Some((unsafe { first.add(offset) }, left));
        }
        let (space, supply) = self.kspace()?;
        let phys = space.translate(&supply, at)?;
        let byte = crate::addr::PhysRange::from_size(phys, 1);
        Some((self.platform().direct_map(byte)?, left))
    }

    /// Copies bytes page by page.
    ///
    /// # Safety
    ///
    /// Both have `count` bytes that the caller owns, and are not the same.
    unsafe fn copy_bytes(&self, from: NonNull<u8>, to: NonNull<u8>, count: usize) {
        let mut done: usize = 0;
        while done < count {
            let both = self.reach(from, done).zip(self.reach(to, done));
            let Some(((source, here), (target, there))) = both else {
                return;
            };
            let part = here.min(there).min(count.wrapping_sub(done));
            // SAFETY: the caller's word; both are within one page, which the platform reaches (Platform 1).
            unsafe { source.copy_to_nonoverlapping(target, part) };
            done = done.wrapping_add(part);
        }
    }

    /// Writes zeroes from `start` to `end`.
    ///
    /// # Safety
    ///
    /// The caller owns so many bytes.
    unsafe fn zero_behind(&self, first: NonNull<u8>, start: usize, end: usize) {
        let mut done = start;
        while let Some((target, left)) = self.reach(first, done).filter(|_| done < end) {
            let part = left.min(end.wrapping_sub(done));
            // SAFETY: the caller's word; they are within one page, which the platform reaches (Platform 1).
            unsafe { target.write_bytes(0, part) };
            done = done.wrapping_add(part);
        }
    }
}
