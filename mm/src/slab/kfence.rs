//! The sampling guard pool (Linux: KFENCE): a few objects that no wrong access to goes unnoticed.
//!
//! Some of the objects that caches hand out are not from slabs: each is alone on a page, at its start or its end,
//! and the pages around it cannot be touched. Who runs over its end, or uses it after it was freed, causes a
//! page fault, and the platform asks here what that was. What runs over the other end is found when the object
//! is freed: the rest of its page holds a pattern. A page whose object was freed cannot be touched either, for as
//! long as others are free longer.
//!
//! ```text
//! page   0  1  2  3  4  5  …  510  511
//!        –  –  0  –  1  –     254  –      number of the object; – cannot be touched
//! ```
//!
//! Which objects these are is decided where a cache has none at hand, so that what is at hand costs as much as it does
//! without. One in so many allocations is to be sampled, and each such request stands for as many as objects are at
//! hand behind it. A CPU that takes and puts the same objects over and over is not seen.
#![forbid(unsafe_code)]

mod slots;
mod stats;

pub use stats::KfenceStats;

use super::SlabFlags;
use super::cache::{BadFree, Cache};
use super::debug::{Ask, Layout};
use super::ground::Ground;
use super::object::{Fresh, Object, PoolMemory};
use crate::addr::{PhysAddr, PhysRange, to_index};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;
use crate::mem::{Array, EarlyRam};
use crate::platform::{PageAccess, Platform, ProtectPageError};
use crate::report::{AccessKind, KfenceError, KfenceObject, KfenceReport, ObjectOrigin};
use crate::sync::atomic::{AtomicU64, Ordering, spin_loop};
use crate::sync::{IrqGuard, Pin, SpinLock, rank};
use slots::{Slot, Slots, State};

/// Objects of the pool (Linux: `CONFIG_KFENCE_NUM_OBJECTS`).
pub const KFENCE_OBJECTS: usize = 255;
const PAGE: usize = to_index(PAGE_SIZE);
/// Two pages for each object, and two before the first.
const PAGES: usize = 2 * (KFENCE_OBJECTS + 1);
/// Its bytes, which are its alignment too: one large page.
const BYTES: u64 = 512 * PAGE_SIZE;
/// How often a fault tries to get the lock: its holder may be what was interrupted.
const TRIES: u32 = 1 << 20;

/// What a free leaves to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freed {
    /// Nothing.
    Now,
    /// Readers may look at the object still: it is to be freed again, as one that nobody sees, after a
    /// grace period.
    AfterGrace,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Kfence {
    slots: SpinLock<Slots>,
    range: PhysRange,
    /// One allocation in so many is sampled; none, if it is 0.
    interval: AtomicU64,
    /// Allocations before the next one that is; signed, for more are seen at a time than are missing.
    left: AtomicU64,
    incompatible: AtomicU64,
}

impl Kfence {
    /// Memory for the pool: how much, and to what it is aligned.
    pub(crate) const POOL: (u64, u64) = (BYTES, BYTES);

    /// Memory for what is known of its objects.
    pub(crate) fn table_bytes() -> u64 {
        Array::<Slot>::bytes_for(KFENCE_OBJECTS).unwrap_or(u64::MAX)
    }

    /// A pool all of whose pages are out of reach, from whose objects one in `interval` allocations gets one.
    ///
    /// # Errors
    /// Why there cannot be one, with the memory of its pages.
    pub(crate) fn new<P: Platform>(
        platform: &P,
        (pool, table): (EarlyRam, EarlyRam),
        interval: u64,
        seed: u64,
    ) -> Result<Self, (ProtectPageError, Option<EarlyRam>)> {
        let range = pool.range();
        let unsupported = ProtectPageError::Unsupported;
        // Whoever cannot do it says so at the first page.
        if let Err(error) = platform.protect_page(range.start(), PageAccess::None) {
            return Err((error, Some(pool)));
        }
        let memory = PoolMemory::new(platform, pool).map_err(|ram| (unsupported, Some(ram)))?;
        for page in 1..PAGES {
            let out = platform.protect_page(memory.page(page), PageAccess::None);
            out.map_err(|error| (error, None))?;
        }
        let table = Array::carve(platform, table, KFENCE_OBJECTS, Slot::unused);
        let table = table.map_err(|_| (unsupported, None))?;
        Ok(Self {
            slots: SpinLock::new(rank::SLAB, Slots::new(memory, table, seed)),
            range,
            interval: AtomicU64::new(interval),
            left: AtomicU64::new(interval.saturating_sub(1)),
            incompatible: AtomicU64::new(0),
        })
    }

