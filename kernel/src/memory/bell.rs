//! Threads of the nodes that wait until somebody rings for them.

use super::MEMORY;
use crate::sched::spawn;
use crate::sched::thread::Affinity;
use crate::sched::wait::WaitQueue;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;

/// Nodes that can have a thread of a kind; others do without.
const NODES: usize = 64;

/// What wakes a thread.
#[derive(Debug)]
struct Bell {
    /// Whether there is a thread.
    is_attended: AtomicBool,
    is_rung: AtomicBool,
    queue: WaitQueue,
}

/// The bells of one kind of thread, by node.
#[derive(Debug)]
pub(super) struct Bells([Bell; NODES]);

impl Bells {
    /// Nobody attends to them yet.
    pub(super) const fn new() -> Self {
        Self(
            [const {
                Bell {
                    is_attended: AtomicBool::new(false),
                    is_rung: AtomicBool::new(false),
                    queue: WaitQueue::new(),
                }
            }; NODES],
        )
    }

    fn of(&self, node: NodeId) -> Option<&Bell> {
        self.0.get(usize::from(node.0))
    }

    /// Makes a thread for each node, which does `work` whenever it was rung for.
    pub(super) fn attend(&'static self, name: fn(NodeId) -> String, work: fn(NodeId)) {
        for node in MEMORY.nodes().iter().map(mm::zone::Node::id) {
            let Some(bell) = self.of(node) else { continue };
            match spawn(name(node), Affinity::Any, move || serve(node, bell, work)) {
                Ok(_detached) => bell.is_attended.store(true, Ordering::Release),
                Err(error) => log::warn!("node {node} has no {}: {error}", name(node)),
            }
        }
    }

    /// Wakes the thread of a node; answers whether there is one.
    ///
    /// # Context
    /// Any but NMI, without locks of the scheduler held.
    pub(super) fn ring(&self, node: NodeId) -> bool {
        let attended = self
            .of(node)
            .filter(|bell| bell.is_attended.load(Ordering::Acquire));
        let Some(bell) = attended else { return false };
        if !bell.is_rung.swap(true, Ordering::SeqCst) {
            bell.queue.wake_one();
        }
        true
    }
}

fn serve(node: NodeId, bell: &Bell, work: fn(NodeId)) {
    let is_rung = || bell.is_rung.load(Ordering::SeqCst);
    while bell.queue.wait_until(is_rung).is_ok() {
        bell.is_rung.store(false, Ordering::SeqCst);
        work(node);
    }
}
