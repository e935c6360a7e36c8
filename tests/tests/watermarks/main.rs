//! Watermarks and reserves: their numbers against Linux's, and that they hold.

mod maps;
mod reserves;
mod settings;
