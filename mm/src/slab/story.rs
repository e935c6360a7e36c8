//! What an address in a slab is, for who reports a fault: which object, whose, and who had it before.
#![forbid(unsafe_code)]

use super::SlabFlags;
use super::cache::Cache;
use super::debug::{Guard, Layout};
use super::definition::Name;
use super::ground::Ground;
use super::shape::Shape;
use crate::frame::SlabFrame;
use crate::platform::Platform;
use crate::report::ObjectOrigin;

/// Whether somebody has an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owned {
    /// Somebody does; or a CPU has it at hand, where caches do not check their objects.
    Yes,
    /// Nobody does.
    No,
    /// The slab is being changed, or its list is damaged.
    Unknown,
}

/// An object, and where in its place an address lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectStory {
    /// The cache; empty if somebody is about to name it.
    pub(crate) cache: Name,
    /// Bytes that an owner may use.
    pub(crate) size: usize,
    /// Its number in the slab.
    pub(crate) number: u16,
    /// Bytes from the object's first one; below zero in front of it.
    pub(crate) offset: i64,
    pub(crate) owned: Owned,
    /// Who allocated it last, where that is kept.
    pub(crate) allocated: Option<ObjectOrigin>,
    /// Who freed it last, where that is kept.
    pub(crate) freed: Option<ObjectOrigin>,
}

impl Cache {
    /// Pages in all slabs, unless somebody is changing them. Context: any: waits for nobody.
    pub(crate) fn pages_at_once<P: Platform>(&self, platform: &P) -> Option<u64> {
        let nodes = self.rooms().get()?.nodes().iter();
        nodes
            .map(|node| Some(node.try_lock(platform)?.stats().pages))
            .sum()
    }

    /// The object whose place holds a byte of a slab of this cache; nothing behind the last one. Context: any: waits for nobody.
    pub(crate) fn story<G: Ground>(
        &self,
        ground: &G,
        slab: SlabFrame<'_>,
        byte: u64,
    ) -> Option<ObjectStory> {
        let shape = self.shape()?.in_order(slab.order);
        let byte = crate::addr::to_index(byte);
        let number = u16::try_from(byte.checked_div(shape.stride())?).ok();
        let number = number.filter(|number| *number < shape.objects())?;
        let left = match shape.is_guarded() {
            true => Layout::of(&shape).left(),
            false => 0,
        };
        let in_place = i64::try_from(byte.checked_rem(shape.stride())?).ok()?;
        let story = ObjectStory {
            cache: self.name_at_once(ground.platform()),
            size: shape.size(),
            number,
            offset: in_place.saturating_sub(i64::try_from(left).ok()?),
            owned: Owned::Unknown,
            allocated: None,
            freed: None,
        };
        Some(self.with_owners(ground, (slab, &shape), story))
    }

    /// The same with what can be known of its owners.
    fn with_owners<G: Ground>(
        &self,
        ground: &G,
        (slab, shape): (SlabFrame<'_>, &Shape),
        story: ObjectStory,
    ) -> ObjectStory {
        let lock = self.rooms().get();
        let lock = lock.and_then(|rooms| rooms.node_with(slab.home.node));
        let Some(mut partial) = lock.and_then(|lock| lock.try_lock(ground.platform())) else {
            return story;
        };
        if !shape.is_guarded() {
            let map = self.free_map_of(ground, slab, &mut partial);
            let is_free = map.and_then(|map| map.iter().nth(story.number.into()));
            let owned = match is_free {
                None => Owned::Unknown,
                Some(true) => Owned::No,
                Some(false) => Owned::Yes,
            };
            return ObjectStory { owned, ..story };
        }
        let Some(guard) = Guard::new(self, ground, (slab, shape), &mut partial) else {
            return story;
        };
        let owned = match guard.is_owned(story.number) {
            None => Owned::Unknown,
            Some(true) => Owned::Yes,
            Some(false) => Owned::No,
        };
        let (allocated, freed) = match guard.has(SlabFlags::STORE_USER) {
            true => guard.origins(story.number),
            false => (None, None),
        };
        ObjectStory {
            owned,
            allocated,
            freed,
            ..story
        }
    }
}
