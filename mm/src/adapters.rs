//! Doors for code that keeps raw numbers: unsafe functions whose checks are diagnosis.
//!
//! Soundness rests on the owning handles ([`Block`](crate::system::Block) and its kin); what is
//! here is for C-shaped callers who keep a frame number or an address and give it back later: Rust's `alloc`
//! among them ([`KernelHeap`]).

mod bytes;
mod cpus;
mod deferred;
mod dma_pool;
mod heap;
mod home;
#[cfg(feature = "allocator-api2")]
mod kmalloc_in;
mod kvmalloc;
mod objects;
mod page_tables;
mod percpu;
mod pooled;
mod raw_pages;
mod reserved;
mod set_memory;
mod supply;
mod typed;
mod vmalloc;
mod vmap;
#[cfg(feature = "x86_64")]
mod x86;

pub use bytes::KBytes;
pub use dma_pool::{DmaBytes, DmaPool};
pub use heap::{EarlyHeapUsage, EarlyPages, KernelHeap};
pub use home::Home;
#[cfg(feature = "allocator-api2")]
pub use kmalloc_in::KmallocIn;
pub use percpu::PerCpuBox;
pub use pooled::Pooled;
pub use raw_pages::GetPagesError;
pub(crate) use supply::Store;
pub use typed::{CacheBox, NoRoom, TypedCache};
pub use vmalloc::{BadVfree, Vmalloc};
#[cfg(feature = "x86_64")]
pub use x86::{X86Frames, X86Mapper};
