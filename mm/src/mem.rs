//! The raw-memory room: the only place that touches the bytes of physical memory.
//!
//! Two tokens say who may touch what. [`EarlyRam`] is a byte range that early allocation handed
//! out; [`Exclusive`] is a block of frames that the frame table took out of circulation. Both
//! are values that cannot be copied, so that a range has at most one writer.

mod array;
mod cell;
mod early;
mod exclusive;
pub mod poison;

pub use array::{Array, CarveError};
pub use cell::EarlyBox;
pub use early::{EarlyRam, RamClaim};
pub use exclusive::Exclusive;
