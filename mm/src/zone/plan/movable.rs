//! Where each node's Movable zone starts: `kernelcore=` and `movablecore=`, or `movable_node`.
//!
//! The kernel's share is spread evenly over the nodes with memory; what a node cannot give is
//! spread again over the others. RAM below the highest zone always counts as the kernel's. The
//! start is then rounded up to the largest block, so that no block has two zones. With
//! `movable_node` a node's Movable zone starts where its memory that may be unplugged does. Linux
//! counterpart: `find_zone_movable_pfns_for_nodes`.
#![forbid(unsafe_code)]

use super::{CoreWish, NodePlan, core_frames};
use crate::addr::{Order, Pfn};
use crate::memblock::{Memblock, RegionFlags};

/// Sets `movable_start` of every node. `usable` is where the zone begins that Movable takes from.
pub(super) fn find_starts(
    memblock: &Memblock,
    wish: CoreWish,
    usable: Pfn,
    nodes: &mut [NodePlan],
) {
    if wish.movable_node {
        start_where_hot_pluggable(memblock, nodes);
    } else {
        let present = nodes.iter().map(|node| node.present);
        let total = present.fold(0, u64::saturating_add);
        if let Some(required) = kernel_frames(wish, total) {
            share_out(memblock, required, usable, nodes);
        }
    }
    for node in nodes {
        let start = node.movable_start.map(|start| start.align_up(Order::MAX));
        node.movable_start = start.filter(|start| *start < node.frames.end());
    }
}

/// Starts a node's Movable zone with the lowest frame that may be unplugged.
fn start_where_hot_pluggable(memblock: &Memblock, nodes: &mut [NodePlan]) {
    let regions = memblock.memory().iter();
    for region in regions.filter(|region| region.flags.contains(RegionFlags::HOTPLUG)) {
        let node = region.node.unwrap_or_default();
        if let Some(node) = nodes.get_mut(usize::from(node.0)) {
            // Regions come lowest first.
            node.movable_start.get_or_insert(region.base().frame());
        }
    }
}

/// Frames that belong to the kernel on all nodes together, or `None` if there is no Movable zone.
fn kernel_frames(wish: CoreWish, total: u64) -> Option<u64> {
    let kernel = wish.kernelcore.map_or(0, |size| core_frames(size, total));
    let movable = wish.movablecore.map_or(0, |size| core_frames(size, total));
    let kernel = if movable > 0 {
        let movable = movable
            .checked_next_multiple_of(Order::MAX.frames())
            .map_or(total, |rounded| rounded.min(total));
        kernel.max(total.saturating_sub(movable))
    } else {
        kernel
    };
    (kernel > 0 && kernel < total).then_some(kernel)
}

fn share_out(memblock: &Memblock, mut required: u64, usable: Pfn, nodes: &mut [NodePlan]) {
    let with_memory = nodes.iter().filter(|node| node.present > 0).count();
    let mut sharing = crate::addr::to_count(with_memory);
    loop {
        let mut share = required.checked_div(sharing).unwrap_or(0);
        for (index, node) in nodes.iter_mut().enumerate() {
            if node.present == 0 {
                continue;
            }
            if required < share {
                share = required.checked_div(sharing).unwrap_or(0);
            }
            let taken = take_from_node(memblock, index, node, share, usable);
            required = required.saturating_sub(taken);
        }
        // Rounds get fewer nodes, until less than a frame for each is left.
        sharing = sharing.saturating_sub(1);
        if sharing == 0 || required <= sharing {
            return;
        }
    }
}

/// Moves the start of a node's Movable zone up over `share` frames of RAM; gives how many became
/// the kernel's (more than `share` where RAM lies below `usable`).
fn take_from_node(
    memblock: &Memblock,
    index: usize,
    node: &mut NodePlan,
    share: u64,
    usable: Pfn,
) -> u64 {
    let mut left = share;
    let mut taken = 0_u64;
    let ours = memblock
        .frames(None)
        .filter(|ram| usize::from(ram.node.unwrap_or_default().0) == index);
    for ram in ours {
        let end = ram.frames.end();
        let mut start = ram
            .frames
            .first()
            .max(node.movable_start.unwrap_or_default());
        if start >= end {
            continue;
        }
        if start < usable {
            let kernels = end.min(usable).offset_from(start).unwrap_or(0);
            left = left.saturating_sub(kernels);
            taken = taken.saturating_add(kernels);
            if end <= usable {
                node.movable_start = Some(end);
                continue;
            }
            start = usable;
        }
        let frames = end.offset_from(start).unwrap_or(0).min(left);
        node.movable_start = Some(start.saturating_add(frames));
        taken = taken.saturating_add(frames);
        left = left.saturating_sub(frames);
        if left == 0 {
            break;
        }
    }
    taken
}
