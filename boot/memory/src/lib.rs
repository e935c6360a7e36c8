//! The memory core `mm` in a `bootloader_api` kernel of one CPU, by one call.
//!
//! `mm` asks its users for a [`Platform`](mm::platform::Platform), for the firmware's map, and for page tables. A kernel
//! that is started by `bootloader_api` on one CPU has nothing of its own to say about these, so it is all here:
//!
//! - [`OneCpu`], the machine as `mm` sees it;
//! - [`bring_up`], from the boot loader's map to pages, `kmalloc`, `vmalloc` and `ioremap`;
//! - [`Stack`], a stack with a guard page, to call code on.
//!
//! It needs `bootloader_api`, not the crate `boot`: any loader of that interface should do, but only `boot` was tried
//! (`docs/porting.md` has what differs with the official one). A kernel with more CPUs, or with
//! threads that are preempted, writes a platform of its own: `docs/porting.md` says how, and what of this it can keep.
#![no_std]
#![cfg(target_arch = "x86_64")]

mod address_space;
mod bring_up;
mod error;
mod one_cpu;
mod regions;
mod stack;

pub use bring_up::{bring_up, settled_frames};
pub use error::Error;
pub use one_cpu::{InInterrupt, OneCpu};
pub use stack::Stack;
