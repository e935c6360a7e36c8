//! `workload N SEED`: a sequence of page allocations that follows from its seed alone.
//!
//! The ranges that are free at its start and a digest every so often are printed: a simulated
//! machine with the same free ranges must answer with the same frames. To be run first, since
//! earlier requests leave pageblocks of other types behind. On a machine with several nodes the
//! sequence sets memory policies, and node N has the interleave weight N + 1.
#![expect(
    unsafe_code,
    reason = "the sequence knows blocks by their numbers, and frees each once"
)]

use super::MEMORY;
use crate::sched::policy::Changed;
use crate::shell::{CommandError, CommandResult, interrupt, number};
use crate::{command, kprintln};
use alloc::string::String;
use alloc::vec::Vec;
use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::{Gfp, MigrateType};
use mm::frame::FrameState;
use mm::numa::{self, NodeMask, NodeState};
use mm::platform::NodeId;
use mm::system::{AllocError, Tuning, TuningError};
use mm::zone::{Node, ZoneKind};
use mm_workload::{Class, Digest, Live, Mode, Noted, Pages, Policy};

command! { "workload", "N SEED", "the same N page operations for the same seed, with digests", workload_command }

/// Blocks in use at a time, at most.
const SLOTS: usize = 4096;
/// The largest order whose blocks are on lists; larger ones are found by the pageblocks that they are.
const LISTED: Order = match Order::new(8) {
    Some(order) => order,
    None => Order::MAX,
};
/// Blocks that are set aside, at most.
const ASIDE: usize = 1024;
/// Digests that a run prints.
const DIGESTS: u64 = 64;
/// Operations between two looks at the terminal.
const OPERATIONS_PER_LOOK: u32 = 1024;

fn workload_command(arguments: &[String]) -> CommandResult {
    let [operations, seed] = arguments else {
        return Err(CommandError::usage(
            "expected a number of operations and a seed",
        ));
    };
    let (operations, seed) = (number(operations)?, number(seed)?);
    interrupt::check()?;
    let mut slots: Vec<Option<Live>> = Vec::new();
    slots
        .try_reserve_exact(SLOTS)
        .map_err(CommandError::failed)?;
    slots.resize(SLOTS, None);

    // What the kernel has allocated itself stands in the way as little as may be: empty slabs are given back, and
    // what else is free in their pageblocks is set aside, since the simulated machine knows nothing of those.
    let mut aside: Vec<super::Pages> = Vec::new();
    let mut sorted: Vec<super::Pages> = Vec::new();
    for blocks in [&mut aside, &mut sorted] {
        blocks
            .try_reserve_exact(ASIDE)
            .map_err(CommandError::failed)?;
    }
    MEMORY.shrink_caches();
    for kind in [MigrateType::Unmovable, MigrateType::Reclaimable] {
        take(kind, Order::MAX, &mut aside).map_err(CommandError::failed)?;
    }
    // Blocks of one order are in the order of their addresses then, last first, as after a boot.
    take(MigrateType::Movable, LISTED, &mut sorted).map_err(CommandError::failed)?;
    sorted.sort_unstable_by_key(super::Pages::pfn);
    // The list itself stays until the end.
    sorted.drain(..).for_each(drop);

    print_free_ranges();
    let every = operations.div_ceil(DIGESTS).max(1);
    kprintln!(
        "workload: {operations} operations, seed {seed}, {SLOTS} slots, digest every {every}"
    );
    let print = |Digest { requests, hash }| kprintln!("workload: digest {requests} {hash:#018x}");
    let mut refused = 0;
    let machine = Machine {
        until_look: 0,
        refused: &mut refused,
        policy: None,
    };
    let mut pages = Noted::new(machine, every, print);
    // Marks follow from all memory, of which the simulated machine has only what is free here.
    let before = lower_marks().map_err(CommandError::failed)?;
    let weights = set_weights(&|node| u8::try_from(node.0).unwrap_or(u8::MAX).saturating_add(1));
    let outcome = mm_workload::run(&mut pages, &mut slots, seed, operations);
    restore_marks(&before).map_err(CommandError::failed)?;
    set_weights(&|node| weights.get(usize::from(node.0)).copied().unwrap_or(1));
    drop((aside, sorted));
    interrupt::check()?;
    kprintln!(
        "workload: {} served, {} failed, {} freed, hash {:#018x}",
        outcome.served,
        outcome.failed,
        outcome.freed,
        outcome.hash
    );
    if refused > 0 {
        return Err(CommandError::failed(format_args!(
            "{refused} blocks were not taken back"
        )));
    }
    MEMORY.validate().map(|_| ()).map_err(CommandError::failed)
}

/// Takes all free blocks of orders up to `largest` in pageblocks of a type.
fn take(
    kind: MigrateType,
    largest: Order,
    blocks: &mut Vec<super::Pages>,
) -> Result<(), AllocError> {
    let family = match kind {
        MigrateType::Reclaimable => Gfp::RECLAIMABLE,
        MigrateType::Movable => Gfp::MOVABLE,
        _ => Gfp::empty(),
    };
    for zone in MEMORY.zones() {
        let place = match zone.kind() {
            ZoneKind::Dma => Gfp::DMA,
            ZoneKind::Dma32 => Gfp::DMA32,
            _ => Gfp::empty(),
        };
        let gfp = Gfp::KERNEL | Gfp::THISNODE | Gfp::MEMALLOC | Gfp::NOWARN | family | place;
        let free = || zone.snapshot(MEMORY.platform()).blocks[kind.index()];
        let orders = || Order::all().filter(|order| *order <= largest);
        // A request of just that order takes one that is there.
        while let Some(order) = orders().find(|order| free()[order.index()] > 0) {
            if blocks.len() == blocks.capacity() {
                log::warn!("workload: too many free blocks of type {kind:?} to set all aside");
                return Ok(());
            }
            let pfn = MEMORY.alloc_pages_node(zone.id().node, gfp, order)?;
            // SAFETY: it was handed out as a number just now.
            let block = unsafe { super::Pages::from_raw(super::Kernel, pfn, order) };
            blocks.extend(block.ok());
        }
    }
    Ok(())
}

