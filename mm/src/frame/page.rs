//! A frame number together with its record.
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::{Frame, FrameState, PageFlags};
use crate::addr::{Order, Pfn, PfnRange};
use crate::platform::Platform;

/// One page frame, to look at: what C kernels pass about as `struct page *`.
///
/// It is a view, not a right: it owns nothing, and what it shows may change under it.
#[derive(Clone, Copy)]
pub struct Page<'m> {
    pfn: Pfn,
    frame: &'m Frame,
}

impl<'m> Page<'m> {
    pub(super) const fn new(pfn: Pfn, frame: &'m Frame) -> Self {
        Self { pfn, frame }
    }

    /// The frame number (Linux: `page_to_pfn`).
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        self.pfn
    }

    /// The record.
    #[must_use]
    pub const fn frame(self) -> &'m Frame {
        self.frame
    }

    /// Where the kernel reaches the page (Linux: `page_address`).
    #[must_use]
    pub fn address<P: Platform>(self, platform: &P) -> Option<NonNull<u8>> {
        platform.direct_map(PfnRange::block(self.pfn, Order::ZERO).addrs())
    }

    /// The state, or `None` if the record was overwritten.
    #[must_use]
    pub fn state(self) -> Option<FrameState> {
        self.frame.word().state()
    }

    /// Order of the block that starts here (Linux: `compound_order`, `buddy_order`).
    #[must_use]
    pub fn order(self) -> Order {
        self.frame.word().order()
    }

    /// References to the block that starts here (Linux: `page_count`): one while it has one
    /// owner, none while it has none.
    #[must_use]
    pub fn count(self) -> u32 {
        match self.state() {
            Some(FrameState::Unique) => 1,
            Some(FrameState::Shared) => self.frame.refs().get(),
            _ => 0,
        }
    }

    /// The flags of the block that starts here.
    #[must_use]
    pub fn flags(self) -> PageFlags {
        self.frame.word().flags()
    }

    /// Number of the 128 MiB section that holds the frame (Linux: `page_to_section`).
    #[must_use]
    pub const fn section(self) -> u64 {
        self.pfn.section()
    }
}

impl fmt::Debug for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({} {:?})", self.pfn, self.frame.word())
    }
}
