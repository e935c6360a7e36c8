//! Where in the source each block was allocated (Linux: `page_owner`).
//!
//! One word a frame beside the records, only where it is asked for: the records have no room.

use core::panic::Location;

use crate::addr::{Pfn, PfnRange, Rows, VirtAddr, to_count, to_index};
use crate::config::SECTION_FRAMES;
use crate::mem::Array;
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

/// The origins of all frames of a machine, by section; none where they are not kept.
#[derive(Debug)]
pub struct Origins {
    sections: Array<Array<Origin>>,
}

impl Origins {
    /// Nothing is kept.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            sections: Array::empty(),
        }
    }

    /// One array for each section, empty for those without memory.
    #[must_use]
    pub const fn new(sections: Array<Array<Origin>>) -> Self {
        Self { sections }
    }

    /// Origins of a section.
    pub const SECTION: usize = to_index(SECTION_FRAMES);

    /// Whether they are kept.
    #[inline]
    #[must_use]
    pub fn are_kept(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Where the arrays of the sections are, if origins are kept; the fields are pointer and length.
    pub(crate) fn rows(&self) -> Option<Rows> {
        let first = self.sections.first()?;
        Some(Rows {
            at: VirtAddr::from_ptr(first),
            count: to_count(self.sections.len()),
            stride: to_count(size_of::<Array<Origin>>()),
            fields: Array::<Origin>::FIELDS,
        })
    }

    /// Notes where frames were allocated. Context: any.
    pub fn note(&self, frames: PfnRange, place: &'static Location<'static>) {
        for pfn in frames.iter() {
            if let Some(origin) = self.origin(pfn) {
                origin.set(place);
            }
        }
    }

    /// Where a frame was allocated last. Context: any.
    #[must_use]
    pub fn of(&self, pfn: Pfn) -> Option<&'static Location<'static>> {
        self.origin(pfn)?.get()
    }

    fn origin(&self, pfn: Pfn) -> Option<&Origin> {
        self.sections.at(pfn.section())?.at(pfn.section_offset())
    }
}
