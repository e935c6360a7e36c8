//! Frames, zones and the buddy allocator on a simulated machine.

mod against_the_model;
mod basics;
mod boundaries;
mod bulk;
mod classic;
mod concurrency;
mod contexts;
mod early;
mod faults;
mod fragmentation;
mod isolation;
mod latent;
mod lock_counts;
mod locks;
mod misuse;
mod model;
mod nodes;
mod origins;
mod page_lists;
mod poison;
mod ranges;
mod replay;
mod shapes;
mod states;
mod worlds;
mod zones;
