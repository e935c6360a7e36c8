//! The bytes of objects that nobody uses: the only place that touches them.
//!
//! A free object of a slab holds the number of the next one in a word of its own. With the `hardened` profile the
//! word is encoded with a secret of the cache and the word's address, and objects at hand hold one
//! too: whoever gives back what is free already, or wrote to it meanwhile, is found out.

mod guarded;
#[cfg(test)]
mod hijack_tests;
mod places;
mod pool;

use core::ptr::NonNull;

pub(super) use places::{Places, SharedTop, Top};
pub(super) use pool::{BadCanary, Fresh, PoolMemory};

use super::debug::Treatment;
use super::partial::Partial;
use super::shape::{MOST, Shape};
use crate::addr::{PfnRange, to_count, to_index};
use crate::frame::SlabFrame;
use crate::frame::slab::SlabUse;
use crate::platform::{Platform, Profile};

pub(super) const END: u16 = SlabUse::END;
/// In the word of an object that is free but on no slab's list.
const AT_HAND: u16 = u16::MAX - 1;

/// An object that nobody uses, or is handed out just now: the right to use its bytes.
///
/// # Invariants
/// It points at a place of a slab of the cache that it is used with, and no other value does.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Object(NonNull<u8>);

// SAFETY: it is the only way to its bytes.
unsafe impl Send for Object {}
// SAFETY: a shared reference only tells the address.
unsafe impl Sync for Object {}

impl Object {
    /// An object that its owner gives up.
    ///
    /// # Safety
    ///
    /// `first` was handed out by the cache that the value is used with, and its owner, the caller, does
    /// not use it any more.
    #[inline(always)]
    pub(crate) const unsafe fn given_up(first: NonNull<u8>) -> Self {
        // INVARIANT: the caller's word.
        Self(first)
    }

    /// Hands it out.
    #[inline(always)]
    pub(crate) const fn into_raw(self) -> NonNull<u8> {
        self.0
    }

    /// Where it is.
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> NonNull<u8> {
        self.0
    }

    /// Writes zeroes over what its owner may use.
    pub(crate) fn zero(&mut self, shape: &Shape) {
        // SAFETY: the object is at least that large (`Shape`), and ours.
        unsafe { self.0.write_bytes(0, shape.size()) };
    }
}

impl Object {
    /// Writes zeroes over so many bytes, which the object has. Apart, so that whoever does not want that
    /// need not make room for it.
    #[cold]
    #[inline(never)]
    fn zero_first(&mut self, bytes: usize) {
        // SAFETY: the object is that large (`Checks`), and ours.
        unsafe { self.0.write_bytes(0, bytes) };
    }
}

/// How free objects of a cache name each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    secret: u64,
    profile: Profile,
}

impl Code {
    #[inline(always)]
    pub(super) const fn new(profile: Profile, secret: u64) -> Self {
        Self { secret, profile }
    }

    /// What stands for `number` in the word at `at`; and the other way round.
    #[inline(always)]
    fn crypt(self, at: NonNull<u64>, bits: u64) -> u64 {
        if self.profile.is_hardened() {
            bits ^ self.secret ^ to_count(at.addr().get()).swap_bytes()
        } else {
            bits
        }
    }

    /// The word of an object that is its own while it is free.
    #[inline(always)]
    fn place(object: &Object, shape: &Shape) -> NonNull<u64> {
        // SAFETY: the word lies within the object's place (`Shape`).
        let word = unsafe { object.0.add(shape.free_at()) };
        word.cast()
    }

    #[inline(always)]
    fn read(self, object: &Object, shape: &Shape) -> Option<u16> {
        let at = Self::place(object, shape);
        // SAFETY: within the object, aligned (`Shape`), and ours; RAM always holds some value.
        let bits = self.crypt(at, unsafe { at.read() });
        u16::try_from(bits).ok()
    }

    #[inline(always)]
    fn write(self, object: &mut Object, shape: &Shape, number: u16) {
        let at = Self::place(object, shape);
        // SAFETY: as in `read`.
        unsafe { at.write(self.crypt(at, u64::from(number))) };
    }

