//! Threads of the nodes that wait until somebody rings for them.

use super::MEMORY;
use crate::sched::thread::Affinity;
use crate::sched::wait::WaitQueue;
use crate::sched::{JoinHandle, prepare};
use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;
use spin::Once;

/// Nodes that can have a thread of a kind; others do without.
const NODES: usize = 64;

/// What wakes a thread.
#[derive(Debug)]
struct Bell {
    /// Who listens, if anybody: runs from the first ring on, so that a machine that never rings need
    /// not even measure its timer for it.
    thread: Once<JoinHandle<()>>,
    is_started: AtomicBool,
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
                    thread: Once::new(),
                    is_started: AtomicBool::new(false),
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
            match prepare(name(node), Affinity::Any, move || serve(node, bell, work)) {
                Ok(thread) => {
                    bell.thread.call_once(|| thread);
                }
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
            .and_then(|bell| Some((bell, bell.thread.get()?)));
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
}

fn serve(node: NodeId, bell: &Bell, work: fn(NodeId)) {
    let is_rung = || bell.is_rung.load(Ordering::SeqCst);
    while bell.queue.wait_until(is_rung).is_ok() {
        bell.is_rung.store(false, Ordering::SeqCst);
        work(node);
    }
}
