//! Host side of the tests.

pub mod maps;
pub mod window;
