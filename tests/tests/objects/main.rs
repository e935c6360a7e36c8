//! Caches and `kmalloc` on a simulated machine.

mod caches;
mod chance;
mod concurrency;
mod damage;
mod failing;
mod guarded;
mod init;
mod kmalloc;
mod misuse;
mod owners;
mod switches;
