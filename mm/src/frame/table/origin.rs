//! Where in the source each block was allocated (Linux: `page_owner`).
//!
//! One word a frame, only where it is asked for.

use core::panic::Location;

use crate::addr::{Pfn, PfnRange};
use crate::frame::ByFrame;
use crate::sync::atomic::{AtomicPtr, Ordering};

/// Where a frame was allocated last.
///
/// # Invariants
/// Null, or made from a `&'static Location<'static>`.
#[derive(Debug, Default)]
pub struct Origin(AtomicPtr<Location<'static>>);

impl Origin {
    pub(crate) fn set(&self, place: &'static Location<'static>) {
        // INVARIANT: a static reference.
        self.0
            .store(core::ptr::from_ref(place).cast_mut(), Ordering::Release);
    }

    /// Whether it is `place`, or becomes so because it was none.
    pub(crate) fn claim(&self, place: &'static Location<'static>) -> bool {
        if let Some(found) = self.get() {
            return found == place;
        }
        let (free, word) = (core::ptr::null_mut(), core::ptr::from_ref(place).cast_mut());
        let (set, seen) = (Ordering::AcqRel, Ordering::Acquire);
        // INVARIANT: a static reference.
        let _ = self.0.compare_exchange(free, word, set, seen);
        self.get() == Some(place)
    }

    pub(crate) fn get(&self) -> Option<&'static Location<'static>> {
        let place = self.0.load(Ordering::Acquire);
        // SAFETY: the invariant.
        unsafe { place.as_ref() }
    }
}

/// The origins of all frames of a machine, where they are kept.
pub type Origins = ByFrame<Origin>;

impl Origins {
    /// Notes where frames were allocated. Context: any.
    pub fn note(&self, frames: PfnRange, place: &'static Location<'static>) {
        for origin in frames.iter().filter_map(|pfn| self.at(pfn)) {
            origin.set(place);
        }
    }

    /// Where a frame was allocated last. Context: any.
    #[must_use]
    pub fn of(&self, pfn: Pfn) -> Option<&'static Location<'static>> {
        self.at(pfn)?.get()
    }
}
