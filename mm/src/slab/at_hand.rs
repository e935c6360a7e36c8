//! The shortest ways of a CPU to the objects that it has at hand.
//!
//! A request knows the number of its cache, and an object that comes back is in a frame whose record says that
//! number: either way it is one load from what the CPU has of its own. One comparison of what the
//! record says with what the objects there have in common tells that the object is of that cache and of the CPU's
//! node.
//!
//! Whatever is not as expected here goes the longer way, which finds out why.
#![forbid(unsafe_code)]

use super::magazine::{Gauges, Magazine};
use super::object::Object;
use crate::frame::slab::SlabTag;
use crate::platform::Profile;
use crate::sync::{self, Resident, Row, Vacant};

/// Ways to caches: those with the lowest numbers have one. The first leads nowhere.
pub(super) const CACHES: usize = 256;
/// As many again lead to those that take a caller's word for it whose object it is.
const WAYS: usize = CACHES + 256;

/// The way to objects of a cache, as its slabs name it ([`SlabTag::way`]).
#[inline(always)]
pub(super) const fn way_of(cache: usize) -> usize {
    cache.wrapping_add(1)
}

/// What stands for the objects of no cache.
static NO_OBJECTS: Vacant<Magazine, Gauges> = Vacant::new(Magazine::new(), Gauges::new());

impl Resident<Gauges> for Magazine {
    const VACANT: &'static Vacant<Self, Gauges> = &NO_OBJECTS;
}

/// The way of a cache's own to its objects, by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnWay(u8);

impl OwnWay {
    /// That of a cache; one without leads nowhere.
    pub(crate) fn of(cache: u16) -> Self {
        Self(u8::try_from(way_of(usize::from(cache))).unwrap_or(0))
    }

    /// Where objects come from.
    #[inline(always)]
    fn out(self) -> usize {
        usize::from(self.0)
    }

    /// Where they go on a caller's word.
    #[inline(always)]
    fn trusting(self) -> usize {
        CACHES | usize::from(self.0)
    }
}

/// The second way that leads where a cache's `way` leads.
pub(crate) const fn trusting(way: usize) -> usize {
    CACHES | way
}

/// The ways of one CPU.
pub(crate) type Ways = Row<Magazine, Gauges, (), WAYS>;
/// Those of the CPU that the caller is pinned to.
pub(crate) type Here<'a> = sync::Here<'a, Magazine, Gauges, (), WAYS>;

/// Takes an object of a cache, if there is one at hand that nobody wrote to. Context: any but NMI.
///
/// # Errors
/// There is none. Either way it is told whether somebody wants the objects drained.
#[inline(always)]
pub(crate) fn take(
    here: &Here<'_>,
    cache: usize,
    profile: Profile,
) -> Result<(Object, bool), bool> {
    take_by(here, way_of(cache), profile)
}

/// As [`take`], by the cache's own way.
///
/// # Errors
/// As there.
#[inline(always)]
pub(crate) fn take_own(
    here: &Here<'_>,
    way: OwnWay,
    profile: Profile,
) -> Result<(Object, bool), bool> {
    take_by(here, way.out(), profile)
}

#[inline(always)]
fn take_by(here: &Here<'_>, way: usize, profile: Profile) -> Result<(Object, bool), bool> {
    let Some(mut own) = here.enter(way) else {
        return Err(false);
    };
    let (magazine, gauges) = own.parts();
    match magazine.take(profile, gauges) {
        Some(object) => Ok((object, own.leave())),
        None => Err(own.leave()),
    }
}

/// Puts an object to those at hand of the cache that its caller says it is of. Only for a profile without marks in free
/// objects. Context: any but NMI.
///
/// # Errors
/// The object, if there is no room, or callers' word is not enough. Either way it is told whether somebody wants the
/// objects drained.
#[inline(always)]
pub(crate) fn put_trusted(
    here: &Here<'_>,
    way: OwnWay,
    object: Object,
) -> Result<bool, (Object, bool)> {
    let Some(mut own) = here.enter(way.trusting()) else {
        return Err((object, false));
    };
    let (magazine, gauges) = own.parts();
    match magazine.put_trusted(object, gauges) {
        Ok(()) => Ok(own.leave()),
        Err(object) => Err((object, own.leave())),
    }
}

/// As [`put_trusted`] for many, as long as there is room. Answers how many went there, and whether somebody wants the
/// objects drained.
#[inline(always)]
pub(crate) fn put_many_trusted(
    here: &Here<'_>,
    way: OwnWay,
    objects: impl Iterator<Item = Object>,
) -> (usize, bool) {
    let Some(mut own) = here.enter(way.trusting()) else {
        return (0, false);
    };
    let (magazine, gauges) = own.parts();
    let came = magazine.put_many_trusted(objects, gauges);
    (came, own.leave())
}

/// Puts an object to those at hand. `tag` is what the record of its frame says, and `at` its address. Context:
/// any but NMI.
///
/// # Errors
/// The object, if it is not one that belongs there, or there is no room. Either way it is told whether
/// somebody wants the objects drained.
#[inline(always)]
pub(crate) fn put(
    here: &Here<'_>,
    object: Object,
    (tag, at): (SlabTag, u64),
    profile: Profile,
) -> Result<bool, (Object, bool)> {
    let Some(mut own) = here.enter(usize::from(tag.way())) else {
        return Err((object, false));
    };
    let (magazine, gauges) = own.parts();
    match magazine.put_back(object, (tag, at), profile, gauges) {
        Ok(()) => Ok(own.leave()),
        Err(object) => Err((object, own.leave())),
    }
}
