//! Tests of the kernel's own parts.

mod heap;
mod memory_symbols;
mod text;
mod traps;
