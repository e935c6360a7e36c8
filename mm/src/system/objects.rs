//! Objects: caches and `kmalloc` on this machine's pages.
#![forbid(unsafe_code)]

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use super::alloc::InRegisters;
use super::large::pages_request;
use super::soil::Soil;
use super::{AllocError, Core, Home, Memory};
use crate::addr::{PhysAddr, VirtAddr};
use crate::buddy::{Gfp, Told, Trace};
use crate::platform::{NodeId, Platform, Profile};
use crate::report::Corruption;
use crate::slab::at_hand::OwnWay;
use crate::slab::{
    Ask, Cache, CacheError, CacheStats, Caches, Object, SlabFlags, Wish, at_hand, cache_for,
};
use crate::sync::Pin;

/// What pages are aligned to, at least.
const PAGE_ALIGN: usize = crate::addr::to_index(crate::config::PAGE_SIZE);

impl<P: Platform> Memory<P> {
    pub(crate) const fn soil<'m>(&'m self, core: &'m Core) -> Soil<'m, P> {
        Soil { memory: self, core }
    }

    /// All caches.
    pub(crate) fn caches(&self) -> Option<&Caches> {
        Some(&self.core()?.caches)
    }

    /// Allocates `size` bytes (Linux: `kmalloc`). A size that is a power of two is aligned to itself, up to a
    /// page. Larger requests than [`KMALLOC_MAX_CACHE_SIZE`](crate::slab::KMALLOC_MAX_CACHE_SIZE)
    /// get whole pages: a block of them, and above the largest order (4 MiB) just as many as are needed, from
    /// pageblocks that are free as a whole; memory policies do not count for those. So do requests for
    /// [`Gfp::DMA32`] of any size, which no cache serves; [`Gfp::HIGHMEM`] and [`Gfp::MOVABLE`] mean nothing
    /// here. The bytes hold anything, or zeroes with [`Gfp::ZERO`]. They go back by [`Memory::kfree`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    #[track_caller]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        match cache_for(size, gfp) {
            Some(cache) => {
                if let Some(object) = self.object_at_hand(cache) {
                    return Ok(match gfp.contains(Gfp::ZERO) {
                        true => self.zeroed(cache, object),
                        false => object.into_raw(),
                    });
                }
            }
            None => {
                if let Some(first) =
                    pages_request(size, gfp).and_then(|pages| self.pages_at_hand(pages))
                {
                    return Ok(first);
                }
            }
        }
        self.kmalloc_slow(size, gfp).into_result()
    }

    /// An object that this CPU has at hand of a cache.
    #[inline(always)]
    pub(super) fn object_at_hand(&self, cache: usize) -> Option<Object> {
        self.object_by(|here| at_hand::take(here, cache, P::PROFILE))
    }

    /// The same for a cache that knows its own way.
    #[inline(always)]
    fn own_object_at_hand(&self, way: OwnWay) -> Option<Object> {
        self.object_by(|here| at_hand::take_own(here, way, P::PROFILE))
    }

    #[inline(always)]
    fn object_by(
        &self,
        take: impl FnOnce(&at_hand::Here<'_>) -> Result<(Object, bool), bool>,
    ) -> Option<Object> {
        let pin = Pin::new(&self.platform);
        let here = self.here(&pin)?;
        // Each way lets the pin go by itself: nothing needs to be looked at twice.
        match take(&here.ways().other()) {
            Ok((object, is_drain_wanted)) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                Some(object)
            }
            Err(is_drain_wanted) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                None
            }
        }
    }

    /// Hands an object of a cache out, zeroed.
    #[inline(never)]
    fn zeroed(&self, cache: usize, mut object: Object) -> NonNull<u8> {
        let id = u16::try_from(cache).ok();
        let cache = id.and_then(|id| self.caches()?.get(id));
        if let Some(shape) = cache.and_then(Cache::shape) {
            object.zero(&shape);
        }
        object.into_raw()
    }

    /// Puts an object to those that this CPU has at hand, if its cache is one that `is_right` says so of.
    ///
    /// # Errors
    /// The object, if that is not possible, or it is none.
    #[inline(always)]
    pub(crate) fn put_at_hand(
        &self,
        object: Object,
        is_right: impl FnOnce(u16) -> bool,
    ) -> Result<(), Object> {
        let pin = Pin::new(&self.platform);
        let at = self.physical(object.as_ptr());
        let Some((here, at)) = self.here(&pin).zip(at) else {
            return Err(object);
        };
        let tag = here.frames().slab_tag_at::<P>(at);
        let Some(tag) = tag.filter(|tag| is_right(tag.cache())) else {
            return Err(object);
        };
        let known = (tag, at.as_u64());
        match at_hand::put(&here.ways().other(), object, known, P::PROFILE) {
            Ok(is_drain_wanted) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                Ok(())
            }
            Err((object, is_drain_wanted)) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                Err(object)
            }
        }
    }

    /// Puts an object to those that this CPU has at hand of the cache that the caller says it is of, where that is enough.
    ///
    /// # Errors
    /// The object, if it is not, or there is no room.
    #[inline(always)]
    pub(crate) fn put_trusted(&self, object: Object, way: OwnWay) -> Result<(), Object> {
        let pin = Pin::new(&self.platform);
        let Some(here) = self.here(&pin) else {
            return Err(object);
        };
        match at_hand::put_trusted(&here.ways().other(), way, object) {
            Ok(is_drain_wanted) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                Ok(())
            }
            Err((object, is_drain_wanted)) => {
                if is_drain_wanted {
                    self.serve_drains_here();
                }
                drop(pin);
                Err(object)
            }
        }
    }

    /// The same for many, as long as there is room. Answers how many went there.
    #[inline(always)]
    pub(crate) fn put_many_trusted(
        &self,
        objects: impl Iterator<Item = Object>,
        way: OwnWay,
    ) -> usize {
        let pin = Pin::new(&self.platform);
        let Some(here) = self.here(&pin) else {
            return 0;
        };
        let (came, is_drain_wanted) = at_hand::put_many_trusted(&here.ways().other(), way, objects);
        if is_drain_wanted {
            self.serve_drains_here();
        }
        came
    }

    /// Where an object is, if it is anywhere.
    #[inline(always)]
    pub(crate) fn physical(&self, object: NonNull<u8>) -> Option<PhysAddr> {
        let address = VirtAddr::from_ptr(object.as_ptr());
        match self.platform.direct_map_base() {
            Some(base) => {
                let offset = address.as_u64().wrapping_sub(base.as_u64());
                Some(PhysAddr::new(offset))
            }
            None => self.platform.virt_to_phys(address),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn kmalloc_slow(&self, size: usize, gfp: Gfp) -> InRegisters<NonNull<u8>> {
        InRegisters::new(self.kmalloc_anew(size, gfp), NonNull::dangling())
    }

    #[track_caller]
    fn kmalloc_anew(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        match core.caches.kmalloc(size, gfp) {
            Some(cache) => self.alloc_object(
                core,
                cache,
                (gfp, None),
                (Ask::bytes(size), &mut Told(&self.platform)),
            ),
            None => self.kmalloc_pages(core, size, (gfp, None), &mut Told(&self.platform)),
        }
    }

    /// As [`Self::kmalloc`], zeroed (Linux: `kzalloc`). Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn kzalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kmalloc(size, gfp | Gfp::ZERO)
    }

    /// Room for `count` elements of `size` bytes, zeroed (Linux: `kcalloc`). Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] also if there is no such size.
    #[track_caller]
    pub fn kcalloc(&self, count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let bytes = count.checked_mul(size).ok_or(AllocError::OutOfMemory)?;
        self.kzalloc(bytes, gfp)
    }

    /// As [`Self::kmalloc`], from a node's memory (Linux: `kmalloc_node`): if there is any, or only there
    /// with [`Gfp::THISNODE`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn kmalloc_node(
        &self,
        size: usize,
        gfp: Gfp,
        node: NodeId,
    ) -> Result<NonNull<u8>, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        core.node(node).ok_or(AllocError::NoSuchNode)?;
        match core.caches.kmalloc(size, gfp) {
            Some(cache) => self.alloc_object(
                core,
                cache,
                (gfp, Some(node)),
                (Ask::bytes(size), &mut Told(&self.platform)),
            ),
            None => self.kmalloc_pages(core, size, (gfp, Some(node)), &mut Told(&self.platform)),
        }
    }

    #[inline(never)]
    pub(super) fn alloc_object(
        &self,
        core: &Core,
        cache: &Cache,
        (gfp, node): (Gfp, Option<NodeId>),
        (ask, trace): (Ask, &mut impl Trace),
    ) -> Result<NonNull<u8>, AllocError> {
        if gfp.contains(Gfp::ZERO) && cache.has_ctor() {
            return Err(AllocError::Constructed);
        }
        if let Some(object) = self.sampled(core, cache, (gfp, node), ask) {
            return Ok(object.into_raw());
        }
        let object = cache.alloc(&self.soil(core), gfp, node, (ask, trace));
        if let Some(kfence) = &core.kfence {
            kfence.pass(&self.platform, cache);
        }
        object
            .map(Object::into_raw)
            .map_err(|_| AllocError::OutOfMemory)
    }

    #[inline(never)]
    pub(super) fn kmalloc_pages(
        &self,
        core: &Core,
        size: usize,
        (gfp, node): (Gfp, Option<NodeId>),
        trace: &mut impl Trace,
    ) -> Result<NonNull<u8>, AllocError> {
        let layout = Layout::from_size_align(size, PAGE_ALIGN);
        let layout = layout.map_err(|_| AllocError::OutOfMemory)?;
        self.kmalloc_large(core, layout, (gfp, node), trace)
    }

    /// Reports an object that an owner cannot give back: somebody wrote to what says whose it is.
    #[cold]
    pub(crate) fn lose_object(&self, object: NonNull<u8>) {
        let physical = self.physical(object).unwrap_or_default();
        let pfn = physical.frame();
        let offset = physical.offset_from(pfn.addr()).unwrap_or_default();
        let offset = u16::try_from(offset).unwrap_or_default();
        self.platform
            .corruption(&Corruption::LostObject { pfn, offset });
    }

    /// Recounts the slabs of all caches. Context: task.
    ///
    /// # Errors
    /// The first [`Corruption`].
    pub fn validate_caches(&self) -> Result<(), Corruption> {
        let Some(core) = self.core() else {
            return Ok(());
        };
        let soil = self.soil(core);
        let mut caches = core.caches.iter();
        caches.try_for_each(|cache| cache.validate(&soil))
    }

    /// Shows every cache, those of `kmalloc` first: its name, and its numbers. Context: task.
    pub fn for_each_cache(&self, mut each: impl FnMut(&str, CacheStats)) {
        let caches = self.caches().into_iter().flat_map(Caches::iter);
        for cache in caches {
            each(
                cache.name(&self.platform).as_str(),
                cache.stats(&self.platform),
            );
        }
    }
}

