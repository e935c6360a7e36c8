//! Host side of the tests.

pub mod ktest;
pub mod maps;
pub mod random;
pub mod window;
