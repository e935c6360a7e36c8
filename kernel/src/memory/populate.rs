//! A thread for each node that populates memory ahead of requests, and a look at what is populated.
//!
//! It keeps a little ahead of what is used, and then sleeps (Linux's `pgdatinit` threads initialise all
//! memory after boot).

use super::MEMORY;
use super::attendant::Attendant;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;

/// Nodes that can have a thread; of others requests populate the memory.
const NODES: usize = 64;

static THREADS: [Attendant; NODES] = [const { Attendant::new() }; NODES];
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// Makes a thread for each node, unless all memory is populated.
pub(crate) fn start() {
    let mut zones = MEMORY.zones();
    if zones.all(|zone| zone.latent_frames() == 0) {
        return;
    }
    for (node, thread) in MEMORY.nodes().iter().zip(&THREADS) {
        let node = node.id();
        let work = move || {
            let _ = MEMORY.populate_ahead(node);
        };
        if let Err(error) = thread.engage(alloc::format!("pgdatinit{node}"), work) {
            log::warn!("node {node} has no pgdatinit: {error}");
        }
    }
}

/// Has each thread do its work for the first time: once the boot is over, whose time does not depend
/// on how much memory there is. Until then requests populate for themselves.
pub(crate) fn begin() {
    if HAS_BEGUN.swap(true, Ordering::AcqRel) {
        return;
    }
    for node in MEMORY.nodes().iter().filter(|node| node.is_behind()) {
        let _ = wake(node.id());
    }
}

/// Wakes the thread of a node; answers whether there is one.
///
/// # Context
/// Any but NMI, without locks of the scheduler held.
pub(super) fn wake(node: NodeId) -> bool {
    let thread = THREADS.get(usize::from(node.0));
    HAS_BEGUN.load(Ordering::Acquire) && thread.is_some_and(Attendant::ring)
}
