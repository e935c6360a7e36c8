//! Mapping: first a look at what is there and what is missing, then the entries, which cannot fail.
#![forbid(unsafe_code)]

use super::PageTable;
use super::attributes::Attributes;
use super::cursor::Cursor;
use super::entry::{Entry, leaf_bits};
use super::entry_io::Slot;
use super::error::{MapError, RangeError};
use super::kept::Empties;
use super::level::{Level, PageSize};
use super::memory::TableMemory;
use super::node::{Node, first_in_use, first_part, is_users, whole};
use super::stash::Stash;
use crate::addr::{Pfn, PfnRange, VirtAddr, VirtRange, to_index};
use crate::buddy::tell;
use crate::config::{MAX_PHYS_BITS, PAGE_SHIFT};
use crate::report::{Event, EventKind};

/// What is to be mapped, page by page of the range.
pub(crate) trait Frames {
    /// Whether one page of `size` can be mapped for the page number `at` of the range and those behind it; if so, the same
    /// goes for the page numbers behind these.
    fn fits(&self, at: u64, size: PageSize) -> bool;

    /// The frame for the page number `at` of the range. Asked in ascending order, once for each page that is mapped; not any
    /// more after it answered that there is none.
    fn next(&mut self, at: u64) -> Option<Pfn>;

    /// Writes the entries of pages of `size` from the page number `at` on: `bits`, and the frame's address. Answers how many
    /// were written: all of them, or as many as there are frames.
    #[inline]
    fn write(&mut self, at: u64, slots: &[Slot], (size, bits): (PageSize, u64)) -> usize {
        let (mut at, mut written) = (at, 0_usize);
        for slot in slots {
            let Some(frame) = self.next(at) else { break };
            slot.store(Entry::from_bits(frame.as_u64() << PAGE_SHIFT | bits));
            at = at.wrapping_add(size.frames());
            written = written.wrapping_add(1);
        }
        written
    }
}

/// Frames in a row, in pages of at most a size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InARow {
    pub(crate) first: Pfn,
    pub(crate) largest: PageSize,
}

impl Frames for InARow {
    #[inline]
    fn fits(&self, at: u64, size: PageSize) -> bool {
        let first = self.first.as_u64().wrapping_add(at);
        size <= self.largest && first & size.frames().wrapping_sub(1) == 0
    }

    #[inline]
    fn next(&mut self, at: u64) -> Option<Pfn> {
        Some(self.first.saturating_add(at))
    }

    #[inline]
    fn write(&mut self, at: u64, slots: &[Slot], (size, bits): (PageSize, u64)) -> usize {
        let first = self.first.saturating_add(at);
        let mut entry = first.as_u64() << PAGE_SHIFT | bits;
        for slot in slots {
            slot.store(Entry::from_bits(entry));
            entry = entry.wrapping_add(size.bytes());
        }
        slots.len()
    }
}

/// Frames that a function names, one after the other, as long as it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EachBy<F>(pub(crate) F);

impl<F: FnMut(u64) -> Option<Pfn>> Frames for EachBy<F> {
    #[inline]
    fn fits(&self, _: u64, size: PageSize) -> bool {
        size == PageSize::Size4K
    }

    #[inline]
    fn next(&mut self, at: u64) -> Option<Pfn> {
        (self.0)(at)
    }
}

/// Frames of a list, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InAList<'a>(pub(crate) &'a [Pfn]);

impl Frames for InAList<'_> {
    fn fits(&self, _: u64, size: PageSize) -> bool {
        size == PageSize::Size4K
    }

    fn next(&mut self, at: u64) -> Option<Pfn> {
        self.0.get(to_index(at)).copied()
    }

    #[inline]
    fn write(&mut self, at: u64, slots: &[Slot], (_, bits): (PageSize, u64)) -> usize {
        let list = self.0.get(to_index(at)..).unwrap_or_default();
        for (slot, pfn) in slots.iter().zip(list) {
            slot.store(Entry::from_bits(pfn.as_u64() << PAGE_SHIFT | bits));
        }
        slots.len().min(list.len())
    }
}

