//! The protocol of grace periods: one number for the machine, one for each CPU.
//!
//! Whoever unlinks something and wants to know when nobody can still see it counts the epoch on
//! ([`Epoch::start`], a Release). A CPU that is not reading copies the epoch into its seat
//! ([`Seat::report`]: Acquire, then Release). Once every seat shows the new epoch, each CPU has been
//! outside of all readers since: what its readers saw before was read before the copy, and
//! readers that begin afterwards see that the thing is gone. The three accesses that carry that
//! are the increment, the load and the store of the copy; readers themselves need no barrier.
//!
//! A CPU that never read has no part in that until its first reader joins. One that is away
//! ([`State`]) is acted for: whoever wins its place writes its seat, and the exchange by which the
//! CPU comes back shows it what was unlinked.
#![forbid(unsafe_code)]

use crate::sync::PresenceState as State;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

/// In [`Seat::seen`]: this CPU never read anything.
const OUT: u64 = 0;
/// The epoch that a machine begins with.
const FIRST: u64 = 1;

/// Which grace period (Linux: what `start_poll_synchronize_rcu` answers). Later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Cookie(u64);

impl Cookie {
    /// Its number, for reports.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// How many grace periods have begun, and which one is the last that is over.
#[derive(Debug)]
pub struct Epoch {
    current: AtomicU64,
    over: AtomicU64,
}

impl Epoch {
    /// No grace period has begun.
    #[must_use]
    pub fn new() -> Self {
        Self {
            current: AtomicU64::new(FIRST),
            over: AtomicU64::new(FIRST),
        }
    }

    /// Begins a grace period: what was unlinked before is out of sight when it is over. Context: any.
    pub fn start(&self) -> Cookie {
        Cookie(self.current.fetch_add(1, Ordering::AcqRel).wrapping_add(1))
    }

    /// The grace period that began last. Whoever has an answer to it has one to all before.
    #[must_use]
    pub fn latest(&self) -> Cookie {
        Cookie(self.current.load(Ordering::Acquire))
    }

    /// Whether a grace period is known to be over: who hears so may free what was unlinked before
    /// it. Context: any.
    #[must_use]
    pub fn is_over(&self, cookie: Cookie) -> bool {
        self.over.load(Ordering::Acquire) >= cookie.0
    }

    /// The last one that is known to be over.
    #[must_use]
    pub fn last_over(&self) -> Cookie {
        Cookie(self.over.load(Ordering::Acquire))
    }

    /// Takes note that all seats have passed `cookie`.
    pub fn note_over(&self, cookie: Cookie) {
        self.over.fetch_max(cookie.0, Ordering::AcqRel);
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

/// One CPU's part in grace periods, in a cache line of its own. But for [`Self::passed`] and
/// [`Self::act_for`] all is called on that CPU, without moving to another meanwhile.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Seat {
    /// The epoch at the last quiescent state.
    seen: AtomicU64,
    /// Readers at work here: one of a task, and those of handlers that interrupted it.
    readers: AtomicU32,
    /// Looks at this seat that found it behind, one after the other.
    late: AtomicU32,
}

impl Seat {
    /// Of a CPU that never read.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seen: AtomicU64::new(OUT),
            readers: AtomicU32::new(0),
            late: AtomicU32::new(0),
        }
    }

