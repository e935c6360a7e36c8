//! `mm`: a memory core for x86_64 kernels.
#![cfg_attr(not(test), no_std)]

pub mod adapters;
pub mod addr;
pub mod buddy;
pub mod collections;
pub mod config;
pub mod frame;
pub mod mem;
pub mod memblock;
pub mod platform;
pub mod proc;
pub mod report;
pub mod sync;
pub mod system;
pub mod zone;
