//! Caches and `kmalloc` on a simulated machine.

mod caches;
mod collections;
mod concurrency;
mod damage;
mod heap;
mod kmalloc;
mod large;
mod misuse;
