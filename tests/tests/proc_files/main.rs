//! The `/proc` files of simulated machines: their exact text, what tools read out of it, and that
//! every number moves when it should.

mod counters;
mod exporters;
mod iomem;
mod numa;
mod others;
mod pages;
mod parse;
mod readers;
mod slabinfo;
mod slabs;
mod stories;
mod texts;
mod traces;

use core::fmt::{self, Write};

use mm::addr::Order;
use mm_tests::sim::{Given, Machine, Usual};

/// What a file prints.
fn text(print: impl FnOnce(&mut dyn Write) -> fmt::Result) -> String {
    let mut text = String::new();
    print(&mut text).unwrap();
    text
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// A machine whose node 0 has, all free, 15 MiB of DMA, 8 MiB of DMA32 and 6 MiB of Normal. The
/// library's own tables are on node 1.
fn small() -> Machine<Usual> {
    Given::new(&[(0x10_0000, 0x180_0000), (0x1_0000_0000, 0x1_0060_0000)]).boot()
}

/// A machine with memory in every zone that can have some.
fn with_every_zone() -> Machine<Usual> {
    Machine::new()
        .ram(0x10_0000, 63 << 20)
        .ram(0x1_0000_0000, 64 << 20)
        .kernelcore(96 << 20)
        .boot()
}
