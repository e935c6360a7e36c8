//! Objects that a CPU has at hand (Bonwick and Adams 2001; Linux 6.18: sheaves).
#![forbid(unsafe_code)]

use super::object::Object;
use crate::platform::NodeId;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Places in a magazine; one is not used.
pub(super) const PLACES: usize = 64;

/// What everybody may know of a CPU's objects at hand. Written by the CPU itself with plain stores.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    count: AtomicU32,
}

impl Gauges {
    /// Objects at hand.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn set_count(&self, top: u8) {
        self.count.store(u32::from(top), Ordering::Release);
    }
}

/// The objects, the newest last.
///
/// # Invariants
/// They stand in the places 1 to `top`; the others are empty.
#[derive(Debug)]
pub(crate) struct Magazine {
    top: u8,
    /// How many there may be; none before the CPU used the cache.
    most: u8,
    /// The node that they all are of.
    node: NodeId,
    objects: [Option<Object>; PLACES],
}

impl Magazine {
    pub(super) const fn new() -> Self {
        Self {
            top: 0,
            most: 0,
            node: NodeId(0),
            objects: [const { None }; PLACES],
        }
    }

    #[inline(always)]
    fn newest(&self) -> usize {
        usize::from(self.top) & (PLACES - 1)
    }

    /// Takes the object that came last, for an owner.
    #[inline(always)]
    pub(super) fn take(&mut self, gauges: &Gauges) -> Option<Object> {
        let top = self.newest();
        let object = self.objects[top].take()?;
        self.top = self.top.wrapping_sub(1);
        gauges.set_count(self.top);
        Some(object)
    }

    /// Says how many there may be, and of which node.
    pub(super) const fn set(&mut self, most: u8, node: NodeId) {
        self.most = most;
        self.node = node;
    }

    /// Puts an object of a node that its owner gave back. Gives it back if there are enough, or they are
    /// of another node.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        object: Object,
        node: NodeId,
        gauges: &Gauges,
    ) -> Result<(), Object> {
        if self.top >= self.most || self.node != node {
            return Err(object);
        }
        self.push(object);
        gauges.set_count(self.top);
        Ok(())
    }

    #[inline(always)]
    fn push(&mut self, object: Object) {
        self.top = self.top.wrapping_add(1);
        let top = self.newest();
        self.objects[top] = Some(object);
    }

    /// Puts an object that comes from a slab, as long as there are fewer than `most`.
    #[inline]
    pub(super) fn fill(&mut self, object: Object, gauges: &Gauges) {
        self.push(object);
        gauges.set_count(self.top);
    }

    /// How many more there may be.
    pub(super) const fn room(&self) -> u8 {
        self.most.saturating_sub(self.top)
    }

    /// Moves the oldest objects out. [`Self::note_gone`] tells when they are back in their slabs.
    pub(super) fn take_old(&mut self, places: &mut [Option<Object>]) -> usize {
        let count = places.len().min(self.newest());
        for (place, object) in places
            .iter_mut()
            .zip(self.objects.iter_mut().skip(1))
            .take(count)
        {
            *place = object.take();
        }
        self.objects[1..].rotate_left(count);
        let [count, ..] = count.to_le_bytes();
        self.top = self.top.wrapping_sub(count);
        usize::from(count)
    }

    /// Tells others how many there are.
    pub(super) fn note_gone(&self, gauges: &Gauges) {
        gauges.set_count(self.top);
    }
}
