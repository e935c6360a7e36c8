//! First-in-first-out lists of threads, linked through the threads themselves.
//!
//! Nothing is allocated to put a thread on a list: who wakes a thread, in an interrupt maybe, must
//! not fail. A thread has one link for each kind of list, so it can wait for an event, with a
//! deadline, and be ready to run, all at the same time. The lists own references.

use super::thread::Thread;
use alloc::sync::Arc;
use core::fmt;
use spin::mutex::spin::SpinMutex;

/// A thread's place in one kind of list: who comes after it there.
///
/// Only whoever holds the lock around the list touches it; the lock in it is never contended and
/// makes that safe to say.
#[derive(Default)]
pub(crate) struct Link(SpinMutex<Option<Arc<Thread>>>);

impl Link {
    /// In no list.
    pub(crate) const fn new() -> Self {
        Self(SpinMutex::new(None))
    }

    fn set(&self, next: Option<Arc<Thread>>) {
        *self.0.lock() = next;
    }

    fn get(&self) -> Option<Arc<Thread>> {
        self.0.lock().clone()
    }

    fn take(&self) -> Option<Arc<Thread>> {
        self.0.lock().take()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// The kinds of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ready to run, or ended and to be cleared away.
    Run,
    /// Waiting for an event.
    Wait,
    /// Waiting for a time.
    Time,
}

/// A list of threads.
#[derive(Debug)]
pub(crate) struct ThreadList {
    kind: Kind,
    head: Option<Arc<Thread>>,
    tail: Option<Arc<Thread>>,
    len: u32,
}

impl ThreadList {
    /// An empty list.
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            head: None,
            tail: None,
            len: 0,
        }
    }

    /// How many threads there are.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    fn link<'a>(&self, thread: &'a Thread) -> &'a Link {
        match self.kind {
            Kind::Run => &thread.run_link,
            Kind::Wait => &thread.wait_link,
            Kind::Time => &thread.time_link,
        }
    }

    /// Adds a thread that is in no list of this kind, as the last one.
    pub(crate) fn push(&mut self, thread: Arc<Thread>) {
        match self.tail.replace(Arc::clone(&thread)) {
            Some(last) => self.link(&last).set(Some(thread)),
            None => self.head = Some(thread),
        }
        self.len = self.len.saturating_add(1);
    }

    /// Takes the first thread out.
    pub(crate) fn pop(&mut self) -> Option<Arc<Thread>> {
        self.take_first(|_| true)
    }

    /// Takes the first thread out that suits.
    pub(crate) fn take_first(
        &mut self,
        mut suits: impl FnMut(&Thread) -> bool,
    ) -> Option<Arc<Thread>> {
        let mut before: Option<Arc<Thread>> = None;
        let mut at = self.head.clone();
        while let Some(thread) = at {
            if !suits(&thread) {
                at = self.link(&thread).get();
                before = Some(thread);
                continue;
            }
            let next = self.link(&thread).take();
            if next.is_none() {
                self.tail = before.clone();
            }
            match before {
                Some(before) => self.link(&before).set(next),
                None => self.head = next,
            }
            self.len = self.len.saturating_sub(1);
            return Some(thread);
        }
        None
    }

    /// Takes a thread out, and answers whether it was there.
    pub(crate) fn remove(&mut self, thread: &Thread) -> bool {
        self.take_first(|other| core::ptr::eq(other, thread))
            .is_some()
    }

    /// Calls `look` for each thread, first to last.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Thread)) {
        let mut at = self.head.clone();
        while let Some(thread) = at {
            look(&thread);
            at = self.link(&thread).get();
        }
    }
}
