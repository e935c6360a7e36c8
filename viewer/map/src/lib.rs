//! The frame map of a machine, drawn: a dot for each frame, or for a few, in the colour of what it is used for, and a legend.
//!
//! Whoever has pixels draws it with [`Map::draw`]: the viewer, which makes files of it, and the reference kernel on its own screen.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod grid;
mod map;

pub use grid::{Grid, log_for};
pub use map::{BACKGROUND, Map, TEXT, ZoneLine, mib, rgb};
