//! Which lines of the source have how many objects, of caches that keep it (Linux: `alloc_traces`).
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use super::{Home, KmemCache, Memory};
use crate::platform::Platform;
use crate::slab::{Cache, SlabFlags, Tally};

/// Objects of one cache that one line of the source allocated, and that nobody freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectOwner {
    /// The line; nothing if there are more lines than are told apart.
    pub place: Option<&'static Location<'static>>,
    /// How many objects.
    pub objects: u64,
    /// How many bytes were asked for.
    pub bytes: u64,
}

impl fmt::Display for ObjectOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objects, place, .. } = self;
        match place {
            Some(place) => write!(f, "{objects} allocated at {place}"),
            None => write!(f, "{objects} allocated elsewhere"),
        }
    }
}

impl<P: Platform> Memory<P> {
    /// Shows who has objects of caches with [`SlabFlags::STORE_USER`]: the name of the cache, and each line of the
    /// source that allocated any, most first. Context: task.
    pub fn for_each_object_owner(&self, mut each: impl FnMut(&str, ObjectOwner)) {
        let Some(core) = self.core() else { return };
        for cache in core.caches.iter() {
            let name = cache.name(&self.platform);
            self.owners_of(cache, |owner| each(name.as_str(), owner));
        }
    }

    fn owners_of(&self, cache: &Cache, mut each: impl FnMut(ObjectOwner)) {
        let Some(core) = self.core() else { return };
        let keeps = cache.flags().contains(SlabFlags::STORE_USER);
        let Some(places) = core.caches.places().filter(|_| keeps) else {
            return;
        };
        let mut tally = Tally::new();
        cache.tally(&self.soil(core), &mut tally);
        tally.for_each(places, |place, objects, bytes| {
            each(ObjectOwner {
                place,
                objects,
                bytes,
            });
        });
    }
}

impl<H: Home> KmemCache<H> {
    /// Shows who has objects of this cache, if it keeps that ([`SlabFlags::STORE_USER`]), most first. Context: task.
    pub fn for_each_owner(&self, each: impl FnMut(ObjectOwner)) {
        if let Some((memory, _, cache)) = self.parts() {
            memory.owners_of(cache, each);
        }
    }
}
