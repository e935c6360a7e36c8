//! Kernel addresses on a simulated machine: areas, their frames, their end.

mod areas;
mod basics;
mod failing;
mod others;
mod purge;
mod suite;
mod world;
