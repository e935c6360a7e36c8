//! A thread for each node that reclaims memory when little is left (Linux: `kswapd`).

use super::MEMORY;
use crate::params;
use crate::sched::thread::Affinity;
use crate::sched::wait::WaitQueue;
use crate::sched::{JoinHandle, prepare};
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;
use spin::Once;

/// Nodes that can have a thread; others are seen to by whoever needs memory.
const NODES: usize = 64;

/// What wakes a thread.
#[derive(Debug)]
struct Bell {
    /// Who listens, if anybody: runs from the first ring on, so that a machine that never is short
    /// of memory need not even measure its timer for it.
    thread: Once<JoinHandle<()>>,
    is_started: AtomicBool,
    is_rung: AtomicBool,
    queue: WaitQueue,
}

static BELLS: [Bell; NODES] = [const {
    Bell {
        thread: Once::new(),
        is_started: AtomicBool::new(false),
        is_rung: AtomicBool::new(false),
        queue: WaitQueue::new(),
    }
}; NODES];

fn bell(node: NodeId) -> Option<&'static Bell> {
    BELLS.get(usize::from(node.0))
}

/// Makes a thread for each node, unless the command line says `kswapd=off`: whoever needs memory
/// reclaims it then.
pub(crate) fn start() {
    if params::get("kswapd") == Some("off") {
        log::info!("no kswapd");
        return;
    }
    for node in MEMORY.nodes().iter().map(mm::zone::Node::id) {
        let Some(bell) = bell(node) else { continue };
        let name = alloc::format!("kswapd{node}");
        match prepare(name, Affinity::Any, move || serve(node, bell)) {
            Ok(thread) => {
                bell.thread.call_once(|| thread);
            }
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
    let attended = bell(node).and_then(|bell| Some((bell, bell.thread.get()?)));
    let Some((bell, thread)) = attended else {
        return false;
    };
    if !bell.is_rung.swap(true, Ordering::SeqCst) {
        if bell.is_started.swap(true, Ordering::SeqCst) {
            bell.queue.wake_one();
        } else {
            thread.start();
        }
    }
    true
}
