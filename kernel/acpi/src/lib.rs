//! The ACPI tables that say which CPUs and which memory a machine has: RSDP, RSDT/XSDT, MADT,
//! SRAT, SLIT.
//!
//! Every function here is total: it reads through [`PhysMemory`], which answers `None` for what
//! it does not reach, and whatever a firmware wrote there, truncated, lying or random, ends in a
//! value or in a typed error after a number of steps that the table's length bounds. Nothing is
//! allocated and nothing is copied but fields.
//!
//! | file | what |
//! |---|---|
//! | `memory` | reading physical memory, field by field |
//! | `rsdp` | the root pointer: at an address, or searched for |
//! | `tables` | the root table, and any table of it, with checksums |
//! | `records` | variable records one after the other, as MADT and SRAT have them |
//! | [`madt`] | CPUs and interrupt controllers |
//! | [`srat`], [`slit`] | which node CPUs and memory belong to; distances between nodes |
//!
//! The way in is [`find_rsdp`] or [`Rsdp::read`], then [`Tables::open`], then `Madt::find` and
//! its kin. Section numbers in comments are those of the ACPI specification 6.5.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(clippy::arithmetic_side_effects, reason = "tests may add")
)]

#[cfg(test)]
extern crate std;

mod error;
pub mod madt;
mod memory;
mod records;
mod rsdp;
pub mod slit;
pub mod srat;
mod tables;

#[cfg(test)]
mod build;
#[cfg(test)]
mod fuzz;

pub use error::{AcpiError, RecordError, Signature};
pub use madt::Madt;
pub use memory::{PhysMemory, SliceMemory};
pub use rsdp::{Rsdp, find_rsdp};
pub use slit::Slit;
pub use srat::Srat;
pub use tables::{MAX_TABLE_BYTES, Table, Tables};
