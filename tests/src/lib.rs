//! Host side of the tests.

pub mod ktest;
