//! Caches and `kmalloc` on a simulated machine.

mod caches;
mod concurrency;
mod damage;
mod kmalloc;
mod misuse;
