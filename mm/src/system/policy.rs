//! Requests with a memory policy, their own or their task's (Linux: `alloc_pages_mpol`).
//!
//! A task's policy is asked for by [`Platform::has_policy`] before the page lists are looked at, and
//! then copied ([`Platform::with_policy`]): nothing of the platform's is held while pages are looked
//! for. Requests that name a node, by number or with [`Gfp::THISNODE`], have no use for it.
#![forbid(unsafe_code)]

use super::{AllocError, Block, Core, Memory};
use crate::addr::{Order, Pfn};
use crate::buddy::{Gfp, Request, Told, Trace};
use crate::mem::Exclusive;
use crate::numa::{Mode, NodeMask, NodeState, Policy, PolicyError};
use crate::platform::{NodeId, Platform};
use crate::sync::Pin;
use crate::sync::atomic::Ordering;
use crate::zone::{Node, NumaEvent};

/// Whose memory a request may get.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The one that is asked first, and in whose order the others are.
    pub(super) near: &'a Node,
    /// Only these, if there is a set.
    pub(super) only: Option<&'a NodeMask>,
}

impl<'a> From<&'a Node> for Place<'a> {
    fn from(near: &'a Node) -> Self {
        Self { near, only: None }
    }
}

impl Place<'_> {
    /// Whether a node's memory will do.
    #[inline]
    pub(super) fn allows(&self, node: &Node) -> bool {
        self.only.is_none_or(|only| only.contains(node.id()))
    }
}

/// What a policy says about one request.
enum Choice {
    /// Near to the CPU.
    Local,
    /// This node first.
    From(NodeId),
    /// This one first, because it is its turn.
    Turn(NodeId),
    /// These only.
    Only(NodeMask),
    /// These first.
    First(NodeMask),
}

impl<P: Platform> Memory<P> {
    /// A policy for this machine (Linux: `mpol_new`, `mpol_set_nodemask`): nodes without memory are
    /// left out. Context: any.
    ///
    /// # Errors
    /// [`PolicyError`]; unlike Linux, one that names a node which does not exist is refused even if
    /// others do.
    pub fn policy(&self, mode: Mode, nodes: &NodeMask) -> Result<Policy, PolicyError> {
        let core = self.core().ok_or(PolicyError::NotUp)?;
        // What is wrong in any case comes first.
        Policy::new(mode, nodes)?;
        if nodes.is_empty() {
            return Policy::new(mode, nodes);
        }
        let unknown = nodes.without(&core.node_states(NodeState::Possible));
        if let Some(node) = unknown.first() {
            return Err(PolicyError::NoSuchNode(node));
        }
        let with_memory = nodes.and(&core.numa.memory);
        match with_memory.is_empty() {
            true => Err(PolicyError::NoMemory),
            false => Policy::new(mode, &with_memory),
        }
    }

    /// As [`Self::alloc_block`](Memory::alloc_block), with memory from where `policy` says; the
    /// calling task's own policy does not count. Context: as [`Self::alloc_block`](Memory::alloc_block).
    ///
    /// [`Mode::Bind`] does not bind requests for zones below the highest that the machine has, nor
    /// those that none of its nodes has a zone for, as in Linux (`apply_policy_zone`): memory for
    /// old devices may be on one node only.
    ///
    /// # Errors
    /// [`AllocError`]; [`AllocError::NoSuchNode`] if the policy is none for this machine.
    #[track_caller]
    pub fn alloc_block_policy(
        &self,
        policy: &mut Policy,
        gfp: Gfp,
        order: Order,
    ) -> Result<Block<&Self>, AllocError> {
        Ok(Block::new(self.alloc_by(policy, gfp, order)?, self))
    }

    /// As [`Self::alloc_pages`](Memory::alloc_pages), with memory from where `policy` says: see
    /// [`Self::alloc_block_policy`]. Context: as [`Self::alloc_block`](Memory::alloc_block).
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn alloc_pages_policy(
        &self,
        policy: &mut Policy,
        gfp: Gfp,
        order: Order,
    ) -> Result<Pfn, AllocError> {
        let block = self.alloc_by(policy, gfp, order)?;
        Ok(block.leak().first())
    }

    #[track_caller]
    fn alloc_by(
        &self,
        policy: &mut Policy,
        gfp: Gfp,
        order: Order,
    ) -> Result<Exclusive, AllocError> {
        let request = Request::new(gfp, order)?;
        let core = self.core().ok_or(AllocError::NotUp)?;
        let choice = core.choose(policy);
        self.alloc_chosen(core, &choice, request, &mut Told(&self.platform))
    }

