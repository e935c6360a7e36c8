//! What the record of a page says that holds addresses of objects, which are freed when the page is.
#![forbid(unsafe_code)]

use super::Frame;
use crate::sync::RefCount;

/// In the upper byte of `refs`: a note, unlike that of slabs.
const TAG: u32 = RefCount::note(2 << 24);
const TAG_MASK: u32 = 0xff << 24;

impl Frame {
    /// Says that the page holds so many addresses, from its start on.
    pub(crate) fn set_named_objects(&self, count: u16) {
        self.refs().set_note(TAG | u32::from(count));
    }

    /// How many addresses the page holds; from now on its record does not say so any more.
    pub(crate) fn take_named_objects(&self) -> Option<u16> {
        let bits = self.refs().get();
        if bits & TAG_MASK != TAG {
            return None;
        }
        self.refs().set(0);
        u16::try_from(bits & !TAG_MASK).ok()
    }
}
