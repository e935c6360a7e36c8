//! Many objects under one pin.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::cache::{BadFree, Cache, Rooms};
use super::ground::Ground;
use super::object::Object;
use crate::frame::SlabFrame;
use crate::frame::slab::SlabTag;
use crate::platform::Platform;
use crate::sync::Pin;

/// Objects that go back to their slabs under one hold of a lock.
const BATCH: usize = 32;

impl Cache {
    /// Hands out objects that this CPU has at hand into the empty places in front, up to the first that somebody
    /// wrote to. Answers how many. Context: any but NMI.
    pub(crate) fn take_many<G: Ground>(
        &self,
        ground: &G,
        places: &mut [Option<NonNull<u8>>],
    ) -> usize {
        let pin = Pin::new(ground.platform());
        let cells = self.rooms().get().map(Rooms::cells);
        let Some(mut own) = cells.and_then(|cells| cells.enter(&pin)) else {
            return 0;
        };
        let (magazine, gauges) = own.parts();
        let count = magazine.take_many(G::P::PROFILE, places, gauges);
        if own.leave() {
            self.serve(ground, &pin);
        }
        count
    }

    /// Puts objects that their owner gives up to those that this CPU has at hand, each with what the record of its frame
    /// says and its address, up to the first that does not belong there, which is answered, or for which there is no room.
    /// Answers how many, too. Context: any but NMI.
    pub(crate) fn put_back_many<G: Ground>(
        &self,
        ground: &G,
        objects: impl Iterator<Item = (Object, (SlabTag, u64))>,
    ) -> (usize, Option<Object>) {
        let pin = Pin::new(ground.platform());
        let cells = self.rooms().get().map(Rooms::cells);
        let Some(mut own) = cells.and_then(|cells| cells.enter(&pin)) else {
            return (0, None);
        };
        let (magazine, gauges) = own.parts();
        let outcome = magazine.put_back_many(objects, G::P::PROFILE, gauges);
        if own.leave() {
            self.serve(ground, &pin);
        }
        outcome
    }

    /// Takes objects back that their owner gives up, each with its slab; those that fit go to this CPU's at hand, the
    /// others to their slabs, many under one hold of a lock. The places are empty afterwards. Context: any but NMI.
    ///
    /// # Errors
    /// The first that is none, by place; those before it were taken back, and those behind are still there.
    pub(crate) fn free_many<G: Ground>(
        &self,
        ground: &G,
        objects: &mut [Option<(SlabFrame<'_>, Object)>],
    ) -> Result<(), (usize, BadFree)> {
        let mut outcome = Ok(());
        let mut good = objects.len();
        for (number, place) in objects.iter_mut().enumerate() {
            let Some((slab, object)) = place.take() else {
                continue;
            };
            match self.checked_by_profile(ground, slab, object) {
                Ok(object) => *place = Some((slab, object)),
                Err(error) => {
                    outcome = Err((number, error));
                    good = number;
                    break;
                }
            }
        }
        let (good, _) = objects.split_at_mut(good);
        self.put_many(ground, good);
        outcome
    }

    fn put_many<G: Ground>(&self, ground: &G, objects: &mut [Option<(SlabFrame<'_>, Object)>]) {
        let Some((_, rooms)) = self.parts() else {
            return;
        };
        let pin = Pin::new(ground.platform());
        if let Some(mut own) = rooms.cells().enter(&pin) {
            let (magazine, gauges) = own.parts();
            for place in objects.iter_mut() {
                if let Some((slab, object)) = place.take()
                    && let Err(object) = magazine.put(object, slab.tag, gauges)
                {
                    *place = Some((slab, object));
                }
            }
            if own.leave() {
                self.serve(ground, &pin);
            }
        }
        drop(pin);
        let mut left = objects
            .iter_mut()
            .filter_map(Option::take)
            .map(|(_, object)| object);
        loop {
            let mut some = [const { None }; BATCH];
            let mut count: usize = 0;
            for (place, object) in some.iter_mut().zip(&mut left) {
                *place = Some(object);
                count = count.wrapping_add(1);
            }
            if count == 0 {
                return;
            }
            self.give_back(ground, some.get_mut(..count).unwrap_or_default());
        }
    }
}
