//! Tests of the kernel's own parts.

mod backtrace;
mod heap;
mod memory_symbols;
mod shell;
mod text;
mod traps;
