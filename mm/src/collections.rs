//! Data structures whose size is known at run time and that need no allocator.
#![forbid(unsafe_code)]

mod bitmap;
mod granules;
pub(crate) mod range_tree;
mod set_bank;

pub use bitmap::{Bit, Bitmap};
pub(crate) use granules::Granules;
pub use set_bank::{Members, SetBank};
