//! Tables of a word or a few for each frame, where they are asked for.
#![forbid(unsafe_code)]

use super::super::{PageOwner, PageTableCheck};
use super::{BringUpError, Builder};
use crate::addr::to_index;
use crate::frame::{ByFrame, FrameTable, LastFrees, Origins};
use crate::mem::Array;
use crate::pagetable::MapCounts;
use crate::platform::{NodeId, Platform};

impl<P: Platform> Builder<'_, P> {
    /// Room for where frames were allocated, and for who gave them back, if that is to be kept.
    pub(super) fn owners(
        &mut self,
        frames: &FrameTable,
        kept: PageOwner,
    ) -> Result<(Origins, LastFrees), BringUpError> {
        if kept == PageOwner::Off {
            return Ok((Origins::none(), LastFrees::none()));
        }
        Ok((self.by_section(frames)?, self.by_section(frames)?))
    }

    /// Room for how often frames are mapped, if that is to be counted.
    pub(super) fn map_counts(
        &mut self,
        frames: &FrameTable,
        checks: PageTableCheck,
    ) -> Result<MapCounts, BringUpError> {
        if checks == PageTableCheck::Off {
            return Ok(MapCounts::none());
        }
        let sections = to_index(frames.limit().section());
        let ram = self.take_table(MapCounts::bytes_for(sections), NodeId(0))?;
        Ok(MapCounts::new(self.platform, ram, sections)?)
    }

    /// A `T` for each frame of the sections that have memory.
    fn by_section<T: Default>(&mut self, frames: &FrameTable) -> Result<ByFrame<T>, BringUpError> {
        let sections = to_index(frames.limit().section());
        let bytes = Array::<Array<T>>::bytes_for(sections).unwrap_or(u64::MAX);
        let ram = self.take_table(bytes, NodeId(0))?;
        let mut table = Array::carve(self.platform, ram, sections, |_| Array::empty())?;
        for (section, place) in (0..).zip(table.iter_mut()) {
            if frames.section(section).is_none() {
                continue;
            }
            let count = ByFrame::<T>::SECTION;
            let bytes = Array::<T>::bytes_for(count).unwrap_or(u64::MAX);
            let ram = self.take_table(bytes, NodeId(0))?;
            *place = Array::carve(self.platform, ram, count, |_| T::default())?;
        }
        Ok(ByFrame::new(table))
    }
}
