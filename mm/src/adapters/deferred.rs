//! Objects that are freed when no reader sees them any more.

use core::ptr::NonNull;

use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::kspace::AreaKind;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::Corruption;
use crate::slab::{BadFree, Object};
use crate::system::{DeferError, Memory, named_area};

/// Bytes of an address.
const BYTES: usize = 8;

impl<P: Platform> Memory<P> {
    /// Gives an object back as [`Self::kfree`] does, when a grace period is over that begins after this: until then,
    /// readers that found it before it was unlinked may look at it (Linux: `kfree_rcu`, without a head in the
    /// object). Where no page is left to note its address on, it is waited for right here, if the caller may sleep.
    /// Context: any but NMI.
    ///
    /// # Errors
    /// [`DeferError`]; the object is the caller's still.
    ///
    /// # Safety
    ///
    /// The caller owns the object; nobody but readers that are there by now uses it any more.
    pub unsafe fn kfree_deferred(&self, object: NonNull<u8>) -> Result<(), DeferError> {
        let bad = DeferError::Bad(BadFree::NotASlab);
        let core = self.core().ok_or(bad)?;
        self.ksize(object).ok_or(bad)?;
        match self.note_object(core, object) {
            Err(DeferError::OutOfMemory) if self.platform().may_sleep() => {
                let waited = self.grace().synchronize();
                waited.map_err(|_| DeferError::OutOfMemory)?;
                // SAFETY: the caller's word, and no reader is left.
                unsafe { self.kfree(object) }.map_err(DeferError::Bad)
            }
            noted => noted,
        }
    }

    /// Gives back what [`Self::kvmalloc`], [`Self::kmalloc`] or [`Self::vmalloc`] handed out as [`Self::kvfree`] does, when a
    /// grace period is over that begins after this (Linux: `kvfree_rcu`, `kvfree_rcu_mightsleep`): an area as
    /// [`Self::kfree_deferred`] an object. Context: any but NMI.
    ///
    /// # Errors
    /// [`DeferError`]; the bytes are the caller's still.
    ///
    /// # Safety
    ///
    /// The caller owns the bytes; nobody but readers that are there by now uses them any more.
    pub unsafe fn kvfree_deferred(&self, first: NonNull<u8>) -> Result<(), DeferError> {
        let at = VirtAddr::from_ptr(first.as_ptr());
        if !self.is_vmalloc_addr(at) {
            // SAFETY: the caller's word, passed on.
            return unsafe { self.kfree_deferred(first) };
        }
        let bad = DeferError::Bad(BadFree::NotASlab);
        let core = self.core().ok_or(bad)?;
        let found = self.area_at(at);
        let is_whole = found.is_some_and(|area| area.kind() == AreaKind::Vmalloc);
        if !is_whole {
            return Err(bad);
        }
        match self.note_area(core, at) {
            Err(DeferError::OutOfMemory) if self.platform().may_sleep() => {
                let waited = self.grace().synchronize();
                waited.map_err(|_| DeferError::OutOfMemory)?;
                match self.end_at(at, AreaKind::Vmalloc) {
                    true => Ok(()),
                    false => Err(bad),
                }
            }
            noted => noted,
        }
    }

    /// Frees the objects and areas that a page names, from its start on: as `kfree_deferred` and `kvfree_deferred` noted them.
    pub(crate) fn free_named(&self, page: &Exclusive, count: u16) {
        let bytes = page.bytes(self.platform()).unwrap_or_default();
        let addresses = bytes.as_chunks::<BYTES>().0.iter().take(usize::from(count));
        for address in addresses {
            let name = u64::from_le_bytes(*address);
            if let Some(start) = named_area(name) {
                if !self.end_at(start, AreaKind::Vmalloc) {
                    // Somebody else gave it back meanwhile.
                    let pfn = self.vmalloc_to_pfn(start).unwrap_or_default();
                    let lost = Corruption::LostObject { pfn, offset: 0 };
                    self.platform().corruption(&lost);
                }
                continue;
            }
            let at = PhysAddr::new(name);
            let Some(object) = self.platform().direct_map(PhysRange::from_size(at, 1)) else {
                continue;
            };
            if let Some(core) = self.core()
                && let Some(kfence) = core.kfence_at(at)
            {
                // SAFETY: its owner gave it up, and the page's grace period is over.
                let object = unsafe { Object::given_up(object) };
                let place = object.as_ptr();
                if self.free_unseen(core, kfence, object).is_err() {
                    self.lose_object(place);
                }
                continue;
            }
            // SAFETY: its owner gave it up to `kfree_deferred`, and the page's grace period is over.
            if unsafe { self.kfree(object) }.is_err() {
                self.lose_object(object);
            }
        }
    }
}
