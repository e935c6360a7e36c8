//! A machine whose free memory is exactly what a list says: another machine's, to replay on.

use mm::addr::{PhysAddr, PhysRange};
use mm::config::SECTION_SHIFT;
use mm::platform::NodeId;

use super::{Machine, SimConfig};

/// Free memory, as whole pages.
#[derive(Clone, Debug)]
pub struct Given {
    free: Vec<(u16, PhysRange)>,
}

impl Given {
    /// The ranges that shall be free on node 0, each `start..end` in bytes.
    #[must_use]
    pub fn new(free: &[(u64, u64)]) -> Self {
        let of_nodes: Vec<_> = free.iter().map(|&(start, end)| (0, start, end)).collect();
        Self::of_nodes(&of_nodes)
    }

    /// The ranges that shall be free, each with its node, `start..end` in bytes.
    #[must_use]
    pub fn of_nodes(free: &[(u16, u64, u64)]) -> Self {
        let range = |&(node, start, end): &(u16, u64, u64)| {
            let range = PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
            (node, range.expect("start <= end"))
        };
        Self {
            free: free.iter().map(range).collect(),
        }
    }

    /// The node on which the library's own tables live.
    #[must_use]
    pub fn own_node(&self) -> NodeId {
        let last = self.free.iter().map(|(node, _)| *node).max();
        NodeId(last.unwrap_or(0) + 1)
    }

    /// Boots a machine on which these ranges are free, and nothing else is on their nodes: the
    /// library's own tables live on another node, far above, which is asked last.
    ///
    /// # Panics
    /// If the machine does not boot.
    pub fn boot<C: SimConfig>(&self) -> Machine<C> {
        let end = self.free.iter().map(|(_, range)| range.end().as_u64());
        let bank = end.max().unwrap_or(0).next_multiple_of(1 << SECTION_SHIFT);
        let sections = (bank >> SECTION_SHIFT) + 2;
        let mut builder = Machine::<C>::new().node(self.own_node().0, bank, (sections + 4) << 20);
        for (node, range) in &self.free {
            builder = builder
                .node(*node, range.start().as_u64(), range.size())
                .held_back(*range);
        }
        builder.boot()
    }
}
