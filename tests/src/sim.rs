//! A simulated machine: RAM with nodes and holes, CPUs, and a [`Platform`] over them.
//!
//! - [`Machine`] is built with [`Machine::new`], boots the library over its RAM, and must be
//!   ended with [`Machine::finish`], which runs every oracle; a machine that is dropped without it
//!   fails the test.
//! - [`SimConfig`] names a profile and a memory model; `(Hardened, Sparse)` is one. Test bodies are
//!   generic over it, and [`for_every_config!`](crate::for_every_config) runs them on all nine.
//! - A CPU is a token that one host thread holds at a time ([`Machine::cpu`]); the thread
//!   that boots the machine holds CPU 0.
//! - Each CPU has an [MMU](mmu) that walks page tables in RAM, and a [TLB](tlb) that never forgets; both are off until
//!   [`SimPlatform::switch_paging_on`].
//!
//! [`Platform`]: mm::platform::Platform

mod config;
mod cpus;
mod explicit;
mod gaps;
mod kernel_space;
mod machine;
pub mod mmu;
mod nmi;
mod pages;
mod paging;
mod patience;
mod pins;
mod platform;
mod ram;
mod recorder;
pub mod tlb;

pub use config::{
    Classic, Debug, Flat, Hardened, Latent, Listed, OldVmemmap, Plain, Recorded, SimConfig, Sparse,
    Vmemmap,
};
pub use cpus::{OnCpu, Trouble};
pub use explicit::Given;
pub use gaps::Gaps;
pub use kernel_space::{Mapped, SimSpace};
pub use machine::{BootError, Builder, Machine, Running};
pub use nmi::Place;
pub use pages::OnMachine;
pub use patience::without_patience;
pub use platform::{CALLED_FROM, SimPlatform};
pub use ram::Ram;
pub use recorder::Recorder;

/// The kind of machine most tests use: what a kernel ships with.
pub type Usual = (Hardened, Sparse);
/// The kind of machine that checks most.
pub type Checked = (Debug, Sparse);
