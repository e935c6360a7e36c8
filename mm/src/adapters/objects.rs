//! Objects by address (Linux: `kfree`, `kmem_cache_free`, …).

use core::ptr::NonNull;

use crate::buddy::{Gfp, Told};
use crate::frame::{FrameState, FrameTable, Offer, SlabFrame};
use crate::platform::{Platform, Profile};
use crate::slab::{Ask, BadFree, Cache, Neighbours, Object};
use crate::system::{AllocError, Core, Home, KmemCache, Memory};

/// Objects that are given back under one pin.
const BULK: usize = 32;

impl<P: Platform> Memory<P> {
    /// Gives back what [`Memory::kmalloc`] or a cache handed out (Linux: `kfree`). Context: any but NMI.
    ///
    /// # Errors
    /// [`BadFree`]; nothing is changed then. The plain profile looks for less.
    ///
    /// # Safety
    ///
    /// The caller owns the object, and nobody uses its bytes any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn kfree(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        // SAFETY: the caller owns it, if it is one, and gives it up; the record of its frame says which cache it
        // is of.
        let offered = unsafe { Object::given_up(object) };
        match self.put_at_hand(offered, |_| true) {
            Ok(()) => Ok(()),
            // SAFETY: the caller's word, passed on.
            Err(object) => unsafe { self.kfree_block(object.into_raw()) },
        }
    }

    /// What is no object at hand may be a block of pages that this CPU has a list for.
    ///
    /// # Safety
    ///
    /// As [`Self::kfree`].
    #[inline(never)]
    #[track_caller]
    unsafe fn kfree_block(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        let at = self.physical(object).filter(|at| *at == at.frame().addr());
        let is_kept = at.is_some_and(|at| {
            // SAFETY: the caller owns the pages, if it is a block of them, and gives them up.
            let offer = |frames: &FrameTable| unsafe { frames.offer::<P>(at.frame()) };
            self.release_at_hand(offer, &mut Told(self.platform()))
        });
        if is_kept {
            return Ok(());
        }
        // SAFETY: the caller's word, passed on; nothing has changed.
        unsafe { self.kfree_slow(object) }
    }

    /// # Safety
    ///
    /// As [`Self::kfree`].
    #[cold]
    #[inline(never)]
    #[track_caller]
    unsafe fn kfree_slow(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        let core = self.core().ok_or(BadFree::NotASlab)?;
        let at = self.physical(object).ok_or(BadFree::NotASlab)?;
        if let Some(kfence) = core.kfence_at(at) {
            // SAFETY: the caller owns it, and gives it up; the pool knows which cache it is of.
            let object = unsafe { Object::given_up(object) };
            return self.free_sampled(core, kfence, object, (Ask::whole(), None));
        }
        let frame = core.frames.frame(at.frame()).ok_or(BadFree::NotASlab)?;
        let word = frame.word();
        if word.is_compound_block() && at == at.frame().addr() {
            let offer = |frames: &FrameTable| {
                // SAFETY: the caller owns the pages and gives them up.
                unsafe { frames.offer_by_section(at.frame()) }.map(Offer::split)
            };
            let given = self.release_offer(offer, word.order(), &mut Told(self.platform()));
            return given.map_err(|_| BadFree::NotASlab);
        }
        match self.slab_of(object) {
            // SAFETY: the caller's word, passed on.
            Some(slab) => unsafe { self.free_object(slab, object) },
            // SAFETY: as above.
            None => unsafe { self.kfree_pages(object) },
        }
    }

    fn slab_of(&self, object: NonNull<u8>) -> Option<SlabFrame<'_>> {
        let pfn = self.physical(object)?.frame();
        self.core()?.frames.slab_at(pfn)
    }

    /// # Safety
    ///
    /// As [`Self::kfree`].
    #[track_caller]
    unsafe fn free_object(&self, slab: SlabFrame<'_>, object: NonNull<u8>) -> Result<(), BadFree> {
        let core = self.core().ok_or(BadFree::NotASlab)?;
        let cache = core.caches.get(slab.cache).ok_or(BadFree::NotASlab)?;
        // SAFETY: the caller owns it, and gives it up; its frame says which cache it is of.
        let object = unsafe { Object::given_up(object) };
        cache.free(&self.soil(core), slab, object, Ask::whole())
    }

    /// How many bytes the owner of an object of a debugged cache asked for.
    pub(crate) fn asked_size(&self, object: NonNull<u8>) -> Option<usize> {
        let (core, cache) = self.cache_around(object)?;
        cache.asked(&self.soil(core), object)
    }

    /// The cache that an object is of, as its frame says.
    fn cache_around(&self, object: NonNull<u8>) -> Option<(&Core, &Cache)> {
        let (core, slab) = self.core().zip(self.slab_of(object))?;
        Some((core, core.caches.get(slab.cache)?))
    }

    /// From now on its owner has so many bytes of an object of a debugged cache.
    ///
    /// # Safety
    ///
    /// The caller owns the object, and does not use what is behind these bytes.
    unsafe fn ask_anew(&self, object: NonNull<u8>, size: usize) {
        if let Some((core, cache)) = self.cache_around(object) {
            // SAFETY: the caller owns it, and has it again right here.
            let object = unsafe { Object::given_up(object) };
            let _ = cache.ask_anew(&self.soil(core), object, size).into_raw();
        }
    }

    /// Whether an object holds what only free ones hold.
    fn is_marked_free(&self, object: NonNull<u8>) -> bool {
        self.cache_around(object).is_some_and(|(core, cache)| {
            // SAFETY: its frame says which cache it is of. It is only looked at: whoever has it keeps it.
            let offered = unsafe { Object::given_up(object) };
            cache.is_marked_free(&self.soil(core), &offered)
        })
    }

    /// # Safety
    ///
    /// As [`Self::kfree`].
    #[inline(never)]
    unsafe fn kfree_pages(&self, first: NonNull<u8>) -> Result<(), BadFree> {
        let core = self.core().ok_or(BadFree::NotASlab)?;
        let physical = self.physical(first).ok_or(BadFree::NotASlab)?;
        let pfn = physical.frame();
        // SAFETY: the caller owns the pages and gives them up.
        if let Some(run) = unsafe { core.frames.end_run_at(physical) } {
            self.release_run(core, run);
            return Ok(());
        }
        let word = core.frames.frame(pfn).ok_or(BadFree::NotASlab)?.word();
        Err(match word.state() {
            Some(FrameState::Free | FrameState::Cached) => BadFree::AlreadyFree,
            _ if word.is_compound_block() => BadFree::NotAnObject,
            _ => BadFree::NotASlab,
        })
    }

    /// Changes how many bytes an object has (Linux: `krealloc`): in place where it fits. What is there stays; what is
    /// new holds anything, or zeroes with [`Gfp::ZERO`]. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`]; the object is the caller's as before.
    ///
    /// # Safety
    ///
    /// `object` has at least `old` bytes, the caller owns it, and does not use it any more after success.
    #[track_caller]
    pub unsafe fn krealloc(
        &self,
        object: NonNull<u8>,
        (old, new): (usize, usize),
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let (room, is_guarded) = self.room_of(object).unwrap_or_default();
        let fits = new <= room && (room <= 64 || new > room / 4);
        let stays = || {
            if is_guarded {
                // SAFETY: the caller owns the object, and asks for as many.
                unsafe { self.ask_anew(object, new) };
            }
            if gfp.contains(Gfp::ZERO) && new > old {
                // SAFETY: within the object.
                let added = unsafe { object.add(old) };
                // SAFETY: as above; the object is the caller's.
                unsafe { added.write_bytes(0, new.wrapping_sub(old)) };
            }
            object
        };
        if fits {
            return Ok(stays());
        }
        let moved = match self.kmalloc(new, gfp) {
            Ok(moved) => moved,
            // It need not be smaller.
            Err(_) if new <= room => return Ok(stays()),
            Err(error) => return Err(error),
        };
        // SAFETY: both are that large, and different objects.
        unsafe { moved.copy_from_nonoverlapping(object, old.min(new)) };
        // SAFETY: the caller gives it up.
        if unsafe { self.kfree(object) }.is_err() {
            self.lose_object(object);
        }
        Ok(moved)
    }

    /// Gives an object back after its bytes were wiped (Linux: `kfree_sensitive`). Context: any
    /// but NMI.
    ///
    /// # Errors
    /// As [`Self::kfree`].
    ///
    /// # Safety
    /// As [`Self::kfree`].
    #[track_caller]
    pub unsafe fn kfree_sensitive(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        let size = self.ksize(object).ok_or(BadFree::NotASlab)?;
        // It would not be known any more if it were wiped.
        if self.is_marked_free(object) {
            return Err(BadFree::AlreadyFree);
        }
        for at in 0..size {
            // SAFETY: within the object.
            let byte = unsafe { object.add(at) };
            // SAFETY: as above; the object is the caller's. Volatile: nobody reads it again, and it is
            // written all the same.
            unsafe { byte.write_volatile(0) };
        }
        // SAFETY: the caller's word.
        unsafe { self.kfree(object) }
    }

    /// Gives objects of any caches back, and empties their places (Linux: `kfree_bulk`). Context: any
    /// but NMI.
    ///
    /// # Errors
    /// The first [`BadFree`] with its place; those before it were given back.
    ///
    /// # Safety
    /// As [`Self::kfree`], for each.
    #[track_caller]
    pub unsafe fn kfree_bulk(
        &self,
        objects: &mut [Option<NonNull<u8>>],
    ) -> Result<(), (usize, BadFree)> {
        for (place, object) in objects.iter_mut().enumerate() {
            if let Some(found) = *object {
                // SAFETY: the caller's word.
                unsafe { self.kfree(found) }.map_err(|error| (place, error))?;
                *object = None;
            }
        }
        Ok(())
    }
}