    /// Whether an object that its owner gives up holds what only free ones hold.
    #[inline(always)]
    pub(super) fn is_free(self, object: &Object, shape: &Shape) -> bool {
        self.profile.is_hardened() && self.read(object, shape).is_some()
    }

    /// Marks an object that goes to those at hand.
    #[inline(always)]
    pub(super) fn mark(self, object: &mut Object, shape: &Shape) {
        if self.profile.is_hardened() {
            self.write(object, shape, AT_HAND);
        }
    }

    /// Takes the mark from an object at hand that is handed out. `false` if it has none: somebody wrote to it.
    #[inline(always)]
    pub(super) fn unmark(self, object: &mut Object, shape: &Shape) -> bool {
        if !self.profile.is_hardened() {
            return true;
        }
        let was_marked = self.read(object, shape) == Some(AT_HAND);
        // What has no mark may be an owner's.
        if was_marked {
            self.clear(object, shape);
        }
        was_marked
    }

    /// Takes away what says that an object is free.
    #[inline(always)]
    pub(super) fn clear(self, object: &mut Object, shape: &Shape) {
        if self.profile.is_hardened() {
            let at = Self::place(object, shape);
            // SAFETY: as in `read`.
            unsafe { at.write(0) };
        }
    }
}

/// What tells a good object of a cache from a bad one, without a look at its slab.
///
/// # Invariants
/// Used with objects of the cache whose shape and code they are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    /// The word of an object at hand, but for its address.
    mark: u64,
    free_at: usize,
    divider: u64,
    /// Which bits of an address say where in its slab it is, …
    within: u64,
    /// … and where the last object ends there.
    end: u64,
    /// Bytes that are zeroed when an object is handed out, …
    zeroed_out: usize,
    /// … and when it comes back.
    zeroed_in: usize,
}

impl Checks {
    /// Those of no cache.
    pub(super) const NONE: Self = Self {
        mark: 0,
        free_at: 0,
        divider: 0,
        within: 0,
        end: 0,
        zeroed_out: 0,
        zeroed_in: 0,
    };

    pub(super) fn new(shape: &Shape, code: Code, treatment: Treatment) -> Self {
        let stride = to_count(shape.stride());
        let bytes = |are_zeroed| if are_zeroed { shape.size() } else { 0 };
        Self {
            mark: code.secret ^ u64::from(AT_HAND),
            zeroed_out: bytes(treatment.init_on_alloc),
            zeroed_in: bytes(treatment.init_on_free),
            free_at: shape.free_at(),
            divider: shape.divider(),
            within: shape.order().bytes().wrapping_sub(1),
            end: u64::from(shape.objects()).wrapping_mul(stride),
        }
    }

    /// Whether an object starts at a physical address that is in a slab: a slab is aligned to its size.
    #[inline(always)]
    pub(super) const fn is_place(&self, at: u64) -> bool {
        let offset = at & self.within;
        offset < self.end && offset.wrapping_mul(self.divider) < self.divider
    }

    /// The word of an object, and what it holds at hand.
    #[inline(always)]
    fn word(&self, object: &Object) -> (NonNull<u64>, u64) {
        // SAFETY: the word lies within the object's place (`Shape`).
        let at = unsafe { object.0.add(self.free_at) }.cast::<u64>();
        (at, self.mark ^ to_count(at.addr().get()).swap_bytes())
    }

    /// Marks an object that its owner gives up as free. `false` if it is so already: what a free one holds
    /// differs from its mark in the bits of a number only.
    #[inline(always)]
    pub(super) fn mark_if_taken(&self, object: &mut Object) -> bool {
        let (at, mark) = self.word(object);
        // SAFETY: within the object, aligned (`Shape`), and ours; RAM always holds some value.
        let is_taken = unsafe { at.read() } ^ mark > u64::from(u16::MAX);
        if is_taken {
            if self.zeroed_in > 0 {
                object.zero_first(self.zeroed_in);
            }
            // SAFETY: as above.
            unsafe { at.write(mark) };
        }
        is_taken
    }

