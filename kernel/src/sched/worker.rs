//! A thread on each CPU that does what other CPUs want done there.
//!
//! [`smp::run_on`](crate::arch::smp::run_on) leaves work in a CPU's inbox and wakes its worker. A
//! worker that waits for work elsewhere does its own meanwhile, so workers that give each
//! other work do not block. Linux counterpart: a per-CPU `kworker`.

use super::spawn::create;
use super::thread::{Affinity, Role, SpawnError, Thread};
use super::wait::park_until;
use crate::arch::local::{self, CpuLocal};
use crate::arch::{running, smp};
use alloc::sync::Arc;

/// Makes workers for all CPUs, where there are several; a single one gets its own when somebody
/// asks for it.
pub(crate) fn start_all() {
    if smp::count() < 2 {
        return;
    }
    for cpu in smp::cpus() {
        if let Err(error) = start(cpu) {
            log::warn!("cpu {} takes no work: {error}", cpu.id());
        }
    }
}

fn start(cpu: &CpuLocal) -> Result<(), SpawnError> {
    let id = cpu.id();
    let name = alloc::format!("kworker/{id}");
    let handle = create(Role::Worker, name, Affinity::Cpu(id), serve)?;
    let mut is_first = false;
    cpu.sched.worker.call_once(|| {
        is_first = true;
        Arc::clone(handle.thread())
    });
    if is_first {
        handle.start();
    } else {
        // Somebody else was faster.
        handle.cancel();
    }
    Ok(())
}

/// What a worker does, for good.
fn serve() {
    let cpu = local::current();
    loop {
        smp::serve_work();
        park_until(None, || cpu.has_work());
    }
}

/// Wakes the worker of a CPU; makes it first, where there is none.
///
/// # Errors
/// There is no memory for it.
pub(crate) fn wake(cpu: &CpuLocal) -> Result<(), SpawnError> {
    if cpu.sched.worker.get().is_none() {
        start(cpu)?;
    }
    if let Some(worker) = cpu.sched.worker.get() {
        worker.wake();
    }
    Ok(())
}

/// Whether the running thread is a worker.
pub(crate) fn is_running() -> bool {
    running::with(Thread::role) == Some(Role::Worker)
}
