//! What memory looks like from outside: Linux's `/proc` files, and two views for a shell.
//!
//! | function | what it prints | Linux counterpart |
//! |---|---|---|
//! | [`buddyinfo`] | free blocks by zone and order | `frag_show` |
//! | [`pagetypeinfo`] | the same by migrate type, and pageblocks by type | `pagetypeinfo_show` |
//! | [`zoneinfo`] | sizes and counters of every zone | `zoneinfo_show` |
//! | [`meminfo`] | totals in kB | `meminfo_proc_show` |
//! | [`vmstat`] | counters of the whole machine | `vmstat_show` |
//! | [`slabinfo`] | every cache and its slabs | `slabinfo_show` |
//! | [`slabtop`], [`cache`], [`object`] | the largest caches, one cache, one object | the tools `slabtop` and `slabinfo` |
//! | [`vmallocinfo`] | every area of kernel addresses | `vmalloc_info_show` |
//! | [`iomem`] | what lies where in physical memory | `r_show` |
//! | [`node_list`], [`node_meminfo`], [`node_numastat`], [`node_distance`] | files of `/sys/devices/system/node` | `drivers/base/node.c` |
//! | [`numastat`] | which nodes' memory went where | the tool of this name |
//! | [`page`] | everything about one frame | – |
//! | [`page_owner`] | which line allocated each block in use | `read_page_owner` |
//! | [`story`] | what lies at an address, in a report of a fault | – |
//! | [`shortage`] | where memory went, in a report that there is none left | – |
//! | [`Recording`] | how an allocation found its block | – |
//!
//! The files are byte for byte what Linux prints, so that tools that parse those read these. The
//! one difference: a line whose number the library does not maintain is missing. Tools look
//! lines up by name and cope with that; a zero that is a lie would mislead them.
//!
//! # Protocol
//!
//! A zone's numbers are copied under its lock, all at one moment, and printed after it was let
//! go: writing to `out` may take as long as it likes and may allocate. Two zones, or two files,
//! are not of the same moment. Context: task.
//!
//! An error is always `out`'s own.
#![forbid(unsafe_code)]

mod counters;
mod explain;
mod free_blocks;
mod iomem;
mod meminfo;
mod numa;
mod page;
mod page_owner;
mod page_tables;
mod shortage;
mod slabinfo;
mod slabs;
mod story;
mod textbook;
mod vmallocinfo;
mod zones;

pub use counters::vmstat;
pub use explain::Recording;
pub use free_blocks::{buddyinfo, pagetypeinfo};
pub use iomem::{Resource, firmware_resources, iomem, with_inner};
pub use meminfo::meminfo;
pub use numa::{node_distance, node_list, node_meminfo, node_numastat, numastat};
pub use page::page;
pub use page_owner::page_owner;
pub use page_tables::{Violations, check_wx, each_run, ptdump, vtop};
pub use shortage::shortage;
pub use slabinfo::slabinfo;
pub use slabs::{cache, object, slabtop};
pub use story::{pattern, story};
pub use textbook::TextbookWalk;
pub use vmallocinfo::vmallocinfo;
pub use zones::zoneinfo;

use core::fmt;

use crate::addr::Order;
use crate::buddy::MigrateType;
use crate::platform::{NodeId, Platform};
use crate::system::Memory;
use crate::zone::{Node, NumaStats, Zone, ZoneKind, ZoneSnapshot};

/// How every line about a zone starts: `Node 0, zone   Normal`.
struct ZoneName {
    node: NodeId,
    kind: ZoneKind,
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node {}, zone {:>8}", self.node, self.kind)
    }
}

impl From<&Zone> for ZoneName {
    fn from(zone: &Zone) -> Self {
        Self {
            node: zone.id().node,
            kind: zone.kind(),
        }
    }
}

/// The nodes that files speak about: numbers without memory stand for nothing.
fn nodes<P: Platform>(memory: &Memory<P>) -> impl Iterator<Item = &Node> {
    memory.nodes().iter().filter(|node| node.present() > 0)
}

/// Free blocks of an order, of all types, isolated ones included (Linux: `nr_free`).
fn free_blocks(numbers: &ZoneSnapshot, order: Order) -> u64 {
    let counts = numbers.blocks.iter();
    counts
        .map(|of_type| of_type[order.index()])
        .fold(0, u64::saturating_add)
}

/// Free frames in blocks of at least a pageblock that can be handed out (Linux:
/// `NR_FREE_PAGES_BLOCKS`): how much memory is usable in units of 2 MiB.
fn free_in_whole_pageblocks(numbers: &ZoneSnapshot) -> u64 {
    let mut frames: u64 = 0;
    for (kind, counts) in MigrateType::ALL.iter().zip(&numbers.blocks) {
        if *kind == MigrateType::Isolate {
            continue;
        }
        for order in Order::PAGEBLOCK.and_above() {
            let here = counts[order.index()].saturating_mul(order.frames());
            frames = frames.saturating_add(here);
        }
    }
    frames
}

/// The names of [`NumaStats`] in `vmstat` and `zoneinfo`, which are not those of `numastat`.
fn numa_lines(stats: &NumaStats) -> [(&'static str, u64); 6] {
    [
        ("numa_hit", stats.numa_hit),
        ("numa_miss", stats.numa_miss),
        ("numa_foreign", stats.numa_foreign),
        ("numa_interleave", stats.interleave_hit),
        ("numa_local", stats.local_node),
        ("numa_other", stats.other_node),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pageblocks_are_those_of_orders_9_and_10_that_are_not_isolated() {
        let mut numbers = ZoneSnapshot::default();
        numbers.blocks[MigrateType::Movable.index()][10] = 3;
        numbers.blocks[MigrateType::Unmovable.index()][9] = 1;
        numbers.blocks[MigrateType::Unmovable.index()][8] = 7;
        numbers.blocks[MigrateType::Isolate.index()][9] = 5;
        assert_eq!(free_in_whole_pageblocks(&numbers), 3 * 1024 + 512);
        assert_eq!(free_blocks(&numbers, Order::PAGEBLOCK), 6);
    }
}
