//! What others do while one CPU is between two holds of a lock: the test's choice, not chance.
//!
//! One thread takes [`Gaps`] of a CPU and waits in [`Gaps::each`]; whenever that CPU has unmasked
//! its interrupts, it stops there until the visit is over; and, if the test wants that, whenever it is
//! about to mask them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

const NONE: u32 = u32::MAX;

/// The side of the CPU that stops.
#[derive(Debug)]
pub(super) struct Stops {
    cpu: AtomicU32,
    before_too: AtomicBool,
    visitor: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

/// The side of the visitor.
#[derive(Debug)]
pub struct Gaps {
    reached: Receiver<()>,
    go_on: Sender<()>,
}

impl Gaps {
    /// Calls `visit` in every gap, until the CPU is [let go](super::SimPlatform::no_more_gaps).
    pub fn each(self, mut visit: impl FnMut()) {
        while self.reached.recv().is_ok() {
            visit();
            // The CPU waits for this; it does not go away before.
            self.go_on.send(()).unwrap();
        }
    }
}

impl Stops {
    pub(super) fn new() -> Self {
        Self {
            cpu: AtomicU32::new(NONE),
            before_too: AtomicBool::new(false),
            visitor: Mutex::default(),
        }
    }

    /// From now on `cpu` stops in every gap: at its beginning, and also at its end if `before_too` says so.
    pub(super) fn stop(&self, cpu: u32, before_too: bool) -> Gaps {
        let ((reach, reached), (go_on, gone_on)) = (channel(), channel());
        *self.visitor.lock().unwrap() = Some((reach, gone_on));
        self.before_too.store(before_too, Ordering::Relaxed);
        self.cpu.store(cpu, Ordering::Release);
        Gaps { reached, go_on }
    }

    /// No CPU stops any more.
    pub(super) fn let_go(&self) {
        self.cpu.store(NONE, Ordering::Release);
        *self.visitor.lock().unwrap() = None;
    }

    /// `cpu` is about to mask its interrupts.
    pub(super) fn gap_ends(&self, cpu: u32) {
        if self.before_too.load(Ordering::Relaxed) {
            self.gap(cpu);
        }
    }

    /// `cpu` has unmasked its interrupts.
    pub(super) fn gap(&self, cpu: u32) {
        if self.cpu.load(Ordering::Acquire) != cpu {
            return;
        }
        if let Some((reach, gone_on)) = &*self.visitor.lock().unwrap() {
            // A visitor that has panicked is gone; its thread tells why.
            let _ = reach.send(()).map(|()| gone_on.recv());
        }
    }
}