/// Lowers all watermarks as far as they go; answers the settings before.
pub(super) fn lower_marks() -> Result<Tuning, TuningError> {
    let before = MEMORY.tuning().ok_or(TuningError::NotUp)?;
    MEMORY.set_min_free_kbytes(0)?;
    MEMORY.set_watermark_scale_factor(1)?;
    MEMORY.set_lowmem_reserve_ratio([0; ZoneKind::COUNT])?;
    Ok(before)
}

pub(super) fn restore_marks(before: &Tuning) -> Result<(), TuningError> {
    MEMORY.set_min_free_kbytes(before.min_free_kbytes)?;
    MEMORY.set_watermark_scale_factor(before.watermark_scale_factor)?;
    MEMORY.set_lowmem_reserve_ratio(before.lowmem_reserve_ratio)
}

/// Sets how many turns nodes have; answers what they had before.
fn set_weights(weight: &dyn Fn(NodeId) -> u8) -> Vec<u8> {
    let nodes = MEMORY.nodes().iter().map(Node::id);
    nodes
        .map(|node| {
            let before = MEMORY.interleave_weight(node).unwrap_or(1);
            let _ = MEMORY.set_interleave_weight(node, weight(node));
            before
        })
        .collect()
}

/// This kernel's page allocator.
struct Machine<'a> {
    /// Operations until the terminal is looked at.
    until_look: u32,
    /// Blocks that were not taken back.
    refused: &'a mut u64,
    /// What the running thread's policy was changed to.
    policy: Option<Changed>,
}

impl Pages for Machine<'_> {
    fn alloc(&mut self, class: Class, order: u8) -> Option<u64> {
        let gfp = match class {
            Class::Kernel => Gfp::KERNEL,
            Class::Cache => Gfp::KERNEL | Gfp::RECLAIMABLE,
            Class::User => Gfp::HIGHUSER_MOVABLE,
            Class::Dma32 => Gfp::KERNEL | Gfp::DMA32,
            Class::Dma => Gfp::KERNEL | Gfp::DMA,
        };
        let gfp = gfp | Gfp::NOWARN;
        let pages = MEMORY.alloc_pages(gfp, Order::new(order)?).ok()?;
        Some(pages.as_u64())
    }

    fn free(&mut self, first: u64, order: u8) {
        let order = Order::new(order).unwrap_or_default();
        // SAFETY: the sequence frees what it was given, once, and nobody else knows the block.
        if unsafe { MEMORY.free_pages(Pfn::new(first), order) }.is_err() {
            *self.refused = self.refused.saturating_add(1);
        }
    }

    fn nodes(&self) -> u32 {
        MEMORY.node_states(NodeState::Memory).len()
    }

    fn set_policy(&mut self, policy: Policy) {
        let mode = match policy.mode {
            Mode::Local => numa::Mode::Default,
            Mode::Preferred => numa::Mode::Preferred,
            Mode::PreferredMany => numa::Mode::PreferredMany,
            Mode::Bind => numa::Mode::Bind,
            Mode::Interleave => numa::Mode::Interleave,
            Mode::WeightedInterleave => numa::Mode::WeightedInterleave,
        };
        // The one before goes first.
        self.policy = None;
        let nodes = NodeMask::of(policy.node_numbers().map(NodeId));
        let policy = nodes
            .ok()
            .and_then(|nodes| MEMORY.policy(mode, &nodes).ok());
        self.policy = Some(Changed::to(policy.filter(|_| mode != numa::Mode::Default)));
    }

    fn is_stopped(&mut self) -> bool {
        let Some(rest) = self.until_look.checked_sub(1) else {
            self.until_look = OPERATIONS_PER_LOOK;
            return interrupt::check().is_err();
        };
        self.until_look = rest;
        false
    }
}

/// Prints what is free, neighbours joined, in bytes; all of it is populated for that.
fn print_free_ranges() {
    let limit = MEMORY.frames().map_or(Pfn::ZERO, |frames| frames.limit());
    MEMORY.populate(PfnRange::new(Pfn::ZERO, limit).unwrap_or_default());
    let mut pfn = Pfn::ZERO;
    let mut range = PfnRange::EMPTY;
    while pfn < limit {
        let page = MEMORY.page(pfn);
        let free = page.filter(|page| page.state() == Some(FrameState::Free));
        let Some(page) = free else {
            pfn = pfn.saturating_add(1);
            continue;
        };
        let block = PfnRange::block(pfn, page.order());
        pfn = block.end();
        if range.end() != block.first() || node_of(range) != node_of(block) {
            print_range(range);
            range = block;
        }
        range = PfnRange::new(range.first(), block.end()).unwrap_or(block);
    }
    print_range(range);
}

fn print_range(range: PfnRange) {
    if !range.is_empty() {
        let (start, end) = (range.first().addr(), range.end().addr());
        kprintln!(
            "workload: free {:#x} {:#x} node {}",
            start.as_u64(),
            end.as_u64(),
            node_of(range)
        );
    }
}

fn node_of(range: PfnRange) -> NodeId {
    let zone = MEMORY.zone_of(range.first());
    zone.map(|zone| zone.id().node).unwrap_or_default()
}
