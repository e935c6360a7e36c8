//! Threads that sleep until somebody rings.

use super::MEMORY;
use crate::sched::thread::Affinity;
use crate::sched::thread::SpawnError;
use crate::sched::wait::WaitQueue;
use crate::sched::{JoinHandle, prepare};
use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};
use mm::platform::NodeId;
use mm::sync::Bell;
use spin::Once;

/// A thread with a bell, if there is one.
#[derive(Debug)]
pub(super) struct Attendant {
    /// It runs from the first ring on, so that a machine that never needs it need not even measure its
    /// timer for it.
    thread: Once<JoinHandle<()>>,
    is_started: AtomicBool,
    bell: Bell,
    queue: WaitQueue,
}

impl Attendant {
    /// Nobody attends.
    pub(super) const fn new() -> Self {
        Self {
            thread: Once::new(),
            is_started: AtomicBool::new(false),
            bell: Bell::new(),
            queue: WaitQueue::new(),
        }
    }

    /// Makes the thread: whenever somebody has rung, it does `work`.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn engage(
        &'static self,
        name: impl Into<String>,
        work: impl Fn() + Send + 'static,
    ) -> Result<(), SpawnError> {
        let thread = prepare(name, Affinity::Any, move || {
            while self.queue.wait_until(|| self.bell.is_rung()).is_ok() {
                self.bell.answer();
                work();
            }
        })?;
        self.thread.call_once(|| thread);
        Ok(())
    }

    /// Wakes the thread; answers whether there is one.
    ///
    /// # Context
    /// Any but NMI, without locks of the scheduler held.
    pub(super) fn ring(&self) -> bool {
        let Some(thread) = self.thread.get() else {
            return false;
        };
        if self.bell.ring() {
            if self.is_started.swap(true, Ordering::SeqCst) {
                self.queue.wake_one();
            } else {
                thread.start();
            }
        }
        true
    }
}

/// Nodes that can have threads; of others whoever needs memory does the work.
const NODES: usize = 64;

/// A thread for each node.
#[derive(Debug)]
pub(super) struct Attendants([Attendant; NODES]);

impl Attendants {
    /// Nobody attends.
    pub(super) const fn new() -> Self {
        Self([const { Attendant::new() }; NODES])
    }

    /// Makes the threads, named `name` and the node's number. A node that gets none is logged.
    pub(super) fn engage(
        &'static self,
        name: &'static str,
        work: impl Fn(NodeId) + Copy + Send + 'static,
    ) {
        for (node, thread) in MEMORY.nodes().iter().zip(&self.0) {
            let node = node.id();
            if let Err(error) = thread.engage(alloc::format!("{name}{node}"), move || work(node)) {
                log::warn!("node {node} has no {name}: {error}");
            }
        }
    }

    /// Wakes the thread of a node; answers whether there is one.
    ///
    /// # Context
    /// Any but NMI, without locks of the scheduler held.
    pub(super) fn ring(&self, node: NodeId) -> bool {
        let thread = self.0.get(usize::from(node.0));
        thread.is_some_and(Attendant::ring)
    }
}
