//! Constructors: objects are made once, with their slab, and come back as good as new (Bonwick 1994).
#![forbid(unsafe_code)]

use super::Treatment;
use super::cache::Cache;
use super::ground::Ground;
use super::shape::Shape;
use crate::mem::Exclusive;

impl Cache {
    /// Constructs the objects of a new slab: before anybody else knows it, and without a lock, since a
    /// constructor may take its time. Context: as the allocation.
    pub(super) fn constructed<G: Ground>(
        &self,
        ground: &G,
        shape: Shape,
        mut block: Exclusive,
    ) -> Exclusive {
        let platform = ground.platform();
        let Some(ctor) = self.definition().ctor(platform) else {
            return block;
        };
        if let Some(bytes) = block.bytes_mut(platform) {
            for number in 0..shape.objects() {
                let Some(start) = shape.offset(number) else {
                    continue;
                };
                let end = start.saturating_add(shape.size());
                if let Some(object) = bytes.get_mut(start..end) {
                    ctor(object);
                }
            }
        }
        block
    }

    /// What is done to objects on their way out and in: nothing to those that keep what is in them.
    pub(super) fn treatment<G: Ground>(&self, ground: &G) -> Treatment {
        match self.definition().flags().keep_contents() {
            true => Treatment::default(),
            false => ground.treatment(),
        }
    }

    /// Whether zeroes cannot be asked for: objects hold what their constructor wrote.
    pub(crate) fn has_ctor(&self) -> bool {
        self.definition().flags().contains(super::SlabFlags::CTOR)
    }
}
