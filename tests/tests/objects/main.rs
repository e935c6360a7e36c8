//! Caches and `kmalloc` on a simulated machine.

mod bulk;
mod caches;
mod concurrency;
mod contents;
mod damage;
mod deferred;
mod dma;
mod documented;
mod endurance;
mod kmalloc;
mod mempools;
mod misuse;
mod typed;
