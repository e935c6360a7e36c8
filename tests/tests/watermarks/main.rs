//! Watermarks and reserves: their numbers against Linux's, and that they hold.

mod boost;
mod cma;
mod high_atomic;
mod maps;
mod reclaim;
mod reserves;
mod settings;
mod world;
