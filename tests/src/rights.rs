//! `set_memory_*` by name, and what each does to a page, said by hand.

use mm::addr::{VirtAddr, VirtRange};
use mm::pagetable::ProtectError;
use mm::system::Memory;

use crate::sim::mmu::Access;
use crate::sim::{Machine, SimConfig, SimPlatform};

/// A function of `set_memory_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// `set_memory_ro`.
    Ro,
    /// `set_memory_rw`.
    Rw,
    /// `set_memory_x`.
    X,
    /// `set_memory_nx`.
    Nx,
    /// `set_memory_np`.
    Np,
    /// `set_memory_p`.
    P,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ro, Self::Rw, Self::X, Self::Nx, Self::Np, Self::P];

    /// Calls the function.
    ///
    /// # Errors
    /// Its own.
    pub fn call<C: SimConfig>(
        self,
        memory: &Memory<SimPlatform<C>>,
        range: VirtRange,
    ) -> Result<(), ProtectError> {
        // SAFETY: nothing lies there for anybody but simulated CPUs.
        unsafe {
            match self {
                Self::Ro => memory.set_memory_ro(range),
                Self::Rw => memory.set_memory_rw(range),
                Self::X => memory.set_memory_x(range),
                Self::Nx => memory.set_memory_nx(range),
                Self::Np => memory.set_memory_np(range),
                Self::P => memory.set_memory_p(range),
            }
        }
    }
}

/// What may be done to a page, said by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// It can be written to, …
    pub write: bool,
    /// … executed, …
    pub execute: bool,
    /// … and used at all.
    pub present: bool,
}

impl Page {
    /// What may be done after a change.
    #[must_use]
    pub const fn after(mut self, name: Name) -> Self {
        match name {
            Name::Ro => self.write = false,
            Name::Rw => self.write = true,
            Name::X => self.execute = true,
            Name::Nx => self.execute = false,
            Name::Np => self.present = false,
            Name::P => self.present = true,
        }
        self
    }

    /// Which of reading, writing and executing work.
    #[must_use]
    pub fn allows(self) -> [bool; 3] {
        [true, self.write, self.execute].map(|is_allowed| is_allowed && self.present)
    }
}

/// What a CPU is let do at an address.
pub fn allowed<C: SimConfig>(machine: &Machine<C>, at: VirtAddr) -> [bool; 3] {
    [Access::READ, Access::WRITE, Access::FETCH].map(|access| machine.touch(at, access).is_ok())
}
