//! Addresses, frame numbers, orders and ranges: newtypes with checked arithmetic.
//!
//! A number of one kind never turns into another by `as`, and no sum wraps silently:
//! arithmetic that can leave the type returns `Option`. All address arithmetic of the
//! library lives here, so that boundary cases are tested in one place.
#![forbid(unsafe_code)]

mod direct_map;
mod frame_number;
mod order;
mod phys;
mod place;
mod virt;

pub use direct_map::DirectMap;
pub use frame_number::{Pfn, PfnRange};
pub use order::Order;
pub use phys::{PhysAddr, PhysRange};
pub(crate) use place::{Place, Rows, field};
pub use virt::{VirtAddr, VirtRange};

const _: () = assert!(usize::BITS == 64, "x86_64 only");

/// Private functions for conversions that `From` does not offer in const context.
macro_rules! conversions {
    ($($name:ident: $from:ty => $to:ty;)*) => {$(
        #[inline]
        const fn $name(value: $from) -> $to {
            value as $to
        }
    )*};
}
pub(crate) use conversions;

/// Turns a 64-bit count into an index.
#[inline]
#[must_use]
#[expect(
    clippy::as_conversions,
    reason = "usize is 64 bits wide: asserted above"
)]
pub const fn to_index(count: u64) -> usize {
    count as usize
}

/// Turns an index or a length into a 64-bit count.
#[inline]
#[must_use]
#[expect(
    clippy::as_conversions,
    reason = "usize is 64 bits wide: asserted above"
)]
pub const fn to_count(index: usize) -> u64 {
    index as u64
}
