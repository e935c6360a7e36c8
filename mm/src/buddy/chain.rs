//! A list of things that live for good, linked through themselves: joining it needs no memory.
//!
//! Members are added at the end and never taken out. One that leaves is switched off and stays
//! where it is; whoever walks the list passes over it.
#![forbid(unsafe_code)]

use core::fmt;
use core::hint::spin_loop;

use crate::platform::Platform;
use crate::sync::Once;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Set in [`Link::state`] while the member may be visited; the rest counts visits under way.
const ON: u32 = 1 << 31;

/// What a member carries for its list.
pub(crate) struct Link<T: 'static> {
    next: Once<&'static T>,
    joined: AtomicBool,
    state: AtomicU32,
}

impl<T> Link<T> {
    pub(super) const fn new() -> Self {
        Self {
            next: Once::new(),
            joined: AtomicBool::new(false),
            state: AtomicU32::new(0),
        }
    }

    /// Begins a visit, unless the member has left.
    fn enter(&self) -> bool {
        let one_more = |state: u32| (state & ON != 0).then(|| state.wrapping_add(1));
        let entered = self
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more);
        entered.is_ok()
    }
}

impl<T> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("joined", &self.joined)
            .finish_non_exhaustive()
    }
}

/// What can be a member.
pub(crate) trait Linked: Sync + Sized + 'static {
    /// Its link, always the same.
    fn link(&self) -> &Link<Self>;
}

/// It is, or was, a member already: each joins once in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyRegistered;

impl fmt::Display for AlreadyRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("registered before")
    }
}

impl core::error::Error for AlreadyRegistered {}

/// The list.
pub(crate) struct Chain<T: Linked> {
    first: Once<&'static T>,
}

impl<T: Linked> Chain<T> {
    pub(crate) const fn new() -> Self {
        Self { first: Once::new() }
    }

    /// Adds a member. Context: any but NMI.
    pub(crate) fn join<P: Platform>(
        &self,
        member: &'static T,
        platform: &P,
    ) -> Result<(), AlreadyRegistered> {
        let link = member.link();
        if link.joined.swap(true, Ordering::AcqRel) {
            return Err(AlreadyRegistered);
        }
        link.state.store(ON, Ordering::Release);
        // A handler that joins would wait for ever for a place that it interrupted the filling of.
        let irq = platform.irq_save();
        self.fill_end(member);
        platform.irq_restore(irq);
        Ok(())
    }

    /// Context: interrupts masked.
    fn fill_end(&self, member: &'static T) {
        let mut place = &self.first;
        while place.set(member).is_err() {
            match place.get() {
                Some(taken) => place = &taken.link().next,
                // Somebody else writes it right now.
                None => spin_loop(),
            }
        }
    }

    /// Switches a member off and waits for visits under way. Answers whether there are none any
    /// more. Context: task, not from a visit.
    pub(crate) fn leave<P: Platform>(member: &T, platform: &P) -> bool {
        let state = &member.link().state;
        state.fetch_and(!ON, Ordering::Relaxed);
        let mut rounds: u32 = 0;
        while state.load(Ordering::Acquire) != 0 {
            if !platform.relax(rounds) {
                return false;
            }
            rounds = rounds.saturating_add(1);
        }
        true
    }

    /// Visits every member, in the order in which they joined.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&'static T)) {
        let mut place = &self.first;
        while let Some(&member) = place.get() {
            let link = member.link();
            if link.enter() {
                visit(member);
                link.state.fetch_sub(1, Ordering::Release);
            }
            place = &link.next;
        }
    }
}

impl<T: Linked> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}