    /// How many pages in a row [`Mode::WeightedInterleave`] takes from a node; 1 at first. Context:
    /// any.
    #[must_use]
    pub fn interleave_weight(&self, node: NodeId) -> Option<u8> {
        let weight = self.core()?.numa.weights.at(u64::from(node.0))?;
        Some(weight.load(Ordering::Relaxed))
    }

    /// Sets that (Linux: `/sys/kernel/mm/mempolicy/weighted_interleave/nodeN`). Context: any.
    ///
    /// # Errors
    /// [`PolicyError::NoWeight`], [`PolicyError::NoSuchNode`], [`PolicyError::NotUp`].
    pub fn set_interleave_weight(&self, node: NodeId, weight: u8) -> Result<(), PolicyError> {
        let core = self.core().ok_or(PolicyError::NotUp)?;
        if weight == 0 {
            return Err(PolicyError::NoWeight);
        }
        let place = core.numa.weights.at(u64::from(node.0));
        let place = place.ok_or(PolicyError::NoSuchNode(node))?;
        place.store(weight, Ordering::Relaxed);
        Ok(())
    }

    /// Serves a request by the policy of the running task; `None` if that leaves it to the usual
    /// way.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_by_task(
        &self,
        core: &Core,
        request: Request,
        trace: &mut impl Trace,
    ) -> Option<Result<Exclusive, AllocError>> {
        if request.gfp().contains(Gfp::THISNODE) {
            return None;
        }
        let mut choice = Choice::Local;
        self.platform
            .with_policy(&mut |policy| choice = core.choose(policy));
        match choice {
            Choice::Local => None,
            choice => Some(self.alloc_chosen(core, &choice, request, trace)),
        }
    }

    fn alloc_chosen(
        &self,
        core: &Core,
        choice: &Choice,
        request: Request,
        trace: &mut impl Trace,
    ) -> Result<Exclusive, AllocError> {
        let local = core.near_node(&self.platform);
        let local = Place::from(local.ok_or(AllocError::NoSuchNode)?);
        let from = |node| {
            core.node(node)
                .map(Place::from)
                .ok_or(AllocError::NoSuchNode)
        };
        match choice {
            Choice::Local => self.alloc_at(core, local, request, trace),
            Choice::From(node) => self.alloc_at(core, from(*node)?, request, trace),
            Choice::Turn(node) => {
                let block = self.alloc_at(core, from(*node)?, request, trace)?;
                self.note_turn(core, *node, &block);
                Ok(block)
            }
            Choice::Only(nodes) => {
                if !nodes.intersects(&core.numa.memory) {
                    return Err(AllocError::NoSuchNode);
                }
                let only = core.numa.is_bound(nodes, request).then_some(nodes);
                let place = Place { only, ..local };
                self.alloc_at(core, place, request, trace)
            }
            Choice::First(nodes) => {
                let place = Place {
                    only: Some(nodes),
                    ..local
                };
                // Others come before trouble is gone to for these.
                match self.alloc_at(core, place, request.lightly(), trace) {
                    Err(AllocError::OutOfMemory) => self.alloc_at(core, local, request, trace),
                    found => found,
                }
            }
        }
    }

    /// Counts a block that came from the node whose turn it was.
    fn note_turn(&self, core: &Core, node: NodeId, block: &Exclusive) {
        let frame = core.frames.frame(block.frames().first());
        let zone = frame.and_then(|frame| core.zone(frame.word().zone_id()));
        if let Some(zone) = zone.filter(|zone| zone.id().node == node) {
            let cpu = Pin::new(&self.platform).cpu();
            zone.note_numa(cpu, NumaEvent::Interleaved, 1);
        }
    }
}

impl Core {
    /// What a policy says about the next request.
    fn choose(&self, policy: &mut Policy) -> Choice {
        let nodes = *policy.nodes();
        match policy.mode() {
            Mode::Default | Mode::Local => Choice::Local,
            Mode::Preferred => nodes.first().map_or(Choice::Local, Choice::From),
            Mode::Bind => Choice::Only(nodes),
            Mode::PreferredMany => Choice::First(nodes),
            Mode::Interleave | Mode::WeightedInterleave => {
                let weight = |node: NodeId| {
                    let weight = self.numa.weights.at(u64::from(node.0));
                    weight.map_or(1, |weight| weight.load(Ordering::Relaxed))
                };
                policy.take_turn(weight).map_or(Choice::Local, Choice::Turn)
            }
        }
    }
}
