//! Bytes of the sampling guard pool: pages that hold one object each, between pages that nobody may touch.

use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use super::Object;
use crate::addr::{PhysAddr, PhysRange, to_count, to_index};
use crate::config::PAGE_SIZE;
use crate::mem::EarlyRam;
use crate::platform::Platform;
use crate::slab::Ctor;

const PAGE: usize = to_index(PAGE_SIZE);

/// Bytes around an object that are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::slab) struct BadCanary {
    /// Where in the page the first one is.
    pub(in crate::slab) at: usize,
    /// From there to the last one.
    pub(in crate::slab) len: usize,
    /// What the first one should be.
    pub(in crate::slab) expected: u8,
    /// As many of them as fit.
    pub(in crate::slab) found: [u8; 8],
}

/// The byte that belongs somewhere around an object; it tells where it is from (Linux: `KFENCE_CANARY_PATTERN_U8`).
fn canary(at: usize) -> u8 {
    let [low, ..] = at.to_le_bytes();
    0xaa ^ (low & 7)
}

/// The pages.
///
/// # Invariants
/// `first` is where the platform reaches all bytes of `range`, whole pages, which nobody has a token for.
#[derive(Debug)]
pub(in crate::slab) struct PoolMemory {
    first: NonNull<u8>,
    range: PhysRange,
}

// SAFETY: it is the only way to its bytes.
unsafe impl Send for PoolMemory {}

/// An object that is about to be handed out.
///
/// # Invariants
/// Nobody else has these bytes.
#[derive(Debug)]
pub(in crate::slab) struct Fresh {
    first: NonNull<u8>,
    size: usize,
}

impl PoolMemory {
    /// Pages that stay the pool's for good. The token comes back if the platform does not reach them.
    pub(in crate::slab) fn new<P: Platform>(platform: &P, ram: EarlyRam) -> Result<Self, EarlyRam> {
        match platform.direct_map(ram.range()) {
            // INVARIANT: the token is given up.
            Some(first) => Ok(Self {
                first,
                range: ram.leak(),
            }),
            None => Err(ram),
        }
    }

    /// A page's physical address.
    pub(in crate::slab) fn page(&self, page: usize) -> PhysAddr {
        let offset = to_count(page).saturating_mul(PAGE_SIZE);
        self.range.start().saturating_add(offset)
    }

    /// Bytes of a page. Context: the page can be touched, and no owner has these bytes.
    fn bytes(&mut self, page: usize, range: Range<usize>) -> &mut [u8] {
        let start = page.saturating_mul(PAGE).saturating_add(range.start);
        let end = start.saturating_add(range.len());
        if range.end > PAGE || to_count(end) > self.range.size() {
            return &mut [];
        }
        // SAFETY: within the pages.
        let first = unsafe { self.first.add(start) };
        // SAFETY: as above; they are ours (the invariant), no owner has them (the caller), and `&mut self` makes
        // this the only way to them. RAM always holds some values.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), range.len()) }
    }

    /// Writes what belongs around an object. Context: as [`Self::find_bad`].
    pub(in crate::slab) fn fill_canary(&mut self, page: usize, range: Range<usize>) {
        let places = range.clone();
        for (place, byte) in places.zip(self.bytes(page, range)) {
            *byte = canary(place);
        }
    }

    /// What of that was changed. Context: the page can be touched, and no owner has these bytes.
    pub(in crate::slab) fn find_bad(
        &mut self,
        page: usize,
        range: Range<usize>,
    ) -> Option<BadCanary> {
        let start = range.start;
        let bytes = &*self.bytes(page, range);
        let is_bad = |(place, byte): (usize, &u8)| *byte != canary(start.saturating_add(place));
        let first = bytes.iter().enumerate().position(is_bad)?;
        let last = bytes.iter().enumerate().rposition(is_bad)?;
        let wrong = bytes.get(first..=last)?;
        let mut found = [0; 8];
        for (place, byte) in found.iter_mut().zip(wrong) {
            *place = *byte;
        }
        let at = start.saturating_add(first);
        Some(BadCanary {
            at,
            len: wrong.len(),
            expected: canary(at),
            found,
        })
    }

    /// Writes zeroes to a page. Context: it can be touched, and no owner has any of it.
    pub(in crate::slab) fn wipe(&mut self, page: usize) {
        self.bytes(page, 0..PAGE).fill(0);
    }

    /// Bytes of a page for an owner. Context: as [`Self::wipe`], until they are freed.
    pub(in crate::slab) fn hand_out(&mut self, page: usize, range: Range<usize>) -> Option<Fresh> {
        let bytes = self.bytes(page, range);
        let size = bytes.len();
        // INVARIANT: no owner has them, and the pool does not look at what an owner has.
        (size > 0).then(|| Fresh {
            first: NonNull::from_mut(bytes).cast(),
            size,
        })
    }
}

impl Fresh {
    /// Writes zeroes over it.
    pub(in crate::slab) fn zero(&mut self) {
        // SAFETY: as many bytes as it has, nobody else's (the invariant).
        unsafe { self.first.write_bytes(0, self.size) };
    }

    /// Has a constructor make it.
    pub(in crate::slab) fn construct(&mut self, ctor: Ctor) {
        // SAFETY: as in `zero`.
        ctor(unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.size) });
    }

    /// What its owner gets.
    pub(in crate::slab) const fn into_object(self) -> Object {
        // INVARIANT: nobody else has it.
        Object(self.first)
    }
}
