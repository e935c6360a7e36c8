//! In-kernel tests seen from outside: what a boot's serial output says about each of them, and
//! which boots it takes to get a verdict on all.
//!
//! The kernel's `ktest` command prints
//!
//! ```text
//! KTEST buddy::split ... start
//! KTEST buddy::split ... ok
//! KTEST buddy::merge ... start
//! KTEST buddy::merge ... FAILED: 3 blocks, not 2
//! KTEST done 1 1
//! ```
//!
//! and a panic or a fault ends the machine in the middle. [`report`] reads that; [`rounds`] boots
//! again for the tests that are left.

pub mod report;
pub mod rounds;
