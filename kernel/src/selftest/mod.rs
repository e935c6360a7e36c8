//! Tests of the kernel's own parts.

mod areas;
mod backtrace;
mod forbidden;
mod grace;
mod heap;
mod hits;
mod hotplug;
mod idle;
mod memory_symbols;
mod object_steps;
mod percpu;
mod preemption;
mod rate_limit;
mod shell;
mod smp;
mod stacks;
mod steps;
mod stories;
mod text;
mod threads;
mod traps;
mod waiting;