impl PageTable {
    /// Maps frames in a row, with pages as large as fit, up to `largest`.
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then.
    pub(crate) fn map_row<M: TableMemory>(
        &self,
        memory: &M,
        (start, frames): (VirtAddr, PfnRange),
        attributes: Attributes,
        largest: PageSize,
    ) -> Result<(), MapError> {
        let range = Self::addresses_of((start, frames))?;
        let first = frames.first();
        let frames = &mut InARow { first, largest };
        self.map(memory, range, frames, attributes, Empties::Freed)?;
        tell(memory.platform(), || {
            Event::pages(EventKind::Map, start, range.pages())
        });
        Ok(())
    }

    /// The addresses for frames in a row, not [checked](Self::check) yet.
    ///
    /// # Errors
    /// No entry can name the frames, or there are more than addresses.
    pub(crate) fn addresses_of(
        (start, frames): (VirtAddr, PfnRange),
    ) -> Result<VirtRange, MapError> {
        if frames.end().as_u64() > 1 << (MAX_PHYS_BITS - PAGE_SHIFT) {
            return Err(MapError::Frames);
        }
        let bytes = frames.frames().checked_mul(1 << PAGE_SHIFT);
        let range = bytes.and_then(|bytes| VirtRange::from_size(start, bytes));
        Ok(range.ok_or(RangeError::NotCanonical(VirtRange::EMPTY))?)
    }

    /// Maps frames; `empties` is for the tables that are made. They go through tables that are locked as far as there are
    /// pages for tables at once; whoever looks meanwhile finds a part of it.
    ///
    /// # Errors
    /// [`MapError`]; nothing is changed then.
    pub(crate) fn map<M: TableMemory>(
        &self,
        memory: &M,
        range: VirtRange,
        frames: &mut impl Frames,
        attributes: Attributes,
        empties: Empties,
    ) -> Result<(), MapError> {
        self.check(range)?;
        let attributes = match is_users(range.start()) {
            true => attributes,
            false => attributes.in_kernel(),
        };
        let mut piece = range;
        while !piece.is_empty() {
            let outcome = self.map_piece(memory, (range, piece), frames, (attributes, empties));
            let Some(outcome) = outcome.transpose() else {
                // Too many tables for one piece.
                let half = halves(piece).0;
                piece = half;
                continue;
            };
            if let Err(error) = outcome {
                // Of the piece, nothing is mapped, unless it is its frames that ran out.
                let end = match error {
                    MapError::Frames => piece.end(),
                    _ => piece.start(),
                };
                let done = VirtRange::new(range.start(), end).unwrap_or_default();
                if !done.is_empty() {
                    // What was mapped just now is not part of a large page: this cannot fail.
                    let _ = self.unmap(memory, done, |_, _| ());
                }
                return Err(error);
            }
            let size = piece.size();
            let left = VirtRange::new(piece.end(), range.end()).unwrap_or_default();
            piece = VirtRange::from_size(left.start(), size.min(left.size())).unwrap_or(left);
        }
        Ok(())
    }

    /// Maps a piece of a range. `None` if it takes more tables than can be had at once.
    fn map_piece<M: TableMemory>(
        &self,
        memory: &M,
        (range, piece): (VirtRange, VirtRange),
        frames: &mut impl Frames,
        (attributes, empties): (Attributes, Empties),
    ) -> Result<Option<()>, MapError> {
        let mut stash = Stash::new(memory);
        loop {
            let cursor = Cursor::lock(self, memory, piece)?;
            let origin = range.start();
            let missing = missing(memory, cursor.top(), (origin, piece), frames)?;
            if missing <= stash.len() {
                let mut fill = Fill {
                    memory,
                    stash: &mut stash,
                    frames,
                    origin,
                    attributes,
                    empties,
                    bits: leaf_bits(PageSize::Size4K, attributes),
                    is_short: false,
                };
                fill.fill(cursor.top(), piece);
                return match fill.is_short {
                    true => Err(MapError::Frames),
                    false => Ok(Some(())),
                };
            }
            drop(cursor);
            if missing > Stash::<M>::ROOM && piece.size() > PageSize::Size2M.bytes() {
                return Ok(None);
            }
            // As much as is missing now; more may be next time.
            stash.fill(missing)?;
        }
    }
}

