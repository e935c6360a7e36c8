//! Caches and `kmalloc` on a simulated machine.

mod bulk;
mod caches;
mod concurrency;
mod contents;
mod damage;
mod deferred;
mod kmalloc;
mod misuse;
mod typed;
