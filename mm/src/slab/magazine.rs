//! Objects that a CPU has at hand (Bonwick and Adams 2001; Linux 6.18: sheaves).
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::object::{Checks, Object, Places, SharedTop, Top};
use crate::addr::to_index;
use crate::frame::slab::SlabTag;
use crate::platform::Profile;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What everybody may know of a CPU's objects at hand. Written by the CPU itself with plain stores.
#[derive(Debug)]
pub(crate) struct Gauges {
    top: SharedTop,
    /// The last place below them; changes only while there are none.
    bottom: SharedTop,
    /// Objects may come.
    is_open: AtomicBool,
}

impl Gauges {
    pub(super) const fn new() -> Self {
        Self {
            top: SharedTop::new(Top::LAST),
            bottom: SharedTop::new(Top::LAST),
            is_open: AtomicBool::new(false),
        }
    }

    /// Objects at hand.
    pub(super) fn count(&self) -> u32 {
        self.top.get().above(self.bottom.get())
    }

    /// Whether there are objects at hand, or may be.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire) || self.count() > 0
    }

    /// Leaves places for so many objects. There are none.
    fn make_room(&self, most: u32) {
        let bottom = Top::below_last(most);
        // Never looks like more than there are.
        if bottom < self.bottom.get() {
            self.top.set(bottom);
            self.bottom.set(bottom);
        } else {
            self.bottom.set(bottom);
            self.top.set(bottom);
        }
    }
}

/// The objects, the newest last.
///
/// # Invariants
/// They stand in the places from behind the bottom to the top that the gauges tell; the others are empty. There is no room
/// before the CPU used the cache.
#[derive(Debug)]
pub(crate) struct Magazine {
    objects: Places,
    /// What the records of their slabs say: cache and node.
    tag: SlabTag,
    checks: Checks,
}

impl Magazine {
    pub(super) const fn new() -> Self {
        Self {
            objects: Places::new(),
            tag: SlabTag::NONE,
            checks: Checks::NONE,
        }
    }

    /// Takes the object that came last, for an owner, if nobody wrote to it while it was here.
    #[inline(always)]
    pub(super) fn take(&mut self, profile: Profile, gauges: &Gauges) -> Option<Object> {
        let Self {
            objects, checks, ..
        } = self;
        objects.take(&gauges.top, |object| {
            !profile.is_hardened() || checks.unmark(object)
        })
    }

    /// As [`Self::take`], into the empty places in front. Answers how many those were.
    #[inline]
    pub(super) fn take_many(
        &mut self,
        profile: Profile,
        places: &mut [Option<NonNull<u8>>],
        gauges: &Gauges,
    ) -> usize {
        let newest = self.objects.between(gauges.bottom.get(), gauges.top.get());
        let many = newest.len().min(places.len());
        let (_, newest) = newest.split_at_mut(newest.len().wrapping_sub(many));
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
        self.note_gone(full, gauges);
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
        let places = self.objects.between(gauges.top.get(), Top::LAST);
        let mut came: usize = 0;
        let mut refused = None;
        for (place, (mut object, (tag, at))) in places.iter_mut().zip(objects) {
            let is_good = tag == self.tag
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
        self.objects.take(&gauges.top, |_| true)
    }

    /// Whether an object belongs here.
    #[inline(always)]
    fn takes(&self, tag: SlabTag) -> bool {
        tag.eq(&self.tag)
    }

    /// Whether objects of these slabs may come.
    pub(super) fn is_open_for(&self, tag: SlabTag) -> bool {
        self.tag == tag
    }

    /// Says how many there may be, of which slabs, and how their words are to be read.
    pub(super) fn open(&mut self, most: u32, tag: SlabTag, checks: Checks, gauges: &Gauges) {
        if gauges.count() == 0 {
            gauges.make_room(most);
        }
        gauges.is_open.store(true, Ordering::Release);
        self.tag = tag;
        self.checks = checks;
    }

    /// Lets none in until [`Self::open`]: the cache may be another one then. There are none.
    pub(super) fn close(&mut self, gauges: &Gauges) {
        gauges.make_room(0);
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
        if !self.takes(tag) {
            return Err(object);
        }
        // What there is no room for stays as it is.
        if profile.is_hardened()
            && !(self.room(gauges) > 0
                && self.checks.is_place(at)
                && self.checks.mark_if_taken(&mut object))
        {
            return Err(object);
        }
        self.objects.put(&gauges.top, object)
    }

    /// Puts an object back that its owner gives up and says to belong here.
    #[inline(always)]
    pub(super) fn put_trusted(&mut self, object: Object, gauges: &Gauges) -> Result<(), Object> {
        self.objects.put(&gauges.top, object)
    }

    /// The same for many, as long as there is room.
    #[inline]
    pub(super) fn put_many_trusted(
        &mut self,
        objects: impl Iterator<Item = Object>,
        gauges: &Gauges,
    ) -> usize {
        let places = self.objects.between(gauges.top.get(), Top::LAST);
        let mut came: usize = 0;
        for (place, object) in places.iter_mut().zip(objects) {
            *place = Some(object);
            came = came.wrapping_add(1);
        }
        self.note_came(came, gauges);
        came
    }

    /// Puts an object that was looked at. Gives it back if there are enough, or they are of other slabs.
    pub(super) fn put(
        &mut self,
        object: Object,
        tag: SlabTag,
        gauges: &Gauges,
    ) -> Result<(), Object> {
        if !self.takes(tag) {
            return Err(object);
        }
        self.objects.put(&gauges.top, object)
    }

    /// The places of so many more objects, to be filled from the first on; [`Self::note_came`] tells how many were.
    pub(super) fn empty_places(&mut self, most: u32, gauges: &Gauges) -> &mut [Option<Object>] {
        let places = self.objects.between(gauges.top.get(), Top::LAST);
        let many = to_index(u64::from(most)).min(places.len());
        places.get_mut(..many).unwrap_or_default()
    }

    /// Tells others how many came.
    pub(super) fn note_came(&self, count: usize, gauges: &Gauges) {
        gauges.top.set(gauges.top.get().up(count));
    }

    /// How many more there may be.
    pub(super) fn room(&self, gauges: &Gauges) -> u32 {
        Top::LAST.above(gauges.top.get())
    }

    /// The places of the oldest objects, to be emptied. [`Self::note_oldest_gone`] tells when that is done; nothing
    /// else is done here until then.
    pub(super) fn oldest(&mut self, most: u32, gauges: &Gauges) -> &mut [Option<Object>] {
        let all = self.objects.between(gauges.bottom.get(), gauges.top.get());
        let many = to_index(u64::from(most)).min(all.len());
        all.get_mut(..many).unwrap_or_default()
    }

    /// The oldest are gone: the others move down, and others are told.
    pub(super) fn note_oldest_gone(&mut self, count: usize, gauges: &Gauges) {
        let all = self.objects.between(gauges.bottom.get(), gauges.top.get());
        if count <= all.len() {
            all.rotate_left(count);
        }
        self.note_gone(count, gauges);
    }

    /// Tells others how many are gone.
    fn note_gone(&self, count: usize, gauges: &Gauges) {
        gauges
            .top
            .set(gauges.top.get().down(count, gauges.bottom.get()));
    }
}