    /// Takes the mark from an object at hand. `false` if it has none: somebody wrote to it.
    #[inline(always)]
    pub(super) fn unmark(&self, object: &mut Object) -> bool {
        let (at, mark) = self.word(object);
        // SAFETY: as in `mark_if_taken`.
        let is_marked = unsafe { at.read() } == mark;
        if is_marked {
            // SAFETY: as above.
            unsafe { at.write(0) };
            if self.zeroed_out > 0 {
                object.zero_first(self.zeroed_out);
            }
        }
        is_marked
    }
}

impl SlabFrame<'_> {
    /// Its memory. `lock` is that of its list of free objects.
    pub(super) fn memory<P: Platform>(
        &self,
        platform: &P,
        (shape, code): (&Shape, Code),
        _lock: &mut Partial,
    ) -> Option<SlabMemory> {
        let base = self.base(platform)?;
        let shape = shape.in_order(self.order);
        // SAFETY: (1) its record says that it is a slab of the cache that gives its shape, and it stays one
        // while the lock is held; (2) the caller shows what the lock protects.
        Some(unsafe { SlabMemory::new(base, shape, code) })
    }

    fn base<P: Platform>(&self, platform: &P) -> Option<NonNull<u8>> {
        platform.direct_map(PfnRange::block(self.pfn, self.order).addrs())
    }

    /// The number of the object that starts at an address.
    #[inline]
    pub(super) fn number_of<P: Platform>(
        &self,
        platform: &P,
        shape: &Shape,
        object: NonNull<u8>,
    ) -> Option<u16> {
        let base = self.base(platform)?;
        let shape = shape.in_order(self.order);
        shape.number(object.addr().get().wrapping_sub(base.addr().get()))
    }
}

/// A slab's memory, as long as its list of free objects is the caller's.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlabMemory {
    base: NonNull<u8>,
    shape: Shape,
    code: Code,
}

/// A word of a free object does not name a free one: somebody wrote to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadLink {
    /// Number of the object with the word.
    pub(super) object: u16,
}

impl SlabMemory {
    /// The memory of a slab of a cache of that shape.
    ///
    /// # Safety
    ///
    /// 1. A slab with this shape starts at `base`, and stays one while the value is used.
    /// 2. The caller holds the lock of its list of free objects, or nobody else knows the slab.
    const unsafe fn new(base: NonNull<u8>, shape: Shape, code: Code) -> Self {
        Self { base, shape, code }
    }

    fn at(&self, number: u16) -> Option<NonNull<u8>> {
        let offset = self.shape.offset(number)?;
        // SAFETY: objects with numbers lie within the slab (`Shape`).
        Some(unsafe { self.base.add(offset) })
    }

    /// Takes free objects into empty places, the first ones first. Answers how many there were.
    ///
    /// # Errors
    /// [`BadLink`], after those before it.
    #[inline(never)]
    pub(super) fn pop_into(
        &self,
        now: &mut SlabUse,
        places: &mut [Option<Object>],
    ) -> (usize, Result<(), BadLink>) {
        let mut filled: usize = 0;
        let mut result = Ok(());
        for place in places.iter_mut() {
            let Some(at) = self.at(now.free) else { break };
            // INVARIANT: it is on the list, so nobody has it.
            let object = Object(at);
            let Some(next) = self
                .code
                .read(&object, &self.shape)
                .filter(|next| *next <= END)
            else {
                result = Err(BadLink { object: now.free });
                break;
            };
            now.free = next;
            filled = filled.wrapping_add(1);
            *place = Some(object);
        }
        if result.is_ok() {
            let rest = places.get_mut(filled..).unwrap_or_default();
            filled = filled.wrapping_add(self.take_fresh(now, rest));
            if filled == 0 && !places.is_empty() {
                // The list ended too early.
                result = Err(BadLink { object: 0 });
            }
        }
        let [low, high, ..] = filled.to_le_bytes();
        now.taken = now.taken.wrapping_add(u16::from_le_bytes([low, high]));
        (filled, result)
    }

