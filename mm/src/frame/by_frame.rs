//! What is kept of each frame beside its record, only where it is asked for: the records have no room.
#![forbid(unsafe_code)]

use crate::addr::{Pfn, Rows, VirtAddr, to_count, to_index};
use crate::config::SECTION_FRAMES;
use crate::mem::Array;

/// A `T` for each frame of a machine, by section; no sections where it is not kept.
#[derive(Debug)]
pub struct ByFrame<T: 'static> {
    sections: Array<Array<T>>,
}

impl<T: 'static> ByFrame<T> {
    /// How many there are of a section.
    pub const SECTION: usize = to_index(SECTION_FRAMES);

    /// Nothing is kept.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            sections: Array::empty(),
        }
    }

    /// One array for each section, empty for those without memory.
    #[must_use]
    pub const fn new(sections: Array<Array<T>>) -> Self {
        Self { sections }
    }

    /// Whether anything is kept.
    #[inline]
    #[must_use]
    pub fn are_kept(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Where the arrays of the sections are, if there are any; the fields are pointer and length.
    pub(crate) fn rows(&self) -> Option<Rows> {
        let first = self.sections.first()?;
        Some(Rows {
            at: VirtAddr::from_ptr(first),
            count: to_count(self.sections.len()),
            stride: to_count(size_of::<Array<T>>()),
            fields: Array::<T>::FIELDS,
        })
    }

    /// What is kept of a frame. Context: any.
    pub(crate) fn at(&self, pfn: Pfn) -> Option<&T> {
        self.sections.at(pfn.section())?.at(pfn.section_offset())
    }
}
