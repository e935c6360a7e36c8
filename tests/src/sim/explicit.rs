//! A machine whose free memory is exactly what a list says: another machine's, to replay on.

use mm::addr::{PhysAddr, PhysRange};
use mm::config::SECTION_SHIFT;

use super::{Machine, SimConfig};

/// Free memory, as whole pages.
#[derive(Clone, Debug)]
pub struct Given {
    free: Vec<PhysRange>,
}

impl Given {
    /// The ranges that shall be free, each `start..end` in bytes.
    #[must_use]
    pub fn new(free: &[(u64, u64)]) -> Self {
        let range = |&(start, end): &(u64, u64)| {
            PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).expect("start <= end")
        };
        Self {
            free: free.iter().map(range).collect(),
        }
    }

    /// Boots a machine on whose node 0 these ranges are free, and nothing else is: the library's
    /// own tables live on node 1, far above, which no request asks.
    ///
    /// # Panics
    /// If the machine does not boot.
    pub fn boot<C: SimConfig>(&self) -> Machine<C> {
        let end = self.free.iter().map(|range| range.end().as_u64()).max();
        let bank = end.unwrap_or(0).next_multiple_of(1 << SECTION_SHIFT);
        let sections = (bank >> SECTION_SHIFT) + 2;
        let mut builder = Machine::<C>::new().node(1, bank, (sections + 4) << 20);
        for range in &self.free {
            builder = builder
                .ram(range.start().as_u64(), range.size())
                .held_back(*range);
        }
        builder.boot()
    }
}
