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
/// Epochs count in twos from an odd number on, so none is ever [`OUT`].
const STEP: u64 = 1 << STEP_SHIFT;
const STEP_SHIFT: u32 = 1;
/// The epoch that a machine begins with: a few before the numbers start again, so that each machine has been there (Linux:
/// `gp_seq` begins 300 grace periods before).
const FIRST: u64 = u64::MAX.wrapping_sub(8 * STEP);

/// Which grace period (Linux: what `start_poll_synchronize_rcu` answers). Numbers start again after the last one, so they are
/// compared by how far apart they are; nobody keeps one while half of all numbers go by. The default is none, which is
/// over at all times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie(u64);

impl Cookie {
    /// How many grace periods there were up to this one, for reports.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.wrapping_sub(FIRST) >> STEP_SHIFT
    }

    /// Whether this one began after `other`.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    /// Whichever began first.
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if self.is_after(other) { other } else { self }
    }

    /// Whichever began last.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
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
        let before = self.current.fetch_add(STEP, Ordering::AcqRel);
        Cookie(before.wrapping_add(STEP))
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
        let is_none = cookie == Cookie::default();
        !cookie.is_after(self.last_over()) || is_none
    }

    /// The last one that is known to be over.
    #[must_use]
    pub fn last_over(&self) -> Cookie {
        Cookie(self.over.load(Ordering::Acquire))
    }

    /// Takes note that all seats have passed `cookie`.
    pub fn note_over(&self, cookie: Cookie) {
        let mut over = self.over.load(Ordering::Acquire);
        while cookie.is_after(Cookie(over)) {
            let (set, seen) = (Ordering::AcqRel, Ordering::Acquire);
            match (self.over).compare_exchange_weak(over, cookie.0, set, seen) {
                Ok(_) => return,
                Err(now) => over = now,
            }
        }
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
            seen => Cookie(seen).earlier(latest),
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
    use core::array::from_fn;

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
        assert!(cookie.is_after(seat.passed(cookie)) && !seat.act_for(&state, cookie));
        state.leave();
        assert!(seat.act_for(&state, cookie));
        assert_eq!(seat.passed(cookie), cookie);
        assert!(state.try_return());
    }

    const CPUS: usize = 4;

    /// CPUs, and of each grace period those that were not quiescent since it began.
    struct World {
        epoch: Epoch,
        cpus: [(Seat, State); CPUS],
        has_read: [bool; CPUS],
        begun: Vec<(Cookie, [bool; CPUS])>,
        wraps: u32,
        over: u32,
        waited: u32,
    }

    impl World {
        fn new() -> Self {
            Self {
                epoch: Epoch::new(),
                cpus: from_fn(|_| (Seat::new(), State::present())),
                has_read: [false; CPUS],
                begun: Vec::new(),
                wraps: 0,
                over: 0,
                waited: 0,
            }
        }

        fn begin(&mut self) {
            let before = self.epoch.latest();
            let cookie = self.epoch.start();
            assert!(cookie.is_after(before) && !before.is_after(cookie));
            assert_eq!(cookie.number(), before.number().wrapping_add(1));
            assert_eq!(
                (cookie.earlier(before), cookie.later(before)),
                (before, cookie)
            );
            self.wraps = self.wraps.wrapping_add(u32::from(cookie.0 < before.0));
            self.begun.push((cookie, self.has_read));
        }

        /// A CPU was quiescent.
        fn forget(&mut self, index: usize) {
            let blockers = self.begun.iter_mut().map(|(_, blockers)| blockers);
            blockers.for_each(|blockers| blockers[index] = false);
        }

        fn step(&mut self, index: usize, what: u64) {
            let (seat, state) = &self.cpus[index];
            let is_reading = seat.is_reading();
            match what {
                0 | 1 if is_reading => seat.exit(),
                0 | 1 => {
                    seat.enter(&self.epoch);
                    self.has_read[index] = true;
                }
                2 | 3 => {
                    if seat.report(&self.epoch) {
                        self.forget(index);
                    }
                }
                4 if !is_reading => {
                    state.leave();
                    assert!(seat.act_for(state, self.epoch.latest()) && state.try_return());
                    self.forget(index);
                }
                5 | 6 => self.begin(),
                _ => self.poll(),
            }
        }

        fn poll(&self) {
            let latest = self.epoch.latest();
            let passed = self.cpus.iter().map(|(seat, _)| seat.passed(latest));
            self.epoch.note_over(passed.fold(latest, Cookie::earlier));
        }

        /// Nothing is over that somebody may still read in; what is over is forgotten.
        fn check(&mut self) {
            let epoch = &self.epoch;
            for (cookie, blockers) in &self.begun {
                let is_waited_for = blockers.contains(&true);
                assert!(!(epoch.is_over(*cookie) && is_waited_for), "{cookie:?}");
                self.waited = self.waited.wrapping_add(u32::from(is_waited_for));
            }
            let before = self.begun.len();
            self.begun.retain(|(cookie, _)| !epoch.is_over(*cookie));
            let gone = u32::try_from(before.wrapping_sub(self.begun.len()));
            self.over = self.over.wrapping_add(gone.unwrap_or(0));
            assert!(epoch.is_over(Cookie::default()), "none");
        }
    }

    /// R41. The numbers start again soon after a machine begins; here they do so in the midst of 10,000 steps, and what each
    /// grace period waits for is known otherwise.
    #[test]
    fn grace_periods_whose_numbers_start_again_are_told_apart() {
        let mut world = World::new();
        let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..10_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let index = usize::try_from((random >> 20) & 3).unwrap();
            world.step(index, (random >> 40) & 7);
            world.check();
        }
        assert_eq!(world.wraps, 1, "the numbers started again, once");
        let (over, waited) = (world.over, world.waited);
        assert!(over > 2_000 && waited > 2_000, "{over} {waited}");
        for (seat, _) in &world.cpus {
            while seat.is_reading() {
                seat.exit();
            }
            assert!(seat.report(&world.epoch));
        }
        world.poll();
        let mut begun = world.begun.iter();
        assert!(begun.all(|(cookie, _)| world.epoch.is_over(*cookie)));
    }
}