/// A range cut in two where tables of pages end.
fn halves(range: VirtRange) -> (VirtRange, VirtRange) {
    let middle = range.start().checked_add(range.size() / 2);
    let border = middle.and_then(|middle| middle.align_up(PageSize::Size2M.bytes()));
    let border = border.filter(|&border| border < range.end());
    let first = border.and_then(|border| VirtRange::new(range.start(), border));
    let second = border.and_then(|border| VirtRange::new(border, range.end()));
    (first.unwrap_or(range), second.unwrap_or_default())
}

/// Which page of the range that starts at `origin` an address lies in.
#[inline]
fn page_number(origin: VirtAddr, at: VirtAddr) -> u64 {
    at.as_u64().wrapping_sub(origin.as_u64()) >> PAGE_SHIFT
}

/// How many tables are missing. Context: locked.
///
/// # Errors
/// Something is mapped.
fn missing<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    (origin, range): (VirtAddr, VirtRange),
    frames: &impl Frames,
) -> Result<usize, MapError> {
    let Some(below) = node.level.below() else {
        if node.lock().live() != 0 {
            let taken = first_in_use(range.start(), node.slots(range));
            taken.map_or(Ok(()), |at| Err(MapError::Occupied(at)))?;
        }
        // Where one large page is to be, a table that stayed is in the way, though nothing stands in it.
        let at = page_number(origin, range.start());
        return match whole(range, Level::PMD) {
            Some(size) if frames.fits(at, size) => Err(MapError::Occupied(range.start())),
            _ => Ok(0),
        };
    };
    let mut count: usize = 0;
    let (range, large) = apart(node.level, (origin, range), frames);
    if let Some((large, _)) = large {
        let taken = node.slots(large).iter().any(|slot| !slot.load().is_none());
        if taken {
            is_clear(memory, node, large)?;
            // Tables that stayed are in the way.
            return Err(MapError::Occupied(large.start()));
        }
    }
    let ends = range.into_iter().flat_map(|range| node.parts(range));
    for (slot, part) in ends {
        let entry = slot.load();
        let more = if entry.is_none() {
            let at = page_number(origin, part.start());
            missing_below(part, (node.level, below), at, frames)
        } else if entry.leads_to_table() {
            let next = node.below(memory, entry);
            let next = next.ok_or(MapError::Foreign(part.start()))?;
            missing(memory, next, (origin, part), frames)?
        } else {
            return Err(MapError::Occupied(part.start()));
        };
        count = count.saturating_add(more);
    }
    Ok(count)
}

/// What of a range large pages of a level can map, with their size, and what is left of it before and behind.
fn apart(
    level: Level,
    (origin, range): (VirtAddr, VirtRange),
    frames: &impl Frames,
) -> ([VirtRange; 2], Option<(VirtRange, PageSize)>) {
    let all = [range, VirtRange::EMPTY];
    let Some(size) = level.page_size() else {
        return (all, None);
    };
    let start = range.start().align_up(size.bytes());
    let end = range.end().align_down(size.bytes());
    let large = start.and_then(|start| VirtRange::new(start, end));
    let large = large
        .filter(|large| !large.is_empty() && frames.fits(page_number(origin, large.start()), size));
    let Some(large) = large else {
        return (all, None);
    };
    let before = VirtRange::new(range.start(), large.start());
    let behind = VirtRange::new(large.end(), range.end());
    let left = [before.unwrap_or_default(), behind.unwrap_or_default()];
    (left, Some((large, size)))
}

/// Looks for something that is mapped; tables without entries are nothing. Context: locked.
///
/// # Errors
/// The first address where something is mapped, or might be.
pub(super) fn is_clear<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    range: VirtRange,
) -> Result<(), MapError> {
    if node.lock().live() == 0 {
        return Ok(());
    }
    for (slot, part) in node.parts(range) {
        let entry = slot.load();
        match node.below(memory, entry) {
            Some(below) => is_clear(memory, below, part)?,
            // The lowest tables lead nowhere, whatever their pages look like.
            None if node.level != Level::PTE && entry.leads_to_table() => {
                return Err(MapError::Foreign(part.start()));
            }
            None if !entry.is_none() => return Err(MapError::Occupied(part.start())),
            None => {}
        }
    }
    Ok(())
}

