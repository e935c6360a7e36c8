//! `mm`: a memory core for x86_64 kernels.
//!
//! From the firmware's memory map to pages: [`memblock`] puts the map right and serves early
//! allocations, [`zone`] and [`frame`] describe what there is, [`buddy`] hands it out, and
//! [`system::Memory`] wires it all. The architecture is Linux's; `docs/glossary.md` maps its
//! names to ours.
//!
//! | Level | Modules | Linux counterpart |
//! |---|---|---|
//! | 0 | [`addr`], [`config`], [`report`], [`platform`] | – |
//! | 1 | [`sync`], [`mem`], [`collections`] | locks, lists |
//! | 2 | [`memblock`], [`frame`] | `memblock.c`, `struct page`, sparsemem |
//! | 3 | [`zone`], [`buddy`] | `pg_data_t`, `page_alloc.c` |
//! | 8 | [`system`], [`adapters`], [`proc`] | `mm_init.c`, `/proc` |
//!
//! A module uses modules of lower levels only.
//!
//! # Bringing memory up
//!
//! 1. Implement [`platform::Platform`]: where RAM is mapped, which CPU this is, interrupts off
//!    and on, where damage is reported.
//! 2. Make a [`memblock::Memblock`] from a [`mem::RamClaim`]; reserve what is in use; give the
//!    firmware's map to [`memblock::setup::add_firmware_map`].
//! 3. Compute a [`zone::plan::Plan`] and hand both to
//!    [`Memory::bring_up`](system::Memory::bring_up).
//! 4. Allocate: [`Memory::alloc_block`](system::Memory::alloc_block) gives an owning handle,
//!    [`Memory::alloc_pages`](system::Memory::alloc_pages) a plain frame number.
//!
//! Nothing here allocates, panics on bad input, or keeps state outside a
//! [`Memory`](system::Memory) value.
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
