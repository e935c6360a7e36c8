//! A simulated machine's page allocator, as a sequence of [`mm_workload`] sees it.

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::numa::{Mode, NodeMask};
use mm::platform::NodeId;
use mm_workload::{Class, Pages, Policy};

use super::{Machine, SimConfig};

/// Plays a sequence on a machine.
#[derive(Debug)]
pub struct OnMachine<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    also: Gfp,
    nodes: u32,
}

impl<'m, C: SimConfig> OnMachine<'m, C> {
    /// Every request has the flags `also` beside those of its class.
    #[must_use]
    pub const fn new(machine: &'m Machine<C>, also: Gfp) -> Self {
        Self {
            machine,
            also,
            nodes: 1,
        }
    }

    /// The sequence knows of the first `nodes` nodes, and sets policies that name them.
    #[must_use]
    pub const fn with_nodes(self, nodes: u32) -> Self {
        Self { nodes, ..self }
    }
}

impl<C: SimConfig> Pages for OnMachine<'_, C> {
    fn alloc(&mut self, class: Class, order: u8) -> Option<u64> {
        let gfp = match class {
            Class::Kernel => Gfp::KERNEL,
            Class::Cache => Gfp::KERNEL | Gfp::RECLAIMABLE,
            Class::User => Gfp::HIGHUSER_MOVABLE,
            Class::Dma32 => Gfp::KERNEL | Gfp::DMA32,
            Class::Dma => Gfp::KERNEL | Gfp::DMA,
        };
        let order = Order::new(order)?;
        let pfn = self.machine.alloc_pages(gfp | self.also, order).ok()?;
        Some(pfn.as_u64())
    }

    fn free(&mut self, first: u64, order: u8) {
        let order = Order::new(order).unwrap();
        // SAFETY: a sequence frees what it allocated, once.
        unsafe { self.machine.free_pages(Pfn::new(first), order) }.unwrap();
    }

    fn nodes(&self) -> u32 {
        self.nodes
    }

    fn set_policy(&mut self, policy: Policy) {
        let mode = match policy.mode {
            mm_workload::Mode::Local => Mode::Default,
            mm_workload::Mode::Preferred => Mode::Preferred,
            mm_workload::Mode::PreferredMany => Mode::PreferredMany,
            mm_workload::Mode::Bind => Mode::Bind,
            mm_workload::Mode::Interleave => Mode::Interleave,
            mm_workload::Mode::WeightedInterleave => Mode::WeightedInterleave,
        };
        let nodes = NodeMask::of(policy.node_numbers().map(NodeId)).unwrap();
        let policy = self.machine.policy(mode, &nodes).unwrap();
        let policy = Some(policy).filter(|_| mode != Mode::Default);
        self.machine.hardware().set_policy(policy);
    }
}
