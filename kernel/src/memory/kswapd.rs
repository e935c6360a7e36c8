//! A thread for each node that reclaims memory when little is left (Linux: `kswapd`).

use super::MEMORY;
use crate::sched::spawn;
use crate::sched::thread::Affinity;
use crate::sched::wait::WaitQueue;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;

/// Nodes that can have a thread; others are seen to by whoever needs memory.
const NODES: usize = 64;

/// What wakes a thread.
#[derive(Debug)]
struct Bell {
    /// Whether there is a thread.
    is_attended: AtomicBool,
    is_rung: AtomicBool,
    queue: WaitQueue,
}

static BELLS: [Bell; NODES] = [const {
    Bell {
        is_attended: AtomicBool::new(false),
        is_rung: AtomicBool::new(false),
        queue: WaitQueue::new(),
    }
}; NODES];

fn bell(node: NodeId) -> Option<&'static Bell> {
    BELLS.get(usize::from(node.0))
}

/// Makes a thread for each node.
pub(crate) fn start() {
    for node in MEMORY.nodes().iter().map(mm::zone::Node::id) {
        let Some(bell) = bell(node) else { continue };
        let name = alloc::format!("kswapd{node}");
        match spawn(name, Affinity::Any, move || serve(node, bell)) {
            Ok(_detached) => bell.is_attended.store(true, Ordering::Release),
            Err(error) => log::warn!("node {node} has no kswapd: {error}"),
        }
    }
}

fn serve(node: NodeId, bell: &Bell) {
    let is_rung = || bell.is_rung.load(Ordering::SeqCst);
    while bell.queue.wait_until(is_rung).is_ok() {
        bell.is_rung.store(false, Ordering::SeqCst);
        let _ = MEMORY.balance_node(node);
    }
}

/// Wakes the thread of a node; answers whether there is one.
///
/// # Context
/// Any but NMI, without locks of the scheduler held.
pub(super) fn wake(node: NodeId) -> bool {
    let attended = bell(node).filter(|bell| bell.is_attended.load(Ordering::Acquire));
    let Some(bell) = attended else { return false };
    if !bell.is_rung.swap(true, Ordering::SeqCst) {
        bell.queue.wake_one();
    }
    true
}
