//! The kernel's own memory above pages: what each CPU has a copy of.

pub mod percpu;
pub(crate) mod raw;
