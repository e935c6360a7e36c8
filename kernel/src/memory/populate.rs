//! A thread for each node that populates memory ahead of requests, and a look at what is populated.
//!
//! It keeps a little ahead of what is used, and then sleeps (Linux's `pgdatinit` threads initialise all
//! memory after boot).

use super::MEMORY;
use super::attendant::Attendants;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;

static THREADS: Attendants = Attendants::new();
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// Makes a thread for each node, unless all memory is populated.
pub(crate) fn start() {
    let mut zones = MEMORY.zones();
    if zones.all(|zone| zone.latent_frames() == 0) {
        return;
    }
    THREADS.engage("pgdatinit", |node| {
        let _ = MEMORY.populate_ahead(node);
    });
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
    HAS_BEGUN.load(Ordering::Acquire) && THREADS.ring(node)
}