    /// Takes objects that never had an owner.
    #[inline(always)]
    fn take_fresh(&self, now: &mut SlabUse, places: &mut [Option<Object>]) -> usize {
        let Some(mut at) = self.at(now.fresh) else {
            return 0;
        };
        let left = usize::from(self.shape.objects().wrapping_sub(now.fresh));
        let many = left.min(places.len());
        for place in &mut places[..many] {
            // INVARIANT: nobody had it yet.
            *place = Some(Object(at));
            // SAFETY: the next one, or the end of the last: within the slab (`Shape`).
            at = unsafe { at.add(self.shape.stride()) };
        }
        let [low, high, ..] = many.to_le_bytes();
        now.fresh = now.fresh.wrapping_add(u16::from_le_bytes([low, high]));
        many
    }

    /// Names every object on the list. Answers how many there are.
    pub(super) fn walk(&self, first: u16, mut each: impl FnMut(u16)) -> Result<u64, BadLink> {
        let (mut next, mut count) = (first, 0_u64);
        while next != END {
            let bad = BadLink { object: next };
            let found = self
                .at(next)
                .filter(|_| count < u64::from(self.shape.objects()));
            // Only looked at: the list keeps it.
            let object = Object(found.ok_or(bad)?);
            each(next);
            next = self.code.read(&object, &self.shape).ok_or(bad)?;
            count = count.wrapping_add(1);
        }
        Ok(count)
    }

    /// Puts objects on the list, up to the first that is none of this slab. Answers how many they were.
    #[inline(never)]
    pub(super) fn push_all(&self, now: &mut SlabUse, objects: &mut [Option<Object>]) -> usize {
        let base = self.base.addr().get();
        let (mut free, mut count) = (now.free, 0_usize);
        for place in objects {
            let offset = place
                .as_ref()
                .map(|object| object.0.addr().get().wrapping_sub(base));
            let number = offset.and_then(|offset| self.shape.number(offset));
            let Some((number, mut object)) = number.zip(place.take_if(|_| number.is_some())) else {
                break;
            };
            self.code.write(&mut object, &self.shape, free);
            free = number;
            count = count.wrapping_add(1);
        }
        now.free = free;
        let [low, high, ..] = count.to_le_bytes();
        now.taken = now.taken.wrapping_sub(u16::from_le_bytes([low, high]));
        count
    }

    /// Puts all objects of a new slab on the list, in an order that follows from `seed`. Without one they are
    /// handed out as they lie.
    pub(super) fn link_all(&self, seed: Option<u64>) -> SlabUse {
        let Some(seed) = seed else {
            return SlabUse::FRESH;
        };
        let mut order = [0; MOST];
        let objects = self.shape.objects();
        for (place, number) in order.iter_mut().zip(0..objects) {
            *place = number;
        }
        let order = order.get_mut(..usize::from(objects)).unwrap_or_default();
        shuffle(order, seed);
        let mut free = END;
        for &number in order.iter().rev() {
            let Some(at) = self.at(number) else { continue };
            // INVARIANT: the slab is new: nobody has any of its objects.
            self.code.write(&mut Object(at), &self.shape, free);
            free = number;
        }
        SlabUse {
            taken: 0,
            free,
            fresh: objects,
        }
    }
}

/// What splitmix64 adds at each step (Steele, Lea and Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number that splitmix64 makes of its state: different ones of different states.
const fn mixed(state: u64) -> u64 {
    let bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number that follows from a seed; different seeds have different ones.
pub(super) const fn follows(seed: u64) -> u64 {
    mixed(seed.wrapping_add(GOLDEN))
}

/// Brings numbers into an order that follows from a seed (Fisher and Yates).
fn shuffle(numbers: &mut [u16], seed: u64) {
    let mut state = seed;
    for last in (1..numbers.len()).rev() {
        state = state.wrapping_add(GOLDEN);
        let choices = to_count(last).wrapping_add(1);
        let other = mixed(state).checked_rem(choices).unwrap_or_default();
        numbers.swap(last, to_index(other));
    }
}
