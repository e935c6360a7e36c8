//! Caches and `kmalloc` on a simulated machine.

mod bulk;
mod caches;
mod chance;
mod concurrency;
mod contents;
mod damage;
mod deferred;
mod dma;
mod documented;
mod endurance;
mod failing;
mod guarded;
mod init;
mod kmalloc;
mod mempools;
mod misuse;
mod owners;
mod switches;
mod typed;
