//! The sampling guard pool of this machine (Linux: KFENCE).
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::{Core, DeferError, Memory};
use crate::addr::{PhysAddr, VirtAddr};
use crate::buddy::Gfp;
use crate::platform::{NodeId, Platform};
use crate::report::AccessKind;
use crate::slab::{Ask, BadFree, Cache, Freed, Kfence, KfenceStats, Object};

/// There is no sampling guard pool: `kfence.sample_interval=` was not said when memory came up, or the platform
/// cannot put pages out of reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoKfence;

impl fmt::Display for NoKfence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no guard pool: say `kfence.sample_interval=` at boot")
    }
}

impl core::error::Error for NoKfence {}

impl Core {
    /// The pool, if an address is in it.
    #[inline]
    pub(crate) fn kfence_at(&self, at: PhysAddr) -> Option<&Kfence> {
        self.kfence.as_ref().filter(|kfence| kfence.contains(at))
    }
}

impl<P: Platform> Memory<P> {
    /// An object of the pool instead of one of a cache, if it is one's turn.
    #[inline]
    pub(super) fn sampled(
        &self,
        core: &Core,
        cache: &Cache,
        (gfp, node): (Gfp, Option<NodeId>),
        ask: Ask,
    ) -> Option<Object> {
        let kfence = core.kfence.as_ref().filter(|_| node.is_none())?;
        kfence.sample(&self.soil(core), cache, gfp, ask)
    }

    /// Objects of the pool that have not come back to a cache that ends with this handle.
    pub(super) fn sampled_of(&self, core: &Core, cache: &Cache) -> u64 {
        let kfence = core.kfence.as_ref().filter(|_| cache.is_last_user());
        kfence.map_or(0, |kfence| kfence.live_of(&self.platform, cache.id()))
    }

    /// Whether any of some objects are from the pool.
    pub(crate) fn are_sampled(&self, core: &Core, objects: &[Option<NonNull<u8>>]) -> bool {
        let is_sampled = |object: &NonNull<u8>| {
            let at = self.physical(*object);
            at.is_some_and(|at| core.kfence_at(at).is_some())
        };
        core.kfence.is_some() && objects.iter().flatten().any(is_sampled)
    }

    /// Takes an object of the pool back. `cache` is the one that it must be of, if any.
    pub(crate) fn free_sampled(
        &self,
        core: &Core,
        kfence: &Kfence,
        object: Object,
        (ask, cache): (Ask, Option<u16>),
    ) -> Result<(), BadFree> {
        match kfence.free(&self.soil(core), &object, (ask, cache, false))? {
            Freed::Now => Ok(()),
            Freed::AfterGrace => {
                match self.note_object(core, object.as_ptr()) {
                    Err(DeferError::OutOfMemory)
                        if self.platform.may_sleep() && self.grace().synchronize().is_ok() =>
                    {
                        self.free_unseen(core, kfence, object)?;
                    }
                    // It stays out of use, where readers may see it.
                    Err(_) => self.lose_object(object.as_ptr()),
                    Ok(()) => {}
                }
                Ok(())
            }
        }
    }

    /// Takes an object of the pool back that no reader sees any more.
    pub(crate) fn free_unseen(
        &self,
        core: &Core,
        kfence: &Kfence,
        object: Object,
    ) -> Result<(), BadFree> {
        let how = (Ask::whole(), None, true);
        kfence.free(&self.soil(core), &object, how).map(drop)
    }

    /// Takes notice of a page fault (Linux: `kfence_handle_page_fault`): if the address is in the sampling guard pool,
    /// what was done wrong is told by [`Platform::corruption`], the page is put within reach, and the answer is
    /// that the access may be tried again. Otherwise the fault is somebody else's. Context: any.
    #[must_use]
    pub fn kfence_page_fault(&self, address: VirtAddr, kind: AccessKind) -> bool {
        let at = self.platform.virt_to_phys(address);
        let found = self.core().zip(at);
        let found = found.and_then(|(core, at)| Some((core.kfence_at(at)?, at)));
        found.is_some_and(|(kfence, at)| kfence.fault(&self.platform, at, kind))
    }

    /// Has one allocation in `interval` sampled from now on, or none with 0 (Linux:
    /// `kfence.sample_interval`, which counts milliseconds). Context: any but NMI.
    ///
    /// # Errors
    /// [`NoKfence`].
    pub fn set_kfence_interval(&self, interval: u64) -> Result<(), NoKfence> {
        let kfence = self.core().and_then(|core| core.kfence.as_ref());
        kfence.ok_or(NoKfence)?.set_interval(interval);
        Ok(())
    }

    /// The sampling guard pool in numbers. Context: any but NMI.
    ///
    /// # Errors
    /// [`NoKfence`].
    pub fn kfence_stats(&self) -> Result<KfenceStats, NoKfence> {
        let kfence = self.core().and_then(|core| core.kfence.as_ref());
        Ok(kfence.ok_or(NoKfence)?.stats(&self.platform))
    }
}
