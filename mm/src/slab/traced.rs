//! What an allocation tells of objects.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::ground::Ground;
use super::object::Object;
use crate::addr::{Pfn, VirtAddr};
use crate::buddy::{Step, Trace};
use crate::platform::{CpuId, Platform};

impl Cache {
    /// Tells of an object that a CPU took from those at hand, of which it `had` so many: some came if there was none.
    #[inline]
    pub(super) fn tell_taken<G: Ground>(
        &self,
        ground: &G,
        (cpu, had): (CpuId, u32),
        object: &Object,
        trace: &mut impl Trace,
    ) {
        if had == 0 {
            let objects = self.at_hand_of(cpu).saturating_add(1);
            trace.step(Step::ObjectsRefilled { objects });
        }
        let (pfn, offset) = place_of(ground, object);
        trace.step(Step::ObjectAtHand { pfn, offset });
    }
}

/// Tells of an object that came from a slab.
#[inline]
pub(super) fn tell_from_slab<G: Ground>(ground: &G, object: &Object, trace: &mut impl Trace) {
    let (pfn, offset) = place_of(ground, object);
    trace.step(Step::ObjectFromSlab { pfn, offset });
}

/// Where an object starts: its page, and the offset in it.
#[inline]
fn place_of<G: Ground>(ground: &G, object: &Object) -> (Pfn, u16) {
    let address = VirtAddr::from_ptr(object.as_ptr().as_ptr());
    let physical = ground.platform().virt_to_phys(address).unwrap_or_default();
    let pfn = physical.frame();
    let offset = physical.offset_from(pfn.addr()).unwrap_or_default();
    (pfn, u16::try_from(offset).unwrap_or_default())
}
