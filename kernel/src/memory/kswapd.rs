//! A thread for each node that reclaims memory when little is left (Linux: `kswapd`).

use super::MEMORY;
use crate::sched::spawn;
use crate::sched::thread::Affinity;
use crate::sched::wait::WaitQueue;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;
use mm::sync::Bell;

/// Nodes that can have a thread; others are seen to by whoever needs memory.
const NODES: usize = 64;

/// What wakes a thread.
#[derive(Debug)]
struct Attendant {
    /// Whether there is a thread.
    is_attended: AtomicBool,
    bell: Bell,
    queue: WaitQueue,
}

static ATTENDANTS: [Attendant; NODES] = [const {
    Attendant {
        is_attended: AtomicBool::new(false),
        bell: Bell::new(),
        queue: WaitQueue::new(),
    }
}; NODES];

fn attendant(node: NodeId) -> Option<&'static Attendant> {
    ATTENDANTS.get(usize::from(node.0))
}

/// Makes a thread for each node.
pub(crate) fn start() {
    for node in MEMORY.nodes().iter().map(mm::zone::Node::id) {
        let Some(kswapd) = attendant(node) else {
            continue;
        };
        let name = alloc::format!("kswapd{node}");
        match spawn(name, Affinity::Any, move || serve(node, kswapd)) {
            Ok(_detached) => kswapd.is_attended.store(true, Ordering::Release),
            Err(error) => log::warn!("node {node} has no kswapd: {error}"),
        }
    }
}

fn serve(node: NodeId, kswapd: &Attendant) {
    while kswapd.queue.wait_until(|| kswapd.bell.is_rung()).is_ok() {
        kswapd.bell.answer();
        let _ = MEMORY.balance_node(node);
    }
}

/// Wakes the thread of a node; answers whether there is one.
///
/// # Context
/// Any but NMI, without locks of the scheduler held.
pub(super) fn wake(node: NodeId) -> bool {
    let attended = attendant(node).filter(|kswapd| kswapd.is_attended.load(Ordering::Acquire));
    let Some(kswapd) = attended else { return false };
    if kswapd.bell.ring() {
        kswapd.queue.wake_one();
    }
    true
}
