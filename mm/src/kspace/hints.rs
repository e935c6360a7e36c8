//! Which area starts at an address: a guess that is right most of the time.
#![forbid(unsafe_code)]

use super::Area;
use super::raw::Link;
use crate::addr::{VirtAddr, to_index};
use crate::config::PAGE_SHIFT;
use crate::mem::{Array, CarveError, EarlyRam};
use crate::platform::Platform;

/// log2 of the number of places.
const BITS: u32 = 11;
const PLACES: usize = 1 << BITS;

/// Areas that were taken last, at places that their addresses choose. Whoever has an address looks here first, and checks
/// what is found; the tree knows all of them.
#[derive(Debug)]
pub(super) struct Hints(Array<Link>);

impl Hints {
    /// Bytes that [`Self::new`] needs.
    pub(super) fn bytes() -> Option<u64> {
        Array::<Link>::bytes_for(PLACES)
    }

    pub(super) fn new<P: Platform>(platform: &P, ram: EarlyRam) -> Result<Self, CarveError> {
        let none = |_| Link::default();
        Ok(Self(Array::carve(platform, ram, PLACES, none)?))
    }

    /// The place for an address: neighbours are apart, so that CPUs do not write to one cache line.
    #[inline]
    fn place(&self, at: VirtAddr) -> Option<&Link> {
        // Knuth's multiplicative hash, by the golden ratio.
        let page = at.as_u64() >> PAGE_SHIFT;
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS);
        self.0.get(to_index(hash))
    }

    #[inline]
    pub(super) fn note(&self, at: VirtAddr, area: &'static Area) {
        if let Some(place) = self.place(at) {
            place.set(Some(area));
        }
    }

    #[inline]
    pub(super) fn guess(&self, at: VirtAddr) -> Option<&'static Area> {
        self.place(at)?.get()
    }
}
