//! Host side of the tests.

pub mod budgets;
pub mod exporters;
pub mod ktest;
pub mod lean;
pub mod maps;
pub mod oracles;
pub mod race;
pub mod recorded;
pub mod rights;
pub mod seed;
pub mod sim;
pub mod threads;
pub mod traces;
pub mod window;
