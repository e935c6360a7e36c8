//! What CPUs find what they have at hand by.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder};
use crate::buddy::PageSet;
use crate::buddy::pageset::Gauges;
use crate::frame::{FrameTable, ZoneId};
use crate::mem::Array;
use crate::platform::{NodeId, Platform};
use crate::slab::at_hand::{self, NoObjects};
use crate::zone::{NoLists, Ways};

impl<P: Platform> Builder<'_, P> {
    /// For each CPU the ways to its lists of pages and to its objects: none yet.
    pub(super) fn ways(
        &mut self,
        frames: &FrameTable,
    ) -> Result<Array<Ways<at_hand::Ways>>, BringUpError> {
        let nowhere = ZoneId {
            node: NodeId(0),
            zone: 0,
        };
        let lists = || NoLists::new(PageSet::new(nowhere, None), Gauges::default());
        let lists = self.kept(lists)?;
        let objects: &NoObjects = self.kept(at_hand::no_objects)?;
        self.by_cpu(NodeId(0), |_| {
            let objects = at_hand::Ways::new(objects, ());
            Ways::new(lists, (frames.again(), objects))
        })
    }

    /// A value that stays for good.
    fn kept<T>(&mut self, make: impl Fn() -> T) -> Result<&'static T, BringUpError> {
        let bytes = Array::<T>::bytes_for(1).unwrap_or(u64::MAX);
        let ram = self.take_table(bytes, NodeId(0))?;
        let kept = Array::carve(self.platform, ram, 1, |_| make())?.leak();
        kept.first().ok_or(BringUpError::Unreachable)
    }
}
