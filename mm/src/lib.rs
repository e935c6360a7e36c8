//! `mm`: a memory core for x86_64 kernels.
//!
//! From the firmware's memory map to pages: [`memblock`] puts the map right and serves early
//! allocations, [`zone`] and [`frame`] describe what there is, [`buddy`] hands it out, and
//! [`system::Memory`] wires it all. The architecture is Linux's; `docs/glossary.md` maps its
//! names to ours.
//!
//! | Level | Module | What | Linux counterpart |
//! |---|---|---|---|
//! | 0 | [`addr`] | addresses, frame numbers, orders, ranges; a direct map | `pfn.h`, `__va` |
//! | 0 | [`config`] | numbers that the architecture fixes | `page_types.h` |
//! | 0 | [`report`] | one type for damage of any kind | `bad_page` |
//! | 0 | [`numa`] | sets of nodes, and what a task wants of them | `nodemask.h`, `mempolicy.h` |
//! | 0 | [`platform`] | what the library asks of a machine | `arch/` |
//! | 1 | [`sync`] | locks, a cell that is filled once, counters, grace periods | `spinlock.h`, `refcount.h`, RCU |
//! | 1 | [`mem`] | tokens for raw memory: [`RamClaim`](mem::RamClaim), [`EarlyRam`](mem::EarlyRam) | – |
//! | 1 | [`collections`] | sets with their smallest member at hand | – |
//! | 2 | [`memblock`] | memory before there are frames | `memblock.c`, `e820.c` |
//! | 2 | [`frame`] | the record of every frame | `struct page`, sparsemem |
//! | 3 | [`zone`] | nodes, zones and their [`Plan`](zone::plan::Plan) | `pg_data_t`, `mm_init.c` |
//! | 3 | [`buddy`] | free blocks, migrate types, [`Gfp`](buddy::Gfp) | `page_alloc.c` |
//! | 4 | [`slab`] | objects smaller than pages: caches, `kmalloc` | `slub.c` |
//! | 4 | [`pagetable`] | entries, tables, and cursors over ranges of them | `pgtable.h` |
//! | 5 | [`kspace`] | kernel addresses that are virtually contiguous; what each CPU has a copy of | `vmalloc.c`, `percpu.c` |
//! | 8 | [`system`] | [`Memory`](system::Memory) and its handles | `alloc_pages` and its kin |
//! | 8 | [`adapters`] | doors for code that keeps raw numbers | `free_pages`, `put_page` |
//! | 8 | [`inspect`] | where everything is, for viewers on the host | `vmcoreinfo` |
//! | 8 | [`proc`] | texts of the `/proc` files | `/proc` |
//!
//! A module uses modules of lower levels only.
//!
//! Nothing here allocates, panics on bad input, or keeps state outside a
//! [`Memory`](system::Memory) value.
//!
#![doc = include_str!("bring_up.md")]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    loom,
    expect(
        dead_code,
        reason = "only protocols are built over loom, not who uses them"
    )
)]

#[cfg(not(loom))]
pub mod adapters;
pub mod addr;
#[cfg(not(loom))]
pub mod buddy;
#[cfg(not(loom))]
pub mod collections;
pub mod config;
pub mod frame;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
pub mod kspace;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod mem;
#[cfg(not(loom))]
pub mod memblock;
pub mod numa;
#[cfg(not(loom))]
pub mod pagetable;
pub mod platform;
#[cfg(not(loom))]
pub mod proc;
pub mod report;
#[cfg(not(loom))]
pub mod slab;
pub mod sync;
#[cfg(not(loom))]
pub mod system;
#[cfg(not(loom))]
pub mod zone;
