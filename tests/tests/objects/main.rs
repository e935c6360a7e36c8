//! Caches and `kmalloc` on a simulated machine.

mod caches;
mod concurrency;
mod damage;
mod guarded;
mod kmalloc;
mod misuse;
