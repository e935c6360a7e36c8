//! Caches: constructors, many objects at once, and objects whose time has not come yet.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::objects::{KmemCache, StillInUse};
use super::{AllocError, Home};
use crate::buddy::{Gfp, Told};
use crate::slab::{Ask, CacheError, CacheStats, Ctor, SlabFlags, Wish};

impl<H: Home> KmemCache<H> {
    /// As [`Self::create`], for objects that `ctor` makes of their bytes when their slab is made. They come back as
    /// good as new: whoever frees an object leaves in it what the next owner expects, and what is in it stays
    /// while it is free. Such a cache is one of its own. Context: task.
    ///
    /// # Errors
    /// [`CacheError`].
    ///
    /// # Panics
    /// As [`Self::create`].
    pub fn create_with_ctor(
        home: H,
        name: &str,
        (size, align): (usize, usize),
        flags: SlabFlags,
        ctor: Ctor,
    ) -> Result<Self, CacheError> {
        let mut wish = Wish::new(name, (size, align), flags);
        wish.ctor = Some(ctor);
        Self::made(home, wish)
    }

    /// Makes a cache, or panics where that was asked for.
    pub(crate) fn made(home: H, wish: Wish<'_>) -> Result<Self, CacheError> {
        let made = Self::try_made(home, wish);
        match made {
            Err(error) if wish.flags.contains(SlabFlags::PANIC) => no_cache(wish.name, error),
            made => made,
        }
    }

    fn try_made(home: H, wish: Wish<'_>) -> Result<Self, CacheError> {
        let memory = home.memory();
        let core = memory.core().ok_or(CacheError::NotUp)?;
        let cache = core.caches.create(&memory.soil(core), wish)?;
        memory.note_cache(core, cache);
        Ok(Self::of(cache.id(), home))
    }

    /// Allocates an object into every empty place of `objects` (Linux: `kmem_cache_alloc_bulk`). Answers how many
    /// places are filled now, which is less than all when memory runs out. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`] other than out of memory.
    #[track_caller]
    pub fn alloc_bulk(
        &self,
        gfp: Gfp,
        objects: &mut [Option<NonNull<u8>>],
    ) -> Result<usize, AllocError> {
        let (memory, core, cache) = self.parts().ok_or(AllocError::NotUp)?;
        let mut done: usize = 0;
        loop {
            let rest = objects.get_mut(done..).unwrap_or_default();
            let Some(next) = rest.iter().position(Option::is_none) else {
                return Ok(objects.len());
            };
            let rest = rest.get_mut(next..).unwrap_or_default();
            done = done.wrapping_add(next);
            if !gfp.contains(Gfp::ZERO) {
                let came = cache.take_many(&memory.soil(core), rest);
                done = done.wrapping_add(came);
                if came > 0 {
                    continue;
                }
            }
            // This fetches more of them, too.
            match memory.alloc_object(
                core,
                cache,
                (gfp, None),
                (Ask::whole(), &mut Told(memory.platform())),
            ) {
                Ok(object) => rest
                    .iter_mut()
                    .take(1)
                    .for_each(|place| *place = Some(object)),
                Err(AllocError::OutOfMemory) => return Ok(objects.iter().flatten().count()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The cache in numbers. Context: any but NMI.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.parts()
            .map_or_else(CacheStats::default, |(memory, _, cache)| {
                cache.stats(&memory.platform)
            })
    }

    /// Takes back what CPUs have at hand, and gives empty slabs to the page allocator (Linux:
    /// `kmem_cache_shrink`). Answers how many pages those were. Context: task.
    pub fn shrink(&self) -> u64 {
        self.parts().map_or(0, |(memory, core, cache)| {
            memory.drain_caches(core, |other| other.id() == self.id());
            cache.shrink(&memory.soil(core))
        })
    }

    /// Ends the cache; or this handle, if there are others like it (Linux: `kmem_cache_destroy`). Objects that were
    /// freed with [`kfree_deferred`](super::Memory::kfree_deferred) are waited for. Context: task.
    ///
    /// # Errors
    /// [`StillInUse`]: it goes on as before.
    pub fn destroy(self) -> Result<(), StillInUse<H>> {
        let _ = self.shrink();
        self.wait_for_deferred();
        let given_up = self.parts().map_or(Ok(()), |(memory, core, cache)| {
            let sampled = memory.sampled_of(core, cache);
            match sampled {
                0 => {
                    let given_up = core.caches.give_up(&memory.soil(core), cache);
                    memory.note_cache(core, cache);
                    given_up
                }
                _ => Err(cache
                    .stats(&memory.platform)
                    .active_objects
                    .saturating_add(sampled)),
            }
        });
        given_up.map_err(|objects| StillInUse {
            objects,
            cache: self,
        })
    }

    /// Waits until objects are free that readers may still see, if that is what keeps slabs from going.
    pub(super) fn wait_for_deferred(&self) {
        let Some((memory, core, cache)) = self.parts() else {
            return;
        };
        let is_used =
            cache.stats(memory.platform()).slabs > 0 || memory.sampled_of(core, cache) > 0;
        if is_used && memory.grace().pending() > 0 && memory.grace().barrier().is_ok() {
            let _ = self.shrink();
        }
    }
}

#[cold]
#[expect(clippy::panic, reason = "the flag asks for it")]
fn no_cache(name: &str, error: CacheError) -> ! {
    panic!("no cache `{name}`: {error}")
}
