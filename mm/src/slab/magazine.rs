//! Objects that a CPU has at hand (Bonwick and Adams 2001; Linux 6.18: sheaves).
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::object::{Checks, Object};
use crate::addr::to_index;
use crate::frame::slab::SlabTag;
use crate::platform::Profile;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Places in a magazine; one is not used.
pub(super) const PLACES: usize = 128;

/// What everybody may know of a CPU's objects at hand. Written by the CPU itself with plain stores.
#[derive(Debug)]
pub(crate) struct Gauges {
    count: AtomicU32,
    /// Objects may come.
    is_open: AtomicBool,
}

impl Gauges {
    pub(super) const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
        }
    }

    /// Objects at hand.
    #[inline(always)]
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Whether there are objects at hand, or may be.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire) || self.count() > 0
    }

    #[inline(always)]
    fn set_count(&self, count: u32) {
        self.count.store(count, Ordering::Release);
    }
}

/// The objects, the newest last.
///
/// # Invariants
/// They stand in the places from 1 on, as many as the gauges say; the others are empty.
#[derive(Debug)]
pub(crate) struct Magazine {
    /// What the records of their slabs say: cache and node.
    tag: SlabTag,
    /// How many there may be; none before the CPU used the cache.
    most: u32,
    checks: Checks,
    objects: [Option<Object>; PLACES],
}

/// The place of the newest of so many.
#[inline(always)]
fn place(count: u32) -> usize {
    to_index(u64::from(count)) & (PLACES - 1)
}

/// How many there are: a mask instead of a check.
#[inline(always)]
fn count(gauges: &Gauges) -> u32 {
    const { assert!(PLACES == 128, "as the mask says") };
    gauges.count() & 127
}

impl Magazine {
    pub(super) const fn new() -> Self {
        Self {
            tag: SlabTag::NONE,
            most: 0,
            checks: Checks::NONE,
            objects: [const { None }; PLACES],
        }
    }

    /// Takes the object that came last, for an owner, if nobody wrote to it while it was here.
    #[inline(always)]
    pub(super) fn take(&mut self, profile: Profile, gauges: &Gauges) -> Option<Object> {
        let count = count(gauges);
        let newest = &mut self.objects[place(count)];
        let mut object = newest.take()?;
        if profile.is_hardened() && !self.checks.unmark(&mut object) {
            *newest = Some(object);
            return None;
        }
        gauges.set_count(count.wrapping_sub(1));
        Some(object)
    }

    /// As [`Self::take`], into the empty places in front. Answers how many those were.
    #[inline]
    pub(super) fn take_many(
        &mut self,
        profile: Profile,
        places: &mut [Option<NonNull<u8>>],
        gauges: &Gauges,
    ) -> usize {
        let there = place(count(gauges));
        let many = there.min(places.len());
        let newest = &mut self.objects[1..=there];
        let (_, newest) = newest.split_at_mut(there.wrapping_sub(many));
        let mut full: usize = 0;
        for (object, place) in newest.iter_mut().zip(&mut *places) {
            let is_good = |object: &mut Object| self.checks.unmark(object);
            if place.is_some() || profile.is_hardened() && !object.as_mut().is_some_and(is_good) {
                break;
            }
            *place = object.take().map(Object::into_raw);
            full = full.wrapping_add(1);
        }
        newest.rotate_left(full);
        self.note_gone(u32::try_from(full).unwrap_or(0), gauges);
        full
    }

    /// As [`Self::put_back`], up to the first that does not belong here, which is answered, or for which there
    /// is no room. Answers how many came, too.
    #[inline]
    pub(super) fn put_back_many(
        &mut self,
        objects: impl Iterator<Item = (Object, (SlabTag, u64))>,
        profile: Profile,
        gauges: &Gauges,
    ) -> (usize, Option<Object>) {
        let first = place(count(gauges).wrapping_add(1));
        let most = place(self.most);
        let places = self.objects.get_mut(first..=most).unwrap_or_default();
        let mut came: usize = 0;
        let mut refused = None;
        for (place, (mut object, (tag, at))) in places.iter_mut().zip(objects) {
            let is_good = self.tag == tag
                && (!profile.is_hardened()
                    || self.checks.is_place(at) && self.checks.mark_if_taken(&mut object));
            if !is_good {
                refused = Some(object);
                break;
            }
            *place = Some(object);
            came = came.wrapping_add(1);
        }
        self.note_came(came, gauges);
        (came, refused)
    }

