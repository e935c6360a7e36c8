//! Who allocated what, where that is kept (`page_owner=on`).
#![forbid(unsafe_code)]

use core::panic::Location;

use super::{Core, Memory};
use crate::addr::{Pfn, PfnRange};
use crate::buddy::Request;
use crate::platform::Platform;

impl<P: Platform> Memory<P> {
    /// Whether it is kept which line of the source allocated each block. Context: any.
    #[must_use]
    pub fn keeps_origins(&self) -> bool {
        self.core().is_some_and(|core| core.origins.are_kept())
    }

    /// The line of the source that allocated a frame last, if that is kept. Context: any.
    #[must_use]
    pub fn origin(&self, pfn: Pfn) -> Option<&'static Location<'static>> {
        self.core()?.origins.of(pfn)
    }
}

impl Core {
    /// Notes which line of the source got frames, where that is kept.
    #[inline]
    pub(super) fn note_origin(&self, request: &Request, frames: PfnRange) {
        if self.origins.are_kept() {
            self.origins.note(frames, request.place());
        }
    }
}
