//! Host side of the tests.

pub mod ktest;
pub mod lean;
