//! Objects: caches and `kmalloc` on this machine's pages.
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::{AllocError, Core, Home, Memory};
use crate::addr::{Order, Pfn, PhysAddr, VirtAddr, to_count};
use crate::buddy::{Gfp, Request, Trace};
use crate::frame::FrameTable;
use crate::mem::{EarlyRam, Exclusive};
use crate::platform::{CpuId, NodeId, Platform};
use crate::report::Corruption;
use crate::slab::{
    Ask, Cache, CacheError, CacheStats, Caches, Family, Ground, Object, Places, SlabFlags,
    Treatment, Wish, at_hand, cache_of,
};
use crate::sync::Pin;

/// What caches stand on.
pub(crate) struct Soil<'m, P: Platform> {
    memory: &'m Memory<P>,
    core: &'m Core,
}

impl<P: Platform> Ground for Soil<'_, P> {
    type P = P;

    fn platform(&self) -> &P {
        &self.memory.platform
    }

    fn frames(&self) -> &FrameTable {
        &self.core.frames
    }

    fn node_of(&self, cpu: CpuId) -> NodeId {
        self.core.cpus.node(cpu)
    }

    fn alloc_slab_below(&self, gfp: Gfp, order: Order, mask: u64) -> Option<Exclusive> {
        self.memory.alloc_below(self.core, (gfp, order), mask).ok()
    }

    fn alloc_slab(
        &self,
        gfp: Gfp,
        order: Order,
        node: NodeId,
        trace: &mut impl Trace,
    ) -> Option<Exclusive> {
        let request = Request::new(gfp, order).ok()?;
        let here = self.core.cpus.node(Pin::new(self.platform()).cpu());
        if here == node && !gfp.contains(Gfp::THISNODE) {
            // It may come from what this CPU has at hand; a task's policy is asked too.
            return self.memory.alloc_request(&request, trace).ok();
        }
        let node = self.core.node(node)?;
        let found = self.memory.alloc_at(self.core, node.into(), request, trace);
        found.ok()
    }

    fn alloc_room(&self, bytes: u64) -> Option<EarlyRam> {
        let order = Order::for_bytes(bytes)?;
        let request = Request::new(Gfp::KERNEL, order).ok()?;
        let block = self.memory.alloc_request(&request, &mut ()).ok()?;
        Some(EarlyRam::from_block(block))
    }

    fn free_slab(&self, block: Exclusive) {
        self.memory.release(block);
    }

    fn make_way(&self, cache: &Cache) {
        self.core.cpus.make_way(cache);
    }

    fn free_slab_after_grace(&self, block: Exclusive) {
        self.memory.free_block_after_grace(self.core, block);
    }

    fn has_damage(&self) -> bool {
        self.core.caches.has_damage()
    }

    fn damaged(&self, cache: &Cache, slab: Pfn, object: u16) {
        self.core.caches.note_damage();
        let cache = cache.id();
        self.memory.platform.corruption(&Corruption::FreeObject {
            slab,
            object,
            cache,
        });
    }

    fn report(&self, report: &Corruption) {
        self.memory.platform.corruption(report);
    }

    fn places(&self) -> Option<&Places> {
        self.core.caches.places()
    }

    #[inline(always)]
    fn treatment(&self) -> Treatment {
        self.core.caches.treatment()
    }

    fn strikes(&self, cache: &Cache, gfp: Gfp, size: usize) -> bool {
        let faults = &self.core.slab_faults;
        faults.strike_aloud(&self.memory.platform, cache, gfp, size)
    }
}

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
    /// get whole pages. The bytes hold anything, or zeroes with [`Gfp::ZERO`]. They go back by
    /// [`Memory::kfree`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    #[track_caller]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        if let Some(cache) = cache_of(size, Family::of(gfp))
            && let Some(object) = self.object_at_hand(cache)
        {
            return Ok(match gfp.contains(Gfp::ZERO) {
                true => self.zeroed(cache, object),
                false => object.into_raw(),
            });
        }
        self.kmalloc_slow(size, gfp)
    }

    /// An object that this CPU has at hand of a cache.
    #[inline(always)]
    pub(super) fn object_at_hand(&self, cache: usize) -> Option<Object> {
        let pin = Pin::new(&self.platform);
        let here = self.here(&pin)?;
        // Each way lets the pin go by itself: nothing needs to be looked at twice.
        match at_hand::take(&here.ways().other(), cache, P::PROFILE) {
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
        let tag = here.frames().slab_tag_at(at);
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
    fn kmalloc_slow(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        match core.caches.kmalloc(size, Family::of(gfp)) {
            Some(cache) => self.alloc_object(core, cache, (gfp, None), (Ask::bytes(size), &mut ())),
            None => self.kmalloc_pages(core, size, (gfp, None), &mut ()),
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
        match core.caches.kmalloc(size, Family::of(gfp)) {
            Some(cache) => {
                self.alloc_object(core, cache, (gfp, Some(node)), (Ask::bytes(size), &mut ()))
            }
            None => self.kmalloc_pages(core, size, (gfp, Some(node)), &mut ()),
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
        let object = cache.alloc(&self.soil(core), gfp, node, (ask, trace));
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
        let order = Order::for_bytes(to_count(size)).ok_or(AllocError::OutOfMemory)?;
        let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::MOVABLE | Gfp::HIGHMEM) | Gfp::COMP;
        let request = Request::new(gfp, order)?;
        let block = match node.and_then(|node| core.node(node)) {
            Some(node) => self.alloc_at(core, node.into(), request, trace),
            None => self.alloc_request(&request, trace),
        }?;
        match block.as_ptr(&self.platform) {
            Some(first) => {
                let _ = block.leak();
                Ok(first)
            }
            None => {
                self.release(block);
                Err(AllocError::OutOfMemory)
            }
        }
    }

    /// Takes back what CPUs have at hand, and gives empty slabs of all caches to the page allocator.
    /// Answers how many pages those were. Context: task.
    pub fn shrink_caches(&self) -> u64 {
        let Some(core) = self.core() else { return 0 };
        self.drain_caches(core, |_| true);
        core.caches.shrink(&self.soil(core))
    }

    /// Gives empty slabs to the page allocator, without waiting for anybody: those of objects at hand of this CPU
    /// and of CPUs that are away too. Answers how many pages they were. Context: any but NMI.
    pub(super) fn shrink_caches_here(&self, core: &Core) -> u64 {
        let soil = self.soil(core);
        let pin = Pin::new(&self.platform);
        for cache in core
            .caches
            .iter()
            .filter(|cache| cache.has_at_hand(pin.cpu()))
        {
            cache.want_drain(pin.cpu());
            cache.serve(&soil, &pin);
        }
        let here = pin.cpu();
        drop(pin);
        for cpu in core.cpus.presence.cpus().filter(|cpu| *cpu != here) {
            self.drain_caches_of(core, cpu, &|_| true, false);
        }
        core.caches.shrink(&soil)
    }

    /// Has CPUs give back what they have at hand of some caches. Answers whether all did.
    pub(super) fn drain_caches(&self, core: &Core, which: impl Fn(&Cache) -> bool) -> bool {
        let soil = self.soil(core);
        let pin = Pin::new(&self.platform);
        let here = pin.cpu();
        for cache in core.caches.iter().filter(|cache| which(cache)) {
            cache.want_drain(here);
            cache.serve(&soil, &pin);
        }
        drop(pin);
        let others = || core.cpus.presence.cpus().filter(|&cpu| cpu != here);
        for cpu in others() {
            self.drain_caches_of(core, cpu, &which, true);
        }
        let is_drained = || {
            let mut caches = core.caches.iter().filter(|cache| which(cache));
            caches.all(|cache| others().all(|cpu| cache.is_drained(cpu)))
        };
        let mut rounds: u32 = 0;
        while !is_drained() {
            if !self.platform.relax(rounds) {
                return false;
            }
            rounds = rounds.saturating_add(1);
            self.drain_wanted();
            for cpu in others().filter(|&cpu| !core.cpus.presence.is_present(cpu)) {
                self.drain_caches_of(core, cpu, &which, true);
            }
        }
        true
    }

    /// Drains what another CPU has at hand, or asks it to.
    fn drain_caches_of(&self, core: &Core, cpu: CpuId, which: &impl Fn(&Cache) -> bool, ask: bool) {
        let soil = self.soil(core);
        let mut asked = false;
        let irq = self.platform.irq_save();
        let seized = core.cpus.presence.seize(cpu);
        for cache in core.caches.iter().filter(|cache| which(cache)) {
            match &seized {
                Some(seized) if cache.has_at_hand(cpu) || !cache.is_drained(cpu) => {
                    cache.drain_seized(&soil, seized);
                }
                None if ask && cache.has_at_hand(cpu) => {
                    cache.want_drain(cpu);
                    asked = true;
                }
                _ => {}
            }
        }
        drop(seized);
        self.platform.irq_restore(irq);
        if asked && !self.platform.kick(cpu) {
            core.caches
                .iter()
                .for_each(|cache| cache.unless_at_hand_forget_drain(cpu));
        }
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

/// A cache for objects of one size (Linux: `kmem_cache`). It is one for all that are alike, unless
/// [`SlabFlags::NO_MERGE`] forbids that. Dropped without [`Self::destroy`], it stays for good.
pub struct KmemCache<H: Home> {
    id: u16,
    home: H,
}

/// Objects of a cache have not come back.
pub struct StillInUse<H: Home> {
    /// How many, those included that a CPU has at hand which does not answer.
    pub objects: u64,
    /// The cache; nothing has changed.
    pub cache: KmemCache<H>,
}

impl<H: Home> fmt::Display for StillInUse<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::object_owners::write_still_in_use(&self.cache, self.objects, f)
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
    pub(super) const fn of(id: u16, home: H) -> Self {
        Self { id, home }
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

    pub(crate) const fn home(&self) -> H {
        self.home
    }

    pub(crate) fn memory(&self) -> &Memory<H::P> {
        self.home.memory()
    }

    /// Allocates an object (Linux: `kmem_cache_alloc`, and `kmem_cache_zalloc` with [`Gfp::ZERO`]). Context: as
    /// the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    #[track_caller]
    pub fn alloc(&self, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        // Whether its objects may be zeroed is known further on.
        if !gfp.contains(Gfp::ZERO)
            && let Some(object) = self.memory().object_at_hand(usize::from(self.id))
        {
            return Ok(object.into_raw());
        }
        self.alloc_slow(gfp)
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_slow(&self, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let (memory, core, cache) = self.parts().ok_or(AllocError::NotUp)?;
        memory.alloc_object(core, cache, (gfp, None), (Ask::whole(), &mut ()))
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
        memory.alloc_object(core, cache, (gfp, Some(node)), (Ask::whole(), &mut ()))
    }
}