    /// A reader begins. Plain loads and stores: whatever interrupts this has ended its own readers
    /// when it returns.
    #[inline]
    pub fn enter(&self, epoch: &Epoch) {
        if self.seen.load(Ordering::Relaxed) == OUT {
            self.join(epoch);
        }
        let readers = self.readers.load(Ordering::Relaxed);
        self.readers
            .store(readers.wrapping_add(1), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// A reader ends.
    #[inline]
    pub fn exit(&self) {
        compiler_fence(Ordering::SeqCst);
        let readers = self.readers.load(Ordering::Relaxed);
        self.readers
            .store(readers.wrapping_sub(1), Ordering::Relaxed);
    }

    /// The CPU's first reader. Either who waits for readers sees it, or it sees what they unlinked:
    /// both sides change the same word.
    #[cold]
    fn join(&self, epoch: &Epoch) {
        let now = epoch.latest();
        let _ = self
            .seen
            .compare_exchange(OUT, now.0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Whether readers are at work here.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.readers.load(Ordering::Relaxed) != 0
    }

    /// A quiescent state of this CPU. Ignored between [`Self::enter`] and [`Self::exit`]; answers
    /// whether it counted.
    #[inline]
    pub fn report(&self, epoch: &Epoch) -> bool {
        if self.is_reading() {
            return false;
        }
        if self.seen.load(Ordering::Relaxed) == OUT {
            return true;
        }
        let now = epoch.latest();
        self.seen.store(now.0, Ordering::Release);
        true
    }

    /// The last epoch that this CPU is known to have been quiescent in, `latest` at most. Context:
    /// any CPU.
    #[must_use]
    pub fn passed(&self, latest: Cookie) -> Cookie {
        let mut seen = self.seen.load(Ordering::Acquire);
        if seen == OUT {
            // A change that changes nothing, for `join` to be ordered with.
            seen = self.seen.fetch_add(0, Ordering::AcqRel);
        }
        match seen {
            OUT => latest,
            seen => Cookie(seen).min(latest),
        }
    }

    /// The epoch that stands here, if the CPU ever read.
    pub(super) fn seen(&self) -> Option<Cookie> {
        let seen = self.seen.load(Ordering::Relaxed);
        (seen != OUT).then_some(Cookie(seen))
    }

    /// Reports for a CPU that is away, whose place is won for a moment; answers `false` where
    /// that fails. Context: any CPU, with interrupts off: the CPU may be waiting to come back.
    pub fn act_for(&self, state: &State, latest: Cookie) -> bool {
        if !state.try_seize() {
            return false;
        }
        self.note_away(latest);
        state.release();
        true
    }

    /// As [`Self::act_for`], for whoever has the CPU's place already.
    pub fn note_away(&self, latest: Cookie) {
        if self.seen.load(Ordering::Relaxed) != OUT {
            self.seen.store(latest.0, Ordering::Release);
        }
    }

    /// Counts a look that found this seat behind; answers how many there were.
    pub(super) fn count_late(&self) -> u32 {
        self.late.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// It is not behind any more.
    pub(super) fn forget_late(&self) {
        if self.late.load(Ordering::Relaxed) != 0 {
            self.late.store(0, Ordering::Relaxed);
        }
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_holds_a_grace_period_up_until_it_has_ended_and_its_cpu_said_so() {
        let (epoch, seat) = (Epoch::new(), Seat::new());
        let none = epoch.latest();
        assert!(epoch.is_over(none));
        seat.enter(&epoch);
        let cookie = epoch.start();
        assert!(!seat.report(&epoch), "inside of a reader");
        assert_eq!(seat.passed(cookie), none);
        seat.exit();
        assert_eq!(seat.passed(cookie), none, "nobody said that it has ended");
        assert!(seat.report(&epoch));
        assert_eq!(seat.passed(cookie), cookie);
        epoch.note_over(cookie);
        epoch.note_over(none);
        assert!(epoch.is_over(cookie));
    }

    #[test]
    fn a_cpu_that_never_reads_is_not_waited_for_and_one_that_is_away_is_acted_for() {
        let (epoch, seat, state) = (Epoch::new(), Seat::new(), State::present());
        let cookie = epoch.start();
        assert_eq!(seat.passed(cookie), cookie);
        seat.enter(&epoch);
        seat.exit();
        let cookie = epoch.start();
        assert!(seat.passed(cookie) < cookie && !seat.act_for(&state, cookie));
        state.leave();
        assert!(seat.act_for(&state, cookie));
        assert_eq!(seat.passed(cookie), cookie);
        assert!(state.try_return());
    }
}
