//! Caches and `kmalloc` on a simulated machine.

mod bulk;
mod caches;
mod chance;
mod collections;
mod concurrency;
mod contents;
mod damage;
mod deferred;
mod dma;
mod documented;
mod endurance;
mod failing;
mod guarded;
mod heap;
mod init;
mod kfence;
mod kfence_pool;
mod kmalloc;
mod large;
mod mempools;
mod misuse;
mod owners;
mod scattered;
mod switches;
mod traces;
mod typed;
