//! Everything at once, for long: all that the library hands out, on all CPUs, interrupted at every point.

mod endures;
mod handed;
mod hidden;
mod injected;
mod kinds;
mod player;
