//! `mm`: a memory core for x86_64 kernels.
#![cfg_attr(not(test), no_std)]
