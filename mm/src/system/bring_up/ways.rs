//! What CPUs find what they have at hand by.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder};
use crate::frame::FrameTable;
use crate::mem::Array;
use crate::platform::{NodeId, Platform};
use crate::system::Ways;
use crate::zone;

impl<P: Platform> Builder<'_, P> {
    /// For each CPU the ways to its lists of pages and to its objects: none yet.
    pub(super) fn ways(&mut self, frames: &FrameTable) -> Result<Array<Ways>, BringUpError> {
        self.by_cpu(NodeId(0), |_| {
            zone::Ways::new((frames.again(), crate::slab::at_hand::Ways::new(())))
        })
    }
}