impl Core {
    /// Whether a cache takes its caller's word for it whose object it is given: in the plain profile, where no object is
    /// looked at, none is another node's, and none is the guard pool's.
    pub(super) fn trusts_callers<P: Platform>(&self) -> bool {
        P::PROFILE == Profile::Plain && self.nodes.len() < 2 && self.kfence.is_none()
    }
}

/// A cache for objects of one size (Linux: `kmem_cache`). It is one for all that are alike, unless
/// [`SlabFlags::NO_MERGE`] forbids that. Dropped without [`Self::destroy`], it stays for good.
pub struct KmemCache<H: Home> {
    id: u16,
    way: OwnWay,
    home: H,
}

/// Objects of a cache have not come back. [`KmemCache::for_each_owner`] knows who has them; as text it tells how
/// many they are, and asks nobody for that: it may be written with locks held, by a logger.
pub struct StillInUse<H: Home> {
    /// How many, those included that a CPU has at hand which does not answer.
    pub objects: u64,
    /// The cache; nothing has changed.
    pub cache: KmemCache<H>,
}

impl<H: Home> fmt::Display for StillInUse<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects", self.objects)?;
        if let Some((memory, _, cache)) = self.cache.parts() {
            write!(f, " of cache {}", cache.name_at_once(&memory.platform))?;
        }
        f.write_str(" have not come back")
    }
}

