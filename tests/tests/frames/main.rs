//! Frames, zones and the buddy allocator on a simulated machine.

mod basics;
