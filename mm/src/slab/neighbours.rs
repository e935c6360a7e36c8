//! Objects that are freed one after the other lie in the same page more often than not: its record is looked at once.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use crate::addr::{PhysAddr, to_count, to_index};
use crate::config::PAGE_SIZE;
use crate::frame::slab::SlabTag;

/// What is known of the objects of one page, whose record was looked at.
pub(crate) struct Neighbours {
    /// Where it is mapped, …
    mapped: usize,
    /// … and where it is.
    at: u64,
    tag: SlabTag,
}

impl Neighbours {
    const BYTES: usize = to_index(PAGE_SIZE);
    /// No page.
    pub(crate) const NONE: Self = Self {
        // No page starts there.
        mapped: usize::MAX,
        at: 0,
        tag: SlabTag::NONE,
    };

    /// The page of an object, which is at `at`, and whose record says `tag`.
    #[inline(always)]
    pub(crate) fn around(object: NonNull<u8>, at: PhysAddr, tag: SlabTag) -> Self {
        Self {
            mapped: object.addr().get() & !(Self::BYTES - 1),
            at: at.frame().addr().as_u64(),
            tag,
        }
    }

    /// Whether an object is in the page.
    #[inline(always)]
    pub(crate) fn contains(&self, object: NonNull<u8>) -> bool {
        object.addr().get() ^ self.mapped < Self::BYTES
    }

    /// What the record says of an object in it, and its address.
    #[inline(always)]
    pub(crate) fn known_of(&self, object: NonNull<u8>) -> (SlabTag, u64) {
        let offset = object.addr().get() & (Self::BYTES - 1);
        (self.tag, self.at | to_count(offset))
    }
}
