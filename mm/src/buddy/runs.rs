//! Free pageblocks in a row, for requests that are larger than the largest block.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::block_index;
use super::free_areas::FreeAreas;
use crate::addr::{Order, Pfn};

impl FreeAreas {
    /// Whether the pageblock that starts at `pfn` is free as a whole, and there for ordinary requests.
    pub(crate) fn is_free_pageblock(&self, pfn: Pfn) -> bool {
        let area = self
            .slot_of(pfn)
            .and_then(|slot| self.areas.at(slot)?.as_deref());
        let Some(area) = area else { return false };
        let number = block_index(pfn.section_offset());
        let block = &area.blocks[number];
        let is_ordinary = matches!(
            block.kind,
            MigrateType::Unmovable | MigrateType::Movable | MigrateType::Reclaimable
        );
        let starts_whole = block.largest() >= Some(Order::PAGEBLOCK);
        let ends_pair = || {
            let pair = area.covering_pair(number);
            pair.is_some_and(|(at, _)| area.is_free(at, Order::MAX))
        };
        is_ordinary && (starts_whole || ends_pair())
    }
}
