//! Making threads, ending them, waiting for their end.
#![expect(unsafe_code, reason = "a new thread's first frame is written by hand")]

use super::thread::{Affinity, Recipe, Role, SpawnError, Thread};
use super::{Atomic, hotplug, idle, might_sleep, queue, switch};
use crate::arch::lock::IrqLock;
use crate::arch::{context, exit as ending, local, running, smp};
use crate::memory::stacks::{Stack, THREAD_BYTES};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use x86_64::instructions::interrupts;

/// The end of a thread, and its result, to be waited for. Dropped, the thread goes on by itself.
#[derive(Debug)]
pub struct JoinHandle<T> {
    thread: Arc<Thread>,
    result: Arc<IrqLock<Option<T>>>,
}

impl<T> JoinHandle<T> {
    /// The thread.
    #[must_use]
    pub const fn thread(&self) -> &Arc<Thread> {
        &self.thread
    }

    /// Waits until the thread has ended, gives its stack back, and answers its result.
    ///
    /// # Errors
    /// The caller may not sleep, or the thread called [`exit`] instead of returning. The first
    /// leaves the thread to itself.
    ///
    /// # Context
    /// Task.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.thread.wait_for_end().map_err(JoinError::Atomic)?;
        self.thread.give_stack_back();
        let result = self.result.lock().take();
        result.ok_or(JoinError::NoResult)
    }

    /// Lets a thread run that was made by [`prepare`] or `create`; once.
    pub(crate) fn start(&self) {
        queue::place(Arc::clone(&self.thread));
    }

    /// Ends a thread that was made by [`create`] and will not run.
    pub(super) fn cancel(&self) {
        self.thread.has_ended();
    }

    /// Waits as [`JoinHandle::join`] does, but in any case: where it may not sleep, it spins.
    pub(super) fn wait_for_end(&self) {
        if self.thread.wait_for_end().is_err() {
            while !self.thread.is_ended() {
                core::hint::spin_loop();
            }
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if self.thread.detach() {
            idle::clear_away(Arc::clone(&self.thread));
        }
    }
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// Waiting is not allowed here.
    Atomic(Atomic),
    /// The thread called [`exit`].
    NoResult,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atomic(atomic) => atomic.fmt(f),
            Self::NoResult => f.write_str("the thread ended without a result"),
        }
    }
}

/// Makes a thread that runs `body` on the CPUs that `affinity` allows.
///
/// # Errors
/// [`SpawnError`].
///
/// # Context
/// Task.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    affinity: Affinity,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, SpawnError> {
    let handle = prepare(name, affinity, body)?;
    handle.start();
    Ok(handle)
}

/// As [`spawn`], but the thread runs from [`JoinHandle::start`] on.
pub(crate) fn prepare<T: Send + 'static>(
    name: impl Into<String>,
    affinity: Affinity,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, SpawnError> {
    create(Role::Normal, name.into(), affinity, body)
}

/// Makes a thread that does not run yet.
pub(super) fn create<T: Send + 'static>(
    role: Role,
    name: String,
    affinity: Affinity,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, SpawnError> {
    idle::reap();
    // Whoever is bound to a CPU keeps it online.
    let visit = match affinity {
        Affinity::Cpu(id) if role == Role::Normal => {
            Some(hotplug::visit(id).ok_or(SpawnError::NoSuchCpu(id))?)
        }
        Affinity::Cpu(id) if smp::cpu(id).is_none() => return Err(SpawnError::NoSuchCpu(id)),
        _ => None,
    };
    let stack = Stack::new(THREAD_BYTES)?;
    let result = Arc::new(IrqLock::new(None));
    let slot = Arc::clone(&result);
    let body = move || {
        let value = body();
        *slot.lock() = Some(value);
    };
    let extent = stack.extent();
    // SAFETY: (1) the stack was made just now.
    let sp = unsafe { context::prepare(extent, start) };
    let thread = Thread::new(Recipe {
        name,
        affinity,
        role,
        extent,
        stack: Some(stack),
        body: Some(Box::new(body)),
        visit,
        sp,
        cpu: match affinity {
            Affinity::Cpu(id) => id,
            Affinity::Any => local::current_id(),
        },
    })?;
    Ok(JoinHandle { thread, result })
}

/// Where a thread starts: interrupts off, on its own stack.
extern "sysv64" fn start() -> ! {
    switch::finish();
    interrupts::enable();
    let body = running::get().and_then(|thread| thread.take_body());
    if let Some(body) = body {
        body();
    }
    exit()
}

/// Ends the running thread. What its function owns is not dropped.
///
/// # Context
/// Task, in a thread that was spawned.
pub fn exit() -> ! {
    if let Err(atomic) = might_sleep() {
        log::error!("thread ends {atomic}");
    }
    interrupts::disable();
    let cpu = local::current();
    cpu.reset_pins(0);
    switch::schedule(switch::Leaving::Ended);
    // Nobody switches back to a thread that has ended.
    ending::halt()
}
