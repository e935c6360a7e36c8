//! Doors for code that keeps raw numbers: unsafe functions whose checks are diagnosis.
//!
//! Soundness rests on the owning handles ([`Block`](crate::system::Block) and its kin); what is
//! here is for C-shaped callers who keep a frame number or an address and give it back later.

mod bytes;
mod cpus;
mod deferred;
mod dma_pool;
mod home;
mod objects;
mod pooled;
mod raw_pages;
mod typed;

pub use bytes::KBytes;
pub use dma_pool::{DmaBytes, DmaPool};
pub use home::Home;
pub use pooled::Pooled;
pub use raw_pages::GetPagesError;
pub use typed::{CacheBox, NoRoom, TypedCache};
