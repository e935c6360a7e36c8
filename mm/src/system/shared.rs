//! A reference-counted block of pages.
#![forbid(unsafe_code)]

use core::fmt;

use super::Home;
use crate::addr::{Order, Pfn};
use crate::frame::{PutOutcome, Reference};
use crate::platform::Platform;

/// One reference to a block that others may hold references to as well. Cloning it is Linux's
/// `get_page`, dropping it `put_page`; the last drop returns the block to its zone.
#[must_use = "dropping the last reference returns the block to its zone"]
pub struct SharedBlock<H: Home> {
    pfn: Pfn,
    /// Missing only where a damaged record refused to be counted.
    reference: Option<Reference>,
    order: Order,
    home: H,
}

impl<H: Home> SharedBlock<H> {
    pub(super) const fn new(reference: Reference, order: Order, home: H) -> Self {
        Self {
            pfn: reference.pfn(),
            reference: Some(reference),
            order,
            home,
        }
    }

    /// The first frame.
    #[must_use]
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// log2 of the number of frames.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// How many references there are; stale when it arrives (Linux: `page_count`). Context: any.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.home
            .memory()
            .page(self.pfn)
            .map_or(0, |page| page.count())
    }
}

impl<H: Home> Clone for SharedBlock<H> {
    fn clone(&self) -> Self {
        // Holding a reference keeps the count above zero, so this fails only if the record was
        // damaged; the twin then counts for nothing and frees nothing.
        let reference = self
            .home
            .memory()
            .frames()
            .and_then(|table| table.try_get(self.pfn));
        Self { reference, ..*self }
    }
}

impl<H: Home> Drop for SharedBlock<H> {
    fn drop(&mut self) {
        let memory = self.home.memory();
        let (Some(table), Some(reference)) = (memory.frames(), self.reference.take()) else {
            return;
        };
        match table.put(reference) {
            Ok(PutOutcome::Shared) => {}
            Ok(PutOutcome::Last(block)) => memory.release(block),
            Err(corruption) => memory.platform().corruption(&corruption),
        }
    }
}

impl<H: Home> fmt::Debug for SharedBlock<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBlock")
            .field("pfn", &self.pfn)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}