/// How many tables an entry needs that leads nowhere yet.
fn missing_below(
    part: VirtRange,
    (level, below): (Level, Level),
    at: u64,
    frames: &impl Frames,
) -> usize {
    if whole(part, level).is_some_and(|size| frames.fits(at, size)) {
        return 0;
    }
    let Some(lowest) = below.below() else {
        return 1;
    };
    let missing_in = |piece: VirtRange| {
        let at = at.wrapping_add(page_number(part.start(), piece.start()));
        missing_below(piece, (below, lowest), at, frames)
    };
    // All entries in the middle need as many as the first of them.
    let first = first_part(part, below);
    let rest = VirtRange::new(first.end(), part.end()).unwrap_or_default();
    let last_start = super::node::last_of(part).align_down(below.entry_bytes());
    let last = VirtRange::new(last_start, part.end()).filter(|last| last.start() >= first.end());
    let middle = VirtRange::new(rest.start(), last_start).filter(|_| last.is_some());
    let middle = middle.filter(|middle| !middle.is_empty());
    let in_middle = middle.map_or(0, |middle| {
        let count = to_index(middle.size() >> below.shift());
        missing_in(first_part(middle, below)).saturating_mul(count)
    });
    let ends = missing_in(first).saturating_add(last.map_or(0, missing_in));
    ends.saturating_add(in_middle).saturating_add(1)
}

/// Writing entries.
struct Fill<'s, 'a, M: TableMemory, F> {
    memory: &'a M,
    stash: &'s mut Stash<'a, M>,
    frames: &'s mut F,
    origin: VirtAddr,
    attributes: Attributes,
    empties: Empties,
    /// The bits of a small page but for its address.
    bits: u64,
    /// There were not frames for all pages.
    is_short: bool,
}

impl<'a, M: TableMemory, F: Frames> Fill<'_, 'a, M, F> {
    /// Writes the entries for `range`, all of which are clear, with as many pages for tables as are missing. Context: locked;
    /// what is made is locked too.
    fn fill(&mut self, node: Node<'a>, range: VirtRange) {
        if node.level.below().is_none() {
            self.fill_pages(node, range);
            return;
        }
        let mut new: u32 = 0;
        let (range, large) = apart(node.level, (self.origin, range), self.frames);
        if let Some((large, size)) = large {
            let at = page_number(self.origin, large.start());
            let slots = node.slots(large);
            let bits = (size, leaf_bits(size, self.attributes));
            new = self.write(at, slots, bits);
        }
        let ends = range.into_iter().flat_map(|range| node.parts(range));
        for (slot, part) in ends {
            if self.is_short {
                break;
            }
            let entry = slot.load();
            if let Some(below) = node.below(self.memory, entry) {
                self.fill(below, part);
                continue;
            }
            if let Some(below) = self.make_table(node.level) {
                self.fill(below, part);
                slot.store(Entry::table(below.page.pfn(), is_users(part.start())));
            } else {
                // Counted under the same lock.
                debug_assert!(false, "a table is missing");
                continue;
            }
            new = new.wrapping_add(1);
        }
        node.lock().add(new);
    }

    fn fill_pages(&mut self, node: Node<'a>, range: VirtRange) {
        let slots = node.slots(range);
        let at = page_number(self.origin, range.start());
        let bits = (PageSize::Size4K, self.bits);
        let new = self.write(at, slots, bits);
        node.lock().add(new);
    }

    /// Writes entries; answers how many, and notes if that is not all.
    #[inline]
    fn write(&mut self, at: u64, slots: &[Slot], bits: (PageSize, u64)) -> u32 {
        let written = self.frames.write(at, slots, bits);
        self.is_short |= written != slots.len();
        u32::try_from(written).unwrap_or(0)
    }

    /// A table below one of `above`, without entries, and locked.
    fn make_table(&mut self, above: Level) -> Option<Node<'a>> {
        let made = self.stash.make_table(above)?;
        if self.empties == Empties::Kept {
            made.lock().keep();
        }
        Some(made)
    }
}
