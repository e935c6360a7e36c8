//! A thread for each node that reclaims memory when little is left (Linux: `kswapd`).

use super::MEMORY;
use super::attendant::Attendant;
use crate::params;
use mm::platform::NodeId;

/// Nodes that can have a thread; others are seen to by whoever needs memory.
const NODES: usize = 64;

static THREADS: [Attendant; NODES] = [const { Attendant::new() }; NODES];

fn attendant(node: NodeId) -> Option<&'static Attendant> {
    THREADS.get(usize::from(node.0))
}

/// Makes a thread for each node, unless the command line says `kswapd=off`: whoever needs memory
/// reclaims it then.
pub(crate) fn start() {
    if params::get("kswapd") == Some("off") {
        log::info!("no kswapd");
        return;
    }
    for node in MEMORY.nodes().iter().map(mm::zone::Node::id) {
        let Some(thread) = attendant(node) else {
            continue;
        };
        let work = move || {
            let _ = MEMORY.balance_node(node);
        };
        if let Err(error) = thread.engage(alloc::format!("kswapd{node}"), work) {
            log::warn!("node {node} has no kswapd: {error}");
        }
    }
}

/// Wakes the thread of a node; answers whether there is one.
///
/// # Context
/// Any but NMI, without locks of the scheduler held.
pub(super) fn wake(node: NodeId) -> bool {
    attendant(node).is_some_and(Attendant::ring)
}
