//! A cache's slabs on one node: those with free objects hang together through their records (Linux:
//! `kmem_cache_node`).
#![forbid(unsafe_code)]

use super::debug::Full;
use super::shape::Shape;
use crate::addr::Pfn;
use crate::frame::{FrameTable, SlabFrame};

/// What a node has for a cache. Full slabs are only counted; the frame table knows them.
///
/// # Invariants
/// The list holds the slabs of the cache and node that have a free object, those without a taken one
/// last; `count` says how many, and `empty` how many of them have no taken object.
#[derive(Debug)]
pub(crate) struct Partial {
    first: Option<Pfn>,
    last: Option<Pfn>,
    count: u64,
    empty: u64,
    /// All slabs, full ones included, …
    slabs: u64,
    /// … their pages, …
    pages: u64,
    /// … and objects, …
    objects: u64,
    /// … and those that are not on lists of free ones.
    taken: u64,
    /// Slabs without a free object, if the cache is a debugged one.
    full: Full,
}

/// [`Partial`] in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PartialStats {
    pub(crate) slabs: u64,
    pub(crate) pages: u64,
    pub(crate) objects: u64,
    pub(crate) partial: u64,
    pub(crate) empty: u64,
    pub(crate) taken: u64,
}

impl Partial {
    pub(super) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            count: 0,
            empty: 0,
            slabs: 0,
            pages: 0,
            objects: 0,
            taken: 0,
            full: Full::new(),
        }
    }

    /// Slabs without a free object, of a debugged cache.
    pub(super) const fn full(&self) -> &Full {
        &self.full
    }

    /// The same, to change it.
    pub(super) const fn full_mut(&mut self) -> &mut Full {
        &mut self.full
    }

    /// Puts a slab of a debugged cache, of so many objects, where it belongs now that it has as many taken
    /// ones as the second number says, instead of the first.
    pub(super) fn relist(
        &mut self,
        slab: SlabFrame<'_>,
        (before, now): (u16, u16),
        objects: u16,
        frames: &FrameTable,
    ) {
        // Which list it is on, and where.
        let place = |taken: u16| (taken >= objects, taken == 0);
        if place(before) == place(now) {
            return;
        }
        match before >= objects {
            true => self.full.remove(slab, frames),
            false => self.remove(slab, before == 0, frames),
        }
        match now >= objects {
            true => self.full.insert(slab, frames),
            false => self.insert(slab, now == 0, frames),
        }
    }

    pub(super) const fn stats(&self) -> PartialStats {
        PartialStats {
            slabs: self.slabs,
            pages: self.pages,
            objects: self.objects,
            partial: self.count,
            empty: self.empty,
            taken: self.taken,
        }
    }

    /// The slab to take objects from.
    pub(super) const fn first(&self) -> Option<Pfn> {
        self.first
    }

    /// An empty slab, if there are more than `keep`.
    pub(super) fn surplus(&self, keep: u64) -> Option<Pfn> {
        self.last.filter(|_| self.empty > keep)
    }

    /// Takes note of a slab of that shape that came, …
    pub(super) fn note_slab(&mut self, shape: &Shape) {
        self.slabs = self.slabs.saturating_add(1);
        self.pages = self.pages.saturating_add(shape.order().frames());
        self.objects = self.objects.saturating_add(u64::from(shape.objects()));
    }

    /// … or of one that is gone.
    pub(super) fn note_slab_gone(&mut self, shape: &Shape) {
        self.slabs = self.slabs.saturating_sub(1);
        self.pages = self.pages.saturating_sub(shape.order().frames());
        self.objects = self.objects.saturating_sub(u64::from(shape.objects()));
    }

    /// Takes note of objects that went to CPUs and owners, …
    pub(super) fn note_taken(&mut self, objects: u64) {
        self.taken = self.taken.saturating_add(objects);
    }

    /// … and of those that came back.
    pub(super) fn note_back(&mut self, objects: u64) {
        self.taken = self.taken.saturating_sub(objects);
    }

    /// Puts a slab on the list: in front, or last if no object of it is taken.
    pub(super) fn insert(&mut self, slab: SlabFrame<'_>, is_empty: bool, frames: &FrameTable) {
        let (next, previous) = match is_empty {
            true => (None, self.last),
            false => (self.first, None),
        };
        slab.frame.set_next_slab(next);
        slab.frame.set_previous_slab(previous);
        self.join(previous, Some(slab.pfn), frames);
        self.join(Some(slab.pfn), next, frames);
        self.count = self.count.saturating_add(1);
        self.empty = self.empty.saturating_add(u64::from(is_empty));
    }

    /// Takes a slab off the list.
    pub(super) fn remove(&mut self, slab: SlabFrame<'_>, is_empty: bool, frames: &FrameTable) {
        let (next, previous) = slab.frame.slab_links();
        self.join(previous, next, frames);
        slab.frame.set_next_slab(None);
        slab.frame.set_previous_slab(None);
        self.count = self.count.saturating_sub(1);
        self.empty = self.empty.saturating_sub(u64::from(is_empty));
    }

    /// Makes two slabs neighbours; none stands for the end.
    fn join(&mut self, previous: Option<Pfn>, next: Option<Pfn>, frames: &FrameTable) {
        match previous.and_then(|pfn| frames.frame(pfn)) {
            Some(frame) => frame.set_next_slab(next),
            None => self.first = next,
        }
        match next.and_then(|pfn| frames.frame(pfn)) {
            Some(frame) => frame.set_previous_slab(previous),
            None => self.last = previous,
        }
    }
}
