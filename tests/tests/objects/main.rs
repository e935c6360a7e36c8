//! Caches and `kmalloc` on a simulated machine.

mod caches;
mod chance;
mod collections;
mod concurrency;
mod damage;
mod failing;
mod guarded;
mod heap;
mod init;
mod kmalloc;
mod large;
mod misuse;
mod owners;
mod switches;