impl<H: Home> fmt::Debug for StillInUse<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StillInUse")
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

impl<H: Home> fmt::Debug for KmemCache<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmemCache")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<H: Home> KmemCache<H> {
    /// A cache for objects of `size` bytes with an alignment (Linux: `kmem_cache_create`). The name is for
    /// people; 31 bytes of it are kept. Context: task.
    ///
    /// # Errors
    /// [`CacheError`].
    ///
    /// # Panics
    /// Instead, with [`SlabFlags::PANIC`].
    pub fn create(
        home: H,
        name: &str,
        (size, align): (usize, usize),
        flags: SlabFlags,
    ) -> Result<Self, CacheError> {
        Self::made(home, Wish::new(name, (size, align), flags))
    }

    /// The handle to a cache.
    pub(super) fn of(id: u16, home: H) -> Self {
        let way = OwnWay::of(id);
        Self { id, way, home }
    }

    pub(super) fn parts(&self) -> Option<(&Memory<H::P>, &Core, &Cache)> {
        let memory = self.home.memory();
        let core = memory.core()?;
        Some((memory, core, core.caches.get(self.id)?))
    }

    /// Its number; [`BadFree::OtherCache`](crate::slab::BadFree) is told by it.
    pub(crate) const fn id(&self) -> u16 {
        self.id
    }

    /// Its way to what CPUs have at hand.
    pub(crate) const fn way(&self) -> OwnWay {
        self.way
    }

    pub(crate) const fn home(&self) -> H {
        self.home
    }

    pub(crate) fn memory(&self) -> &Memory<H::P> {
        self.home.memory()
    }

    /// Allocates an object (Linux: `kmem_cache_alloc`, and `kmem_cache_zalloc` with [`Gfp::ZERO`]). Where it lies is
    /// the cache's to say ([`SlabFlags::CACHE_DMA32`] and the like): flags for zones mean nothing here. Context: as
    /// the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    #[track_caller]
    pub fn alloc(&self, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        // Whether its objects may be zeroed is known further on.
        if !gfp.contains(Gfp::ZERO)
            && let Some(object) = self.memory().own_object_at_hand(self.way)
        {
            return Ok(object.into_raw());
        }
        self.alloc_slow(gfp).into_result()
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_slow(&self, gfp: Gfp) -> InRegisters<NonNull<u8>> {
        InRegisters::new(self.alloc_anew(gfp), NonNull::dangling())
    }

    #[track_caller]
    fn alloc_anew(&self, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let (memory, core, cache) = self.parts().ok_or(AllocError::NotUp)?;
        memory.alloc_object(
            core,
            cache,
            (gfp, None),
            (Ask::whole(), &mut Told(memory.platform())),
        )
    }

    /// As [`Self::alloc`], from a node's memory if there is any (Linux: `kmem_cache_alloc_node`). Context:
    /// as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn alloc_node(&self, gfp: Gfp, node: NodeId) -> Result<NonNull<u8>, AllocError> {
        let (memory, core, cache) = self.parts().ok_or(AllocError::NotUp)?;
        core.node(node).ok_or(AllocError::NoSuchNode)?;
        memory.alloc_object(
            core,
            cache,
            (gfp, Some(node)),
            (Ask::whole(), &mut Told(memory.platform())),
        )
    }
}
