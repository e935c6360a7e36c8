//! Watermarks and reserves: their numbers against Linux's, and that they hold.

mod maps;
mod reclaim;
mod reserves;
mod settings;