    /// Whether an address is in the pool. Context: any.
    #[inline]
    pub(crate) fn contains(&self, at: PhysAddr) -> bool {
        self.range.contains(at)
    }

    /// One allocation in so many is sampled from now on; none, if it is 0. Context: any.
    pub(crate) fn set_interval(&self, interval: u64) {
        self.interval.store(interval, Ordering::Relaxed);
        self.left
            .store(interval.saturating_sub(1), Ordering::Relaxed);
    }

    /// Whether this allocation is to be sampled.
    fn is_due(&self) -> bool {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return false;
        }
        let next = |left: u64| {
            let is_due = left.cast_signed() <= 0;
            is_due.then(|| left.wrapping_add(interval).wrapping_sub(1))
        };
        let (set, load) = (Ordering::Relaxed, Ordering::Relaxed);
        self.left.fetch_update(set, load, next).is_ok()
    }

    /// Takes note of an allocation that was not, and of those to come that will not be seen: this CPU has objects at
    /// hand for them.
    #[cold]
    pub(crate) fn pass<P: Platform>(&self, platform: &P, cache: &Cache) {
        let at_hand = cache.at_hand_of(Pin::new(platform).cpu());
        let seen = u64::from(at_hand).saturating_add(1);
        let next = |left: u64| Some(left.wrapping_sub(seen)).filter(|_| left.cast_signed() > 0);
        let (set, load) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.left.fetch_update(set, load, next);
    }

    /// Takes an object for an owner, if it is one's turn and the request can have one. Context: as the
    /// cache's; no lock held.
    #[cold]
    #[inline(never)]
    pub(crate) fn sample<G: Ground>(
        &self,
        ground: &G,
        cache: &Cache,
        gfp: Gfp,
        ask: Ask,
    ) -> Option<Object> {
        let shape = cache.shape()?;
        if !self.is_due() {
            return None;
        }
        let size = ask.size.unwrap_or(shape.size()).max(1);
        let flags = cache.flags();
        let zones = SlabFlags::CACHE_DMA | SlabFlags::CACHE_DMA32;
        let not_for_it = zones | SlabFlags::SKIP_KFENCE | SlabFlags::FAILSLAB;
        if size > PAGE || flags.intersects(not_for_it) || gfp.contains(Gfp::THISNODE) {
            self.incompatible.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let platform = ground.platform();
        let made = Slot {
            state: State::Live,
            size: narrow(size),
            cache: cache.id(),
            name: cache.name(platform),
            is_rcu: flags.contains(SlabFlags::TYPESAFE_BY_RCU),
            allocated: Some(origin(platform, &ask)),
            ..Slot::unused(0)
        };
        // What objects lie apart is a multiple of their alignment; so is what is in front of those that have
        // something around them.
        let apart = match shape.is_guarded() {
            true => shape.stride() | Layout::of(&shape).left(),
            false => shape.stride(),
        };
        let align = 1_usize << apart.trailing_zeros().min(12);
        let mut slots = self.slots.lock(platform);
        let mut fresh: Fresh = slots.take(platform, made, align)?;
        drop(slots);
        if gfp.contains(Gfp::ZERO) || cache.treatment(ground).init_on_alloc {
            fresh.zero();
        }
        if let Some(ctor) = cache.definition().ctor(platform) {
            fresh.construct(ctor);
        }
        Some(fresh.into_object())
    }

    /// Takes an object back. `cache` is the one that it must be of, if any; `is_unseen` says that a grace period
    /// is over since its owner freed it. Context: any but NMI; no lock held.
    ///
    /// # Errors
    /// [`BadFree`], which is told as well; nothing is changed then.
    pub(crate) fn free<G: Ground>(
        &self,
        ground: &G,
        object: &Object,
        (ask, cache, is_unseen): (Ask, Option<u16>, bool),
    ) -> Result<Freed, BadFree> {
        let platform = ground.platform();
        let address = crate::addr::VirtAddr::from_ptr(object.as_ptr().as_ptr());
        let at = platform.virt_to_phys(address).ok_or(BadFree::NotASlab)?;
        let (page, place) = self.place_of(at).ok_or(BadFree::NotASlab)?;
        let mut slots = self.slots.lock(platform);
        let Some(slot) = Slots::of_page(page) else {
            slots.tell(platform, KfenceError::InvalidFree, None);
            return Err(BadFree::NotAnObject);
        };
        let known = slots.slot(slot).ok_or(BadFree::NotASlab)?;
        let refused = match known.state {
            State::Unused | State::Free => Some(BadFree::AlreadyFree),
            State::Deferred if !is_unseen => Some(BadFree::AlreadyFree),
            _ if place != usize::from(known.at) => Some(BadFree::NotAnObject),
            _ if cache.is_some_and(|cache| cache != known.cache) => Some(BadFree::OtherCache),
            _ => None,
        };
        if let Some(error) = refused {
            if error != BadFree::OtherCache {
                let object = slots.object(slot, place);
                slots.tell(platform, KfenceError::InvalidFree, object);
            }
            return Err(error);
        }
        let freed = Some(origin(platform, &ask));
        if known.is_rcu && !is_unseen {
            slots.change(slot, |slot| {
                slot.state = State::Deferred;
                slot.freed = freed;
            });
            return Ok(Freed::AfterGrace);
        }
        slots.put(platform, slot, freed, ground.treatment().init_on_free);
        Ok(Freed::Now)
    }

    /// Where in the pool an address is: the page, and the byte in it.
    fn place_of(&self, at: PhysAddr) -> Option<(usize, usize)> {
        let offset = to_index(at.offset_from(self.range.start())?);
        self.contains(at).then_some((offset / PAGE, offset % PAGE))
    }

    /// How many bytes the owner of an object has. Context: any but NMI.
    pub(crate) fn size_of<P: Platform>(&self, platform: &P, at: PhysAddr) -> Option<usize> {
        let (page, place) = self.place_of(at)?;
        let slots = self.slots.lock(platform);
        let slot = slots.slot(Slots::of_page(page)?)?;
        let is_live = slot.state == State::Live && place == usize::from(slot.at);
        is_live.then_some(usize::from(slot.size))
    }

    /// How many objects of a cache have not come back. Context: any but NMI.
    pub(crate) fn live_of<P: Platform>(&self, platform: &P, cache: u16) -> u64 {
        self.slots.lock(platform).count(|slot| slot.cache == cache)
    }

    /// Somebody touched an address that cannot be touched: tells what it was, and lets it be touched. Answers
    /// whether the access may be tried again. Context: any.
    pub(crate) fn fault<P: Platform>(&self, platform: &P, at: PhysAddr, kind: AccessKind) -> bool {
        let Some((page, place)) = self.place_of(at) else {
            return false;
        };
        let Some(mut slots) = self.lock_from_fault(platform) else {
            return false;
        };
        let (error, object) = match Slots::of_page(page) {
            Some(slot) => match slots.slot(slot).map(|slot| slot.state) {
                // Another CPU was faster: it can be touched by now.
                Some(State::Live | State::Deferred) => return true,
                Some(State::Free) => (KfenceError::UseAfterFree(kind), slots.object(slot, place)),
                Some(State::Unused) | None => (KfenceError::InvalidAccess(kind), None),
            },
            None => match slots.beside(page, place) {
                Some(object) => (KfenceError::OutOfBounds(kind), Some(object)),
                None => (KfenceError::InvalidAccess(kind), None),
            },
        };
        slots.tell(platform, error, object);
        let opened = platform.protect_page(slots.memory.page(page), PageAccess::ReadWrite);
        if let (None, Some(object)) = (Slots::of_page(page), object) {
            slots.change(usize::from(object.slot), |slot| slot.opened = narrow(page));
        }
        opened.is_ok()
    }

    fn lock_from_fault<'a, P: Platform>(
        &'a self,
        platform: &'a P,
    ) -> Option<IrqGuard<'a, Slots, P>> {
        for _ in 0..TRIES {
            if let Some(slots) = self.slots.try_lock(platform) {
                return Some(slots);
            }
            spin_loop();
        }
        None
    }

    /// The pool in numbers. Context: any but NMI.
    pub(crate) fn stats<P: Platform>(&self, platform: &P) -> KfenceStats {
        KfenceStats {
            interval: self.interval.load(Ordering::Relaxed),
            incompatible: self.incompatible.load(Ordering::Relaxed),
            ..self.slots.lock(platform).stats()
        }
    }
}

/// Who asks.
fn origin<P: Platform>(platform: &P, ask: &Ask) -> ObjectOrigin {
    ObjectOrigin {
        place: ask.place,
        cpu: Pin::new(platform).cpu(),
    }
}

/// A number that is no larger than the pool.
fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
