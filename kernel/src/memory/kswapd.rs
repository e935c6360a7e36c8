//! A thread for each node that reclaims memory when little is left (Linux: `kswapd`).

use super::MEMORY;
use super::attendant::Attendants;
use crate::params;
use mm::platform::NodeId;

static THREADS: Attendants = Attendants::new();

/// Makes a thread for each node, unless the command line says `kswapd=off`: whoever needs memory
/// reclaims it then.
pub(crate) fn start() {
    if params::get("kswapd") == Some("off") {
        log::info!("no kswapd");
        return;
    }
    THREADS.engage("kswapd", |node| {
        let _ = MEMORY.balance_node(node);
    });
}

/// Wakes the thread of a node; answers whether there is one.
///
/// # Context
/// Any but NMI, without locks of the scheduler held.
pub(super) fn wake(node: NodeId) -> bool {
    THREADS.ring(node)
}
