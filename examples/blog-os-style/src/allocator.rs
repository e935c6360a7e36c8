//! The heap.

use boot_memory::OneCpu;
use mm::adapters::{EarlyPages, KernelHeap};
use mm::system::Memory;

use crate::memory::MEMORY;

/// What the heap has until memory is up: 16 KiB.
static EARLY: EarlyPages<4> = EarlyPages::new();

#[global_allocator]
static ALLOCATOR: KernelHeap<&Memory<OneCpu>, 4> = KernelHeap::new(&MEMORY, &EARLY);
