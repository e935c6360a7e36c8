//! Frames, zones and the buddy allocator on a simulated machine.

mod against_the_model;
mod basics;
mod model;
mod worlds;
