//! PVH and Multiboot2 entry for `bootloader_api` kernels: one ELF that `qemu -kernel` and GRUB
//! start, without a boot loader image.
//!
//! A kernel needs three things (`docs/boot.md` has the rest):
//!
//! - `boot_build::configure()` in its `build.rs`,
//! - [`entry!`] in its binary, once,
//! - `bootloader_api::entry_point!` as with any other loader.
//!
//! [`say!`] and [`exit`] are a first console and a way to end QEMU. [`handoff`] reaches what `BootInfo` has no field for. The parsers ([`pvh`], [`multiboot2`]) are
//! total functions over [`PhysMemory`] and run on the host too. This library itself has no
//! assembly at module level and exports no symbols.
#![no_std]
#![cfg(target_arch = "x86_64")]

#[cfg(test)]
extern crate std;

mod arena;
mod bytes;
mod console;
mod cpu;
mod disjoint;
mod entry;
mod error;
mod framebuffer;
mod handoff;
mod image;
mod levels;
mod list;
mod memory_symbols;
pub mod multiboot2;
mod paging;
pub mod pvh;
mod regions;
mod serial;
mod start;
mod warning;
mod wishes;

pub use bytes::{PhysMemory, SliceMemory};
pub use console::{Exit, exit, print};
pub use entry::DEFAULT_STACK_SIZE;
pub use error::BootError;
pub use handoff::{
    COMMAND_LINE_CAPACITY, Handoff, Protocol, RangeKind, RawFramebuffer, ReservedRange,
};
pub use image::{Image, ImageError, VIRTUAL_OFFSET, check_placement};
pub use paging::{DEFAULT_PHYSICAL_OFFSET, FRAMEBUFFER_WINDOW, MapError};
pub use regions::{BOOT_REGIONS, FIRMWARE_REGIONS, Regions, Run};
pub use serial::EXIT_BOOT_ERROR;
pub use start::{handoff, start};
pub use warning::{Warning, Wish};

/// Returns the command line, if the loader gave one; [`Handoff::command_line`] has the details.
#[must_use]
pub fn command_line() -> Option<&'static str> {
    handoff().and_then(Handoff::command_line)
}

/// Returns the memory a kernel must reserve; empty in a kernel that `boot` did not start.
#[must_use]
pub fn reserved_ranges() -> &'static [ReservedRange] {
    handoff().map(Handoff::reserved_ranges).unwrap_or_default()
}

/// Returns what was odd at boot, for the kernel's log; it was printed on COM1 already.
#[must_use]
pub fn warnings() -> &'static [Warning] {
    handoff().map(Handoff::warnings).unwrap_or_default()
}
