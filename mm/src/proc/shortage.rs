//! Where memory went, in sentences: for reports of a kernel that ran out of it.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use core::panic::Location;

use crate::addr::{Order, Pfn};
use crate::frame::FrameState;
use crate::platform::Platform;
use crate::system::Memory;

/// Lines of the source that are watched while all blocks are looked at.
const CANDIDATES: usize = 8;

/// Tells where memory went: what is free, and the largest free block; what caches have, and which has most; page tables; and
/// which line of the source has most pages, where that is kept (`page_owner=on`). Context: any, the report of a kernel that
/// ran out of memory included: allocates nothing, and takes locks only where nobody has them. Looks at every block of memory.
///
/// # Errors
/// `out`'s own.
pub fn shortage<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    let (Some(core), Some(frames)) = (memory.core(), memory.frames()) else {
        return writeln!(out, "Memory is not up yet.");
    };
    let mut sums = Sums::default();
    for (_, frame) in frames.blocks() {
        sums.count(frame.word().state(), frame.word().order());
    }
    let (managed, free) = (memory.managed_frames(), memory.free_frames());
    write!(out, "Of {managed} pages, {free} are free")?;
    match sums.largest {
        Some(order) => write!(out, ", the largest block of order {order}")?,
        None => write!(out, " in blocks")?,
    }
    write!(out, ", and {} on CPUs' lists.", sums.listed)?;
    let (mut in_caches, mut most) = (0_u64, None);
    for cache in core.caches.iter() {
        // One that is being changed is left out.
        let pages = cache.pages_at_once(memory.platform()).unwrap_or_default();
        in_caches = in_caches.saturating_add(pages);
        if most.is_none_or(|(before, _)| before < pages) {
            most = Some((pages, cache.name_at_once(memory.platform())));
        }
    }
    write!(out, " Caches have {in_caches}")?;
    if let Some((pages, name)) = most.filter(|(pages, _)| *pages > 0) {
        write!(out, ", most of all `{name}`: {pages}")?;
    }
    let tables = memory.page_table_frames();
    let rest = sums.live.saturating_sub(in_caches).saturating_sub(tables);
    write!(out, ". Page tables are {tables}. ")?;
    write!(out, "{rest} are in use as whole pages")?;
    match most_frequent(memory) {
        Some((place, pages)) => writeln!(out, "; {place} allocated most of all pages: {pages}."),
        None => writeln!(out, "."),
    }
}

#[derive(Default)]
struct Sums {
    listed: u64,
    live: u64,
    largest: Option<Order>,
}

impl Sums {
    fn count(&mut self, state: Option<FrameState>, order: Order) {
        let sum = match state {
            Some(FrameState::Free) => {
                self.largest = self.largest.max(Some(order));
                return;
            }
            Some(FrameState::Cached) => &mut self.listed,
            Some(FrameState::Unique | FrameState::Shared) => &mut self.live,
            _ => return,
        };
        *sum = sum.saturating_add(order.frames());
    }
}

type Place = &'static Location<'static>;

/// Frames of blocks in use, with the line that allocated them.
fn owned<P: Platform>(memory: &Memory<P>) -> impl Iterator<Item = (Place, u64)> {
    let kept = memory.frames().filter(|_| memory.keeps_origins());
    let blocks = kept.into_iter().flat_map(|frames| frames.blocks());
    blocks.filter_map(|(pfn, frame): (Pfn, _)| {
        let word = frame.word();
        let is_live = word.state().is_some_and(FrameState::is_live);
        let place = memory.origin(pfn).filter(|_| is_live)?;
        Some((place, word.order().frames()))
    })
}

/// The line of the source that has most pages, and how many. Whoever has more than a ninth of them is found for certain: a line
/// loses its place in the table only to as many pages of eight others (Misra and Gries, 1982).
fn most_frequent<P: Platform>(memory: &Memory<P>) -> Option<(Place, u64)> {
    let mut table: [Option<(Place, u64)>; CANDIDATES] = [None; CANDIDATES];
    for (place, frames) in owned(memory) {
        let own = |slot: &&mut Option<(Place, u64)>| slot.is_some_and(|(other, _)| other == place);
        if let Some(Some((_, count))) = table.iter_mut().find(own) {
            *count = count.saturating_add(frames);
            continue;
        }
        if let Some(slot) = table.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some((place, frames));
            continue;
        }
        let least = table.iter().flatten().map(|(_, count)| *count).min();
        let least = least.unwrap_or_default().min(frames);
        for slot in &mut table {
            let left = slot.map(|(other, count)| (other, count.saturating_sub(least)));
            *slot = left.filter(|(_, count)| *count > 0);
        }
        let left = frames.saturating_sub(least);
        if let Some(slot) = table.iter_mut().find(|slot| slot.is_none() && left > 0) {
            *slot = Some((place, left));
        }
    }
    let counted = table.iter().flatten().map(|(place, _)| {
        let own = owned(memory).filter(|(other, _)| other == place);
        (
            *place,
            own.map(|(_, frames)| frames).fold(0, u64::saturating_add),
        )
    });
    counted.max_by_key(|(_, frames)| *frames)
}
