//! Virtual memory: what CPUs make of page tables, and what they forget of them.

mod early;
mod means;
mod mmu;
mod pages;
mod shootdown;
mod tables;
mod tlb;
mod turns;
