//! The lock order, outermost first. A lock may be taken only while every held one stands
//! above it in this tree; two of the same rank are never held together.
//!
//! ```text
//! tlb             (30)  not a lock: waiting until other CPUs have flushed their TLBs
//!   settings      (40)  what the machine's owner chose; watermarks are written under it
//!     caches      (44)  which caches there are
//!     cma         (45)  which frames of the CMA area are taken
//!     populate    (46)  one section at a time gets its records; interrupts off
//!     vmalloc     (47)  which addresses areas of the kernel have; interrupts off
//!       page table (48) the tables that a range goes through, from above; no CPU is waited for
//!       zone      (50)  free areas of one zone; interrupts off
//!         slab    (60)  slabs of a cache on one node; interrupts off
//!           percpu  (65)  which bytes are taken of what each CPU has a copy of
//!           mempool (70)  the reserve of a pool
//!             inspect (71)  what is written down for viewers
//! early heap      (72)  blocks that Rust's `alloc` has from before memory was up; interrupts off
//! ```
//!
//! The `debug` profile reports every take and release to the platform
//! ([`Platform::lock_acquired`](crate::platform::Platform::lock_acquired)), which checks the order.

use crate::platform::LockClass;

/// Waiting for other CPUs to flush ([`flush_tlb`](crate::system::Memory::flush_tlb)): outermost, so that whoever
/// does so with a lock held is found out. A CPU that spins for that lock with interrupts off would never answer.
pub const TLB: LockClass = LockClass {
    name: "tlb",
    rank: 30,
};

/// Settings of the machine; its holder alone writes watermarks.
pub const SETTINGS: LockClass = LockClass {
    name: "settings",
    rank: 40,
};

/// Populating a section.
pub const POPULATE: LockClass = LockClass {
    name: "populate",
    rank: 46,
};

/// Which frames of the CMA area are taken; not held while they are.
pub const CMA: LockClass = LockClass {
    name: "cma",
    rank: 45,
};

/// Which addresses areas of the kernel have; nothing is allocated while it is held.
pub const VMALLOC: LockClass = LockClass {
    name: "vmalloc",
    rank: 47,
};

/// Page tables. Whoever waits for their locks does not serve other CPUs that wait for it to flush: so nobody flushes with one.
pub const PAGE_TABLE: LockClass = LockClass {
    name: "page table",
    rank: 48,
};

/// Slabs of a cache on one node, and what a cache is called.
pub const SLAB: LockClass = LockClass {
    name: "slab",
    rank: 60,
};

/// Which caches there are; held while one is made or given up.
pub const CACHES: LockClass = LockClass {
    name: "caches",
    rank: 44,
};

/// Blocks of the early heap.
pub const EARLY_HEAP: LockClass = LockClass {
    name: "early heap",
    rank: 72,
};

/// Free areas of one zone.
pub const ZONE: LockClass = LockClass {
    name: "zone",
    rank: 50,
};

/// What is written down for viewers; nothing is allocated while it is held.
pub const INSPECT: LockClass = LockClass {
    name: "inspect",
    rank: 71,
};

/// Chunks of what each CPU has a copy of; nothing is allocated or freed while it is held.
pub const PERCPU: LockClass = LockClass {
    name: "percpu",
    rank: 65,
};

/// The reserve of a pool; nothing is allocated or freed while it is held.
pub const MEMPOOL: LockClass = LockClass {
    name: "mempool",
    rank: 70,
};
