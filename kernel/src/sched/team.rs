//! Threads that borrow from whoever waits for them.
//!
//! A thread may outlive the function that made it, so it must own all that it uses. A team may not: it is
//! joined before [`scoped`] returns. Library counterpart: `std::thread::scope`.
#![expect(
    unsafe_code,
    reason = "a reference is passed to threads that end before it does"
)]

use super::spawn::{JoinHandle, create};
use super::thread::{Affinity, Role, SpawnError};
use super::{Atomic, might_sleep};
use crate::memory::stacks;
use alloc::vec::Vec;
use core::fmt;

/// Why there was no team.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeamError {
    /// Not all threads could be made; none has run.
    Spawn(SpawnError),
    /// The caller may not sleep.
    Atomic(Atomic),
}

impl fmt::Display for TeamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => error.fmt(f),
            Self::Atomic(atomic) => write!(f, "not {atomic}"),
        }
    }
}

/// Joins all threads, come what may.
struct Joined(Vec<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        for handle in &self.0 {
            handle.wait_for_end();
        }
        // All at once: few flushes of all CPUs.
        stacks::free(
            self.0
                .iter()
                .filter_map(|handle| handle.thread().take_stack()),
        );
    }
}

/// Runs `body(0)` to `body(count - 1)`, each in a thread that may run anywhere, and `meanwhile` in
/// the calling one; returns its answer when all have ended.
///
/// # Errors
/// [`TeamError`]; then nothing has run.
///
/// # Context
/// Task.
#[track_caller]
pub fn scoped<R>(
    name: &str,
    count: u32,
    body: &(impl Fn(u32) + Sync),
    meanwhile: impl FnOnce() -> R,
) -> Result<R, TeamError> {
    scoped_on(name, (0..count).map(|_| Affinity::Any), body, meanwhile)
}

/// The same with one thread for each of `places`.
///
/// # Errors
/// As [`scoped`].
///
/// # Context
/// Task.
#[track_caller]
pub fn scoped_on<R>(
    name: &str,
    places: impl Iterator<Item = Affinity>,
    body: &(impl Fn(u32) + Sync),
    meanwhile: impl FnOnce() -> R,
) -> Result<R, TeamError> {
    if let Err(atomic) = might_sleep() {
        return Err(TeamError::Atomic(atomic));
    }
    let body: &(dyn Fn(u32) + Sync) = body;
    // SAFETY: `team` waits for the end of every thread that gets this before it is gone, on each
    // way out of this function (a panic ends the kernel), and the references are not used after.
    let body: &'static (dyn Fn(u32) + Sync) = unsafe { core::mem::transmute(body) };
    let mut team = Joined(Vec::new());
    for (number, affinity) in (0_u32..).zip(places) {
        let full_name = alloc::format!("{name}/{number}");
        let handle = create(Role::Normal, full_name, affinity, move || body(number));
        match handle {
            Ok(handle) => team.0.push(handle),
            Err(error) => {
                team.0.iter().for_each(JoinHandle::cancel);
                return Err(TeamError::Spawn(error));
            }
        }
    }
    team.0.iter().for_each(JoinHandle::start);
    let answer = meanwhile();
    drop(team);
    Ok(answer)
}