impl<H: Home> KmemCache<H> {
    /// Gives an object back (Linux: `kmem_cache_free`). Context: any but NMI.
    ///
    /// In the plain profile a cache takes its caller's word for it whose object it is, as Linux does without
    /// `CONFIG_SLAB_FREELIST_HARDENED`, on machines of one node.
    ///
    /// # Errors
    /// [`BadFree`]; nothing is changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the object, and nobody uses its bytes any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn free(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        // SAFETY: the caller owns it, and gives it up: it says that it is of this cache.
        let mut offered = unsafe { Object::given_up(object) };
        if H::P::PROFILE == Profile::Plain {
            match self.memory().put_trusted(offered, self.way()) {
                Ok(()) => return Ok(()),
                Err(object) => offered = object,
            }
        }
        let is_ours = |cache| cache == self.id();
        match self.memory().put_at_hand(offered, is_ours) {
            Ok(()) => Ok(()),
            // SAFETY: the caller's word, passed on.
            Err(object) => unsafe { self.free_slow(object.into_raw()) },
        }
    }

    /// Gives objects back, and empties their places, many under one pin (Linux: `kmem_cache_free_bulk`). Context: any
    /// but NMI.
    ///
    /// # Errors
    /// The first [`BadFree`] with its place; those before it were given back.
    ///
    /// # Safety
    /// As [`Self::free`], for each.
    #[track_caller]
    pub unsafe fn free_bulk(
        &self,
        objects: &mut [Option<NonNull<u8>>],
    ) -> Result<(), (usize, BadFree)> {
        if H::P::PROFILE == Profile::Plain {
            let given = objects.iter_mut().map_while(|place| {
                // SAFETY: the caller's word.
                Some(unsafe { Object::given_up(place.take()?) })
            });
            if self.memory().put_many_trusted(given, self.way()) == objects.len() {
                return Ok(());
            }
        }
        // SAFETY: the caller's word, passed on.
        unsafe { self.free_others(objects) }
    }

    /// The same for those that somebody has to look at.
    ///
    /// # Safety
    /// As [`Self::free`], for each.
    #[inline(never)]
    #[track_caller]
    unsafe fn free_others(
        &self,
        objects: &mut [Option<NonNull<u8>>],
    ) -> Result<(), (usize, BadFree)> {
        let memory = self.memory();
        let none = (0, BadFree::NotASlab);
        let core = memory.core().ok_or(none)?;
        let cache = core.caches.get(self.id()).ok_or(none)?;
        let is_guarded = cache.shape().is_some_and(|shape| shape.is_guarded());
        if is_guarded || memory.are_sampled(core, objects) {
            for (number, place) in objects.iter_mut().enumerate() {
                let Some(object) = *place else { continue };
                // SAFETY: the caller's word.
                unsafe { self.free(object) }.map_err(|error| (number, error))?;
                *place = None;
            }
            return Ok(());
        }
        let soil = memory.soil(core);
        // Neighbours are in the same page more often than not.
        let mut page = Neighbours::NONE;
        let offered = objects.iter_mut().map_while(|place| {
            let object = (*place)?;
            if !page.contains(object) {
                let at = memory.physical(object)?;
                page = Neighbours::around(object, at, core.frames.slab_tag_at::<H::P>(at)?);
            }
            *place = None;
            // SAFETY: the caller's word; those whose record names another cache are not taken.
            Some((unsafe { Object::given_up(object) }, page.known_of(object)))
        });
        let (done, refused) = cache.put_back_many(&soil, offered);
        if let (Some(place), Some(object)) = (objects.get_mut(done), refused) {
            *place = Some(object.into_raw());
        }
        let rest = objects.get_mut(done..).unwrap_or_default();
        for (first, some) in (done..).step_by(BULK).zip(rest.chunks_mut(BULK)) {
            let mut given = [const { None }; BULK];
            let mut bad = None;
            for (number, (place, given)) in some.iter().zip(&mut given).enumerate() {
                let Some(object) = *place else { continue };
                match memory.slab_of(object) {
                    Some(slab) if slab.cache == self.id() => {
                        // SAFETY: the caller's word; its frame says that it is of this cache.
                        *given = Some((slab, unsafe { Object::given_up(object) }));
                    }
                    Some(_) => bad = Some((number, BadFree::OtherCache)),
                    None => bad = Some((number, BadFree::NotASlab)),
                }
                if bad.is_some() {
                    break;
                }
            }
            let freed = cache.free_many(&soil, &mut given);
            let bad = freed.err().or(bad);
            let good = bad.map_or(some.len(), |(number, _)| number);
            some.iter_mut().take(good).for_each(|place| *place = None);
            if let Some((number, error)) = bad {
                return Err((number.wrapping_add(first), error));
            }
        }
        Ok(())
    }

    /// # Safety
    ///
    /// As [`Self::free`].
    #[cold]
    #[inline(never)]
    #[track_caller]
    unsafe fn free_slow(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        let memory = self.memory();
        let at = memory.core().zip(memory.physical(object));
        if let Some((core, kfence)) = at.and_then(|(core, at)| Some((core, core.kfence_at(at)?))) {
            // SAFETY: as in `kfree`; the pool looks whether it is of this cache.
            let object = unsafe { Object::given_up(object) };
            return memory.free_sampled(core, kfence, object, (Ask::whole(), Some(self.id())));
        }
        let slab = memory.slab_of(object).ok_or(BadFree::NotASlab)?;
        if slab.cache != self.id() {
            return Err(BadFree::OtherCache);
        }
        // SAFETY: the caller's word, passed on.
        unsafe { memory.free_object(slab, object) }
    }
}
