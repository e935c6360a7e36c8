//! The memory of a kernel that runs `mm`, seen from outside.
//!
//! The guest's RAM is a file that QEMU maps; this reads it, and asks the guest nothing: it works on a kernel that hangs, and costs
//! the guest not one instruction. What is where is written down in the guest's memory ([`mm::inspect`]).
//!
//! - [`ram`]: the file, or files, by physical address.
//! - [`guest`]: a machine in it: where its records and numbers are.
//! - [`snapshot`]: what every frame is used for, and all numbers, at one moment.
//! - [`areas`]: what is mapped in the kernel.
//! - [`grid`]: many frames as few cells.
//! - [`picture`], [`movie`]: the same as pixels.
//! - [`history`], [`splits`]: what happened before, as far as it was recorded; how a block was halved and merged.
//! - [`mapped`], [`space`]: what page tables map, and a drawing of it.
//! - [`frame`]: one frame in words.
//! - [`tui`]: all of it in a terminal.

pub mod areas;
pub mod frame;
pub mod guest;
pub mod history;
pub mod mapped;
pub mod movie;
pub mod picture;
pub mod ram;
pub mod snapshot;
pub mod space;
pub mod splits;
pub mod tui;

/// What a frame is used for, and the colour for it: [`mm::inspect::Owner`].
pub mod owner {
    pub use mm::buddy::MigrateType as Type;
    pub use mm::inspect::{Owner, Rgb};
}

/// Many frames as few cells: those of [`mm_map`].
pub mod grid {
    pub use mm_map::{Grid, log_for};
}
