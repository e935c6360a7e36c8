//! Looking, without locks: what is found may change at any time, but is not freed while the caller looks.
#![forbid(unsafe_code)]

use super::PageTable;
use super::entry::{Entry, Leaf};
use super::entry_io::Table;
use super::level::Level;
use super::memory::TableMemory;
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::sync::Pin;

/// A step of the walk that the CPU makes for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// How high the table stands.
    pub level: Level,
    /// The table's frame.
    pub table: Pfn,
    /// Which entry.
    pub index: usize,
    /// What stands there.
    pub entry: Entry,
}

/// The walk that the CPU makes for an address (SDM vol. 3A, 4.5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    steps: [Option<Step>; 5],
}

impl Walk {
    /// The steps, from the root down.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.steps.into_iter().flatten()
    }

    /// The last step.
    #[must_use]
    pub fn last(&self) -> Option<Step> {
        self.steps().last()
    }

    /// The page at the end, if there is one that can be used.
    #[must_use]
    pub fn leaf(&self) -> Option<Leaf> {
        let last = self.last()?;
        match last.entry.decode(last.level) {
            super::Decoded::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    /// The physical address behind `at`, for which the walk was made.
    #[must_use]
    pub fn phys(&self, at: VirtAddr) -> Option<PhysAddr> {
        let leaf = self.leaf()?;
        let offset = at.as_u64() & leaf.size.bytes().wrapping_sub(1);
        leaf.phys().checked_add(offset)
    }
}

impl PageTable {
    /// The walk for an address; without a step if that is not canonical, or the tables are out of reach.
    pub(crate) fn walk<M: TableMemory>(&self, memory: &M, at: VirtAddr) -> Walk {
        let mut walk = Walk { steps: [None; 5] };
        if !at.is_canonical(self.levels) {
            return walk;
        }
        // Tables are freed when all who are pinned now are not any more.
        let _pin = Pin::new(memory.platform());
        let Some(root) = self.top(memory) else {
            return walk;
        };
        let (mut table, mut pfn, mut level) = (root.table, self.root, self.top_level());
        for step in &mut walk.steps {
            let index = level.index(at);
            let entry = table.slot(index).load();
            *step = Some(Step {
                level,
                table: pfn,
                index,
                entry,
            });
            let next = level.below().zip(entry.table_pfn());
            let below = Table::below(table, memory.platform(), entry);
            let (Some((lower, frame)), Some(below)) = (next, below) else {
                break;
            };
            (table, pfn, level) = (below, frame, lower);
        }
        walk
    }

    /// The first page at or behind an address that can be used, and where it starts: what is mapped is passed over in the
    /// largest steps that there are.
    pub(crate) fn next_leaf<M: TableMemory>(
        &self,
        memory: &M,
        from: VirtAddr,
    ) -> Option<(VirtAddr, Leaf)> {
        let mut at = from;
        loop {
            if !at.is_canonical(self.levels) {
                let lower_end = self.top_level().entry_bytes().wrapping_shl(8);
                // The hole: go on behind it.
                at = VirtAddr::new(lower_end.wrapping_neg());
                if at < from {
                    return None;
                }
            }
            let last = self.walk(memory, at).last()?;
            let start = at.align_down(last.level.entry_bytes());
            if let super::Decoded::Leaf(leaf) = last.entry.decode(last.level) {
                return Some((start, leaf));
            }
            at = start.checked_add(last.level.entry_bytes())?;
        }
    }
}
