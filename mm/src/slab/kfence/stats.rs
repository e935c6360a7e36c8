//! The sampling guard pool in numbers.
#![forbid(unsafe_code)]

use core::fmt;

/// The sampling guard pool in numbers (Linux: `/sys/kernel/debug/kfence/stats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KfenceStats {
    /// One allocation in so many is sampled; none, if it is 0.
    pub interval: u64,
    /// Objects that have owners, or that readers may still see.
    pub allocated: u64,
    /// Objects that were handed out so far, …
    pub allocations: u64,
    /// … and those that came back.
    pub frees: u64,
    /// Faults that were found.
    pub bugs: u64,
    /// Requests whose turn it was, but that cannot have an object of the pool.
    pub incompatible: u64,
    /// Requests whose turn it was while all objects had owners.
    pub full: u64,
}

impl fmt::Display for KfenceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interval, .. } = *self;
        writeln!(f, "enabled: {}", u8::from(interval > 0))?;
        writeln!(f, "currently allocated: {}", self.allocated)?;
        writeln!(f, "total allocations: {}", self.allocations)?;
        writeln!(f, "total frees: {}", self.frees)?;
        writeln!(f, "total bugs: {}", self.bugs)?;
        writeln!(
            f,
            "skipped allocations (incompatible): {}",
            self.incompatible
        )?;
        write!(f, "skipped allocations (capacity): {}", self.full)
    }
}
