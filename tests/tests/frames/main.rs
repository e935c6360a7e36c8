//! Frames, zones and the buddy allocator on a simulated machine.

mod against_the_model;
mod basics;
mod fragmentation;
mod isolation;
mod misuse;
mod model;
mod shapes;
mod worlds;
