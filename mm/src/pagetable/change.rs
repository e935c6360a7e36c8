//! Changing what may be done with pages that are mapped.
#![forbid(unsafe_code)]

use super::PageTable;
use super::attributes::{Attributes, Cache, Protection};
use super::check::MapCounts;
use super::entry::Entry;
use super::error::ChangeError;
use super::level::PageSize;
use super::memory::TableMemory;
use super::node::{Node, is_users};
use super::receipt::FlushReceipt;
use crate::addr::{PfnRange, VirtAddr, VirtRange};
use crate::config::PAGE_SHIFT;
use crate::platform::Platform;
use crate::report::{Corruption, DoubleMapping};

/// A change of what pages may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// More is allowed.
    Allow(Protection),
    /// Less is allowed.
    Forbid(Protection),
    /// They are cached otherwise.
    Cache(Cache),
    /// Just this is allowed, and they are cached like this (Linux: `pte_modify`).
    Exactly(Attributes),
    /// Whoever touches them has a page fault; frames and rights stay noted (Linux: `set_memory_np`).
    Unreachable,
    /// They can be touched again (Linux: `set_memory_p`).
    Reachable,
}

impl Change {
    /// Whether pages may be written to after it that could not be before.
    const fn lets_write(self) -> bool {
        match self {
            Self::Allow(more)
            | Self::Exactly(Attributes {
                protection: more, ..
            }) => more.contains(Protection::WRITE),
            _ => false,
        }
    }

    /// The entry of a page of `size` at an address after this.
    pub(super) fn of(self, entry: Entry, size: PageSize, at: VirtAddr) -> Entry {
        let is_kernels = !is_users(at);
        let mut attributes = entry.attributes(size);
        // The kernel's pages stay global; and where a page is out of reach, that bit says just this.
        let kept = match is_kernels || entry.is_protnone() {
            true => Protection::GLOBAL,
            false => Protection::empty(),
        };
        match self {
            Self::Allow(more) => attributes.protection |= more,
            Self::Forbid(less) => attributes.protection &= !less.difference(kept),
            Self::Cache(cache) => attributes.cache = cache,
            Self::Exactly(new) => {
                // What is counted stays that.
                let kept = kept | Protection::COUNTED;
                let before = attributes.protection & kept;
                attributes.protection = new.protection.difference(kept) | before;
                attributes.cache = new.cache;
            }
            Self::Unreachable => return entry.to_protnone(),
            Self::Reachable if entry.is_protnone() => return entry.from_protnone(is_kernels),
            Self::Reachable => return entry,
        }
        entry.with_attributes(size, attributes)
    }
}

impl PageTable {
    /// Changes every page of a range, all of which are mapped. Large pages that lie across an end are split.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub(crate) fn change<'a, M: TableMemory>(
        &self,
        memory: &'a M,
        range: VirtRange,
        change: Change,
    ) -> Result<FlushReceipt<'a, M>, ChangeError> {
        let mut receipt = FlushReceipt::new(memory);
        let cursor = self.lock_split(memory, range, &mut receipt, |top| {
            is_all_mapped(memory, top, range)?;
            if let Some(counts) = memory.map_counts()
                && change.lets_write()
                && let Err(mapping) = may_all_be_written((memory, counts), top, range)
            {
                let report = Corruption::DoubleMapping(mapping);
                memory.platform().corruption(&report);
                return Err(mapping.into());
            }
            Ok::<_, ChangeError>(())
        })?;
        if apply(memory, cursor.top(), range, change) {
            receipt.add(range);
        }
        Ok(receipt)
    }
}

/// Looks for something that is not mapped. Context: locked.
pub(super) fn is_all_mapped<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    range: VirtRange,
) -> Result<(), ChangeError> {
    for (slot, part) in node.parts(range) {
        let entry = slot.load();
        let below = node.below(memory, entry);
        match below {
            Some(below) => is_all_mapped(memory, below, part)?,
            None if !entry.is_mapped() => return Err(ChangeError::NotMapped(part.start())),
            None => {}
        }
    }
    Ok(())
}

/// Looks for a page that is mapped elsewhere too, and may not be written to. Context: locked.
fn may_all_be_written<M: TableMemory>(
    (memory, counts): (&M, &MapCounts),
    node: Node<'_>,
    range: VirtRange,
) -> Result<(), DoubleMapping> {
    for (slot, part) in node.parts(range) {
        let entry = slot.load();
        if let Some(below) = node.below(memory, entry) {
            may_all_be_written((memory, counts), below, part)?;
        } else if let Some(size) = node.level.page_size() {
            let leaf = entry.as_leaf(size);
            let protection = leaf.attributes.protection;
            if protection.contains(Protection::COUNTED) && !protection.contains(Protection::WRITE) {
                // Of a large page across an end, a part.
                let skipped = part.start().as_u64() & size.bytes().wrapping_sub(1);
                let first = leaf.pfn.saturating_add(skipped >> PAGE_SHIFT);
                let frames = PfnRange::from_count(first, part.pages());
                counts.check_write(frames.unwrap_or_default())?;
            }
        }
    }
    Ok(())
}

/// Changes the entries for `range`; answers whether one is another now. Context: locked, no large page across an end.
pub(super) fn apply<M: TableMemory>(
    memory: &M,
    node: Node<'_>,
    range: VirtRange,
    change: Change,
) -> bool {
    let mut has_changed = false;
    for (slot, part) in node.parts(range) {
        let entry = slot.load();
        if let Some(below) = node.below(memory, entry) {
            has_changed |= apply(memory, below, part, change);
        } else if let Some(size) = node.level.page_size() {
            let changed = change.of(entry, size, part.start());
            if changed != entry {
                slot.store(changed);
                has_changed = true;
            }
        }
    }
    has_changed
}
