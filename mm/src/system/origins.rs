//! Who allocated what, where that is kept (`page_owner=on`).
#![forbid(unsafe_code)]

use core::panic::Location;

use super::{Core, Memory};
use crate::addr::{Pfn, PfnRange, VirtAddr};
use crate::buddy::Request;
use crate::platform::Platform;
use crate::report::{CALLERS, FreedBy};

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

    /// Who gave a frame back last, if that is kept; also if somebody has it again. Context: any.
    #[must_use]
    pub fn last_free(&self, pfn: Pfn) -> Option<FreedBy> {
        self.core()?.last_frees.of(pfn)
    }
}

impl Core {
    /// Notes which line of the source got frames, where that is kept.
    #[inline]
    pub(super) fn note_origin(&self, request: &Request, frames: PfnRange) {
        if self.origins.are_kept() {
            self.origins.note(frames, request.place());
            self.last_frees.taken(frames);
        }
    }

    /// Notes who gives frames back, where that is kept.
    #[inline]
    pub(super) fn note_free<P: Platform>(&self, platform: &P, frames: PfnRange) {
        if self.last_frees.are_kept() {
            let mut callers = [VirtAddr::default(); CALLERS];
            let task = platform.who_calls(&mut callers);
            let by = FreedBy {
                cpu: platform.current_cpu(),
                task,
                callers,
            };
            self.last_frees.note(frames, &by);
        }
    }
}