    /// The same whoever wrote to it: for who looks himself.
    pub(super) fn take_any(&mut self, gauges: &Gauges) -> Option<Object> {
        let count = count(gauges);
        let object = self.objects[place(count)].take()?;
        gauges.set_count(count.wrapping_sub(1));
        Some(object)
    }

    /// Whether objects of these slabs may come.
    pub(super) fn is_open_for(&self, tag: SlabTag) -> bool {
        self.tag == tag
    }

    /// Says how many there may be, of which slabs, and how their words are to be read.
    pub(super) fn open(&mut self, most: u32, tag: SlabTag, checks: Checks, gauges: &Gauges) {
        gauges.is_open.store(true, Ordering::Release);
        self.most = most;
        self.tag = tag;
        self.checks = checks;
    }

    /// Lets none in until [`Self::open`]: the cache may be another one then. There are none.
    pub(super) fn close(&mut self, gauges: &Gauges) {
        self.most = 0;
        self.tag = SlabTag::NONE;
        self.checks = Checks::NONE;
        gauges.is_open.store(false, Ordering::Release);
    }

    /// Puts an object back that its owner gives up, if it is one that belongs here, and is not free:
    /// the record of its frame says `tag`, and it is so far from the start of any block that it may be in.
    #[inline(always)]
    pub(super) fn put_back(
        &mut self,
        mut object: Object,
        (tag, at): (SlabTag, u64),
        profile: Profile,
        gauges: &Gauges,
    ) -> Result<(), Object> {
        // No place yet, which is what the mask is for.
        let count = gauges.count();
        if !self.takes(tag, count) {
            return Err(object);
        }
        if profile.is_hardened()
            && !(self.checks.is_place(at) && self.checks.mark_if_taken(&mut object))
        {
            return Err(object);
        }
        self.push(object, count, gauges);
        Ok(())
    }

    /// Puts an object that was looked at. Gives it back if there are enough, or they are of other slabs.
    pub(super) fn put(
        &mut self,
        object: Object,
        tag: SlabTag,
        gauges: &Gauges,
    ) -> Result<(), Object> {
        let count = count(gauges);
        if !self.takes(tag, count) {
            return Err(object);
        }
        self.push(object, count, gauges);
        Ok(())
    }

    /// Whether an object may come to so many.
    #[inline(always)]
    fn takes(&self, tag: SlabTag, count: u32) -> bool {
        self.tag == tag && count < self.most
    }

    #[inline(always)]
    fn push(&mut self, object: Object, count: u32, gauges: &Gauges) {
        let count = count.wrapping_add(1);
        self.objects[place(count)] = Some(object);
        gauges.set_count(count);
    }

    /// The places of so many more objects, to be filled from the first on; [`Self::note_came`] tells how many were.
    pub(super) fn empty_places(&mut self, most: u32, gauges: &Gauges) -> &mut [Option<Object>] {
        let first = place(count(gauges)).wrapping_add(1);
        let many = place(most.min(self.room(gauges)));
        let end = first.wrapping_add(many);
        self.objects.get_mut(first..end).unwrap_or_default()
    }

    /// Tells others how many came.
    pub(super) fn note_came(&self, count: usize, gauges: &Gauges) {
        let count = u32::try_from(count).unwrap_or(0);
        gauges.set_count(gauges.count().wrapping_add(count));
    }

    /// How many more there may be.
    pub(super) fn room(&self, gauges: &Gauges) -> u32 {
        self.most.saturating_sub(gauges.count())
    }

    /// The places of the oldest objects, to be emptied. [`Self::note_oldest_gone`] tells when that is done; nothing
    /// else is done here until then.
    pub(super) fn oldest(&mut self, most: u32, gauges: &Gauges) -> &mut [Option<Object>] {
        let count = most.min(gauges.count());
        self.objects.get_mut(1..=place(count)).unwrap_or_default()
    }

    /// The oldest are gone: the others move down, and others are told.
    pub(super) fn note_oldest_gone(&mut self, count: usize, gauges: &Gauges) {
        let there = place(gauges.count());
        if let Some(all) = self
            .objects
            .get_mut(1..=there)
            .filter(|all| count <= all.len())
        {
            all.rotate_left(count);
        }
        self.note_gone(u32::try_from(count).unwrap_or(0), gauges);
    }

    /// Tells others how many are gone.
    fn note_gone(&self, count: u32, gauges: &Gauges) {
        gauges.set_count(gauges.count().wrapping_sub(count));
    }
}
