//! `mm`: a memory core for x86_64 kernels.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod config;
pub mod mem;
pub mod memblock;
pub mod platform;
pub mod report;
pub mod zone;
