//! Tests of the kernel's own parts.

mod backtrace;
mod heap;
mod memory_symbols;
mod shell;
mod smp;
mod text;
mod traps;
