//! A reference-counted block of pages.
#![forbid(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;

use super::{Block, Home};
use crate::addr::{Order, Pfn};
use crate::frame::{PutOutcome, Reference};
use crate::platform::Platform;

/// What happens to a shared block when its last reference is dropped (Linux: a compound page's
/// destructor).
pub trait Destructor<H: Home> {
    /// Takes the block, of which the caller has become the owner. Context: that of whoever dropped
    /// the last reference.
    fn destroy(block: Block<H>);
}

/// The block goes back to its zone.
#[derive(Clone, Copy, Debug)]
pub enum ToZone {}

impl<H: Home> Destructor<H> for ToZone {
    #[inline]
    fn destroy(block: Block<H>) {
        drop(block);
    }
}

/// One reference to a block that others may hold references to as well. Cloning it is Linux's
/// `get_page`, dropping it `put_page`; the last drop gives the block to the destructor `D`, which by
/// default returns it to its zone.
#[must_use = "dropping the last reference gives the block up"]
pub struct SharedBlock<H: Home, D: Destructor<H> = ToZone> {
    pfn: Pfn,
    /// Missing only where a damaged record refused to be counted.
    reference: Option<Reference>,
    order: Order,
    home: H,
    destructor: PhantomData<fn() -> D>,
}

impl<H: Home, D: Destructor<H>> SharedBlock<H, D> {
    pub(super) const fn new(reference: Reference, order: Order, home: H) -> Self {
        Self {
            pfn: reference.pfn(),
            reference: Some(reference),
            order,
            home,
            destructor: PhantomData,
        }
    }

    /// The first frame. Context: any.
    #[must_use]
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// log2 of the number of frames. Context: any.
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

impl<H: Home, D: Destructor<H>> Clone for SharedBlock<H, D> {
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

impl<H: Home, D: Destructor<H>> Drop for SharedBlock<H, D> {
    fn drop(&mut self) {
        let memory = self.home.memory();
        let (Some(table), Some(reference)) = (memory.frames(), self.reference.take()) else {
            return;
        };
        match table.put(reference) {
            Ok(PutOutcome::Shared) => {}
            Ok(PutOutcome::Last(block)) => D::destroy(Block::new(block, self.home)),
            Err(corruption) => memory.platform().corruption(&corruption),
        }
    }
}

impl<H: Home, D: Destructor<H>> fmt::Debug for SharedBlock<H, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBlock")
            .field("pfn", &self.pfn)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}
