//! TLB shootdown: all CPUs forget translations that one of them has changed (Linux: `flush_tlb_kernel_range`,
//! `tlb_gen`).
//!
//! Every request gets a number, its [`Generation`], and stands in a small ring for a while
//! ([`Requests::raise`]). Each CPU knows up to which one it has flushed ([`Seat`]); catching up from there it
//! flushes the ranges between, or everything if it is too far behind ([`Seat::catch_up`]). So one flush serves
//! any number of requests, and nobody queues anything for anybody.
//!
//! Whoever asks changes the page table first, raises a generation then, and looks at every CPU
//! ([`Seat::ask`]): one that has none under way gets an interrupt, one that is lazy is left out. It waits until
//! all [have flushed](Seat::has_flushed), serving its own CPU meanwhile. What the old translations led to is free
//! to be used for something else after that.
//!
//! # What carries that
//!
//! - The generation is counted on with Release, and read with Acquire: who sees it sees the page table that
//!   goes with it.
//! - The number of a CPU is stored with Release and read with Acquire: who sees it comes after all that the CPU did by
//!   old translations.
//! - Being lazy, and having an interrupt under way, are bits of one word that is only changed, never stored. Either
//!   the one who asks finds the CPU not lazy, or the CPU finds the generation when it stops being it. The bit for
//!   the interrupt goes before the generation is read: who finds it set will be served.
#![forbid(unsafe_code)]

mod ring;

pub use ring::{CEILING, Generation, Requests, to_forget};

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::mem::Array;
use crate::platform::{CpuId, TlbFlush};

/// An interrupt is under way to this CPU; a second one would find nothing.
const UNDER_WAY: u32 = 1 << 0;
/// The CPU is idle: it flushes before it uses anything again.
const LAZY: u32 = 1 << 1;
/// As [`LAZY`], and it translates nothing at all.
const OFFLINE: u32 = 1 << 2;

/// How much a CPU that is [lazy](Seat::enter_lazy) does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lazy {
    /// It waits for interrupts, and may still look up translations that it then does not use.
    Idle,
    /// Nothing, until it is started again: it does not even take interrupts.
    Offline,
}

/// What is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Translations of pages. Lazy CPUs do that later.
    Pages,
    /// Translations, and that page tables lie where they are to be freed. An idle CPU is interrupted too: a walk
    /// whose result it does not use would still read them (SDM vol. 3A, "Caching Paging-Related Information about Linear
    /// Addresses").
    Tables,
}

/// What a CPU needs, to have flushed what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a CPU that is not interrupted may take for ever"]
pub enum Need {
    /// Nothing: it has flushed, or will before it uses anything.
    Nothing,
    /// Time: an interrupt is under way to it.
    Time,
    /// An interrupt, from who is told so.
    Interrupt,
}

/// One CPU's part, in a cache line of its own. What others may call is said; the rest is for that CPU, without
/// moving to another meanwhile.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Seat {
    /// The last generation that it has flushed for.
    flushed: AtomicU64,
    /// [`UNDER_WAY`], [`LAZY`], [`OFFLINE`].
    state: AtomicU32,
    counts: Counts,
}

#[derive(Debug)]
struct Counts {
    remote: AtomicU64,
    received: AtomicU64,
    all: AtomicU64,
    one: AtomicU64,
}

/// What one CPU, or all, did (Linux: the lines of `/proc/vmstat`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlbStats {
    /// Requests of this CPU for which it interrupted others (Linux: `nr_tlb_remote_flush`).
    pub remote_flush: u64,
    /// Times that it flushed because another CPU asked (Linux: `nr_tlb_remote_flush_received`).
    pub remote_flush_received: u64,
    /// Times that it forgot everything (Linux: `nr_tlb_local_flush_all`).
    pub local_flush_all: u64,
    /// Pages that it forgot one by one (Linux: `nr_tlb_local_flush_one`).
    pub local_flush_one: u64,
}

impl TlbStats {
    /// The sum of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            remote_flush: self.remote_flush.wrapping_add(other.remote_flush),
            remote_flush_received: self
                .remote_flush_received
                .wrapping_add(other.remote_flush_received),
            local_flush_all: self.local_flush_all.wrapping_add(other.local_flush_all),
            local_flush_one: self.local_flush_one.wrapping_add(other.local_flush_one),
        }
    }
}

impl Seat {
    /// That of a CPU that runs, and has nothing to forget.
    #[must_use]
    pub fn running(requests: &Requests) -> Self {
        Self::new(requests, 0)
    }

    /// That of a CPU that was not started yet.
    #[must_use]
    pub fn offline(requests: &Requests) -> Self {
        Self::new(requests, LAZY | OFFLINE)
    }

    fn new(requests: &Requests, state: u32) -> Self {
        let none = || AtomicU64::new(0);
        Self {
            flushed: AtomicU64::new(requests.latest().number()),
            state: AtomicU32::new(state),
            counts: Counts {
                remote: none(),
                received: none(),
                all: none(),
                one: none(),
            },
        }
    }

    /// Flushes for all that was asked for so far: `flush` forgets translations of this CPU. Answers whether there was
    /// anything. Never waits. Context: any; what nests in this may do the same.
    pub fn catch_up(&self, requests: &Requests, flush: &mut impl FnMut(TlbFlush)) -> bool {
        // First of all: who finds the bit set from now on set it itself, and interrupts.
        if self.state.load(Ordering::Relaxed) & UNDER_WAY != 0 {
            self.state.fetch_and(!UNDER_WAY, Ordering::AcqRel);
        }
        let seen = self.flushed();
        let latest = requests.latest();
        if seen == latest {
            return false;
        }
        requests.since(seen, latest, &mut |what| {
            self.count(what);
            flush(what);
        });
        self.note_flushed(seen, latest);
        true
    }

    /// Takes down that this CPU has flushed up to `latest`. What interrupted it meanwhile may have got further.
    fn note_flushed(&self, seen: Generation, latest: Generation) {
        let mut before = seen;
        while latest.is_after(before) {
            let (from, to) = (before.number(), latest.number());
            // Fails once for each handler that nested here: none waits for another.
            match self
                .flushed
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => before = Generation::of(now),
            }
        }
    }

    fn count(&self, what: TlbFlush) {
        match what {
            TlbFlush::All => self.counts.all.fetch_add(1, Ordering::Relaxed),
            TlbFlush::Pages(range) => {
                let pages = range.pages();
                self.counts.one.fetch_add(pages, Ordering::Relaxed)
            }
        };
    }

    /// This CPU has nothing to do, and is left out of what is asked for from now on. Until it
    /// [is back](Self::leave_lazy) it uses nothing that anybody could have unmapped. Context: any, but NMI between the
    /// two.
    pub fn enter_lazy(&self, lazy: Lazy) {
        let bits = match lazy {
            Lazy::Idle => LAZY,
            Lazy::Offline => LAZY | OFFLINE,
        };
        self.state.fetch_or(bits, Ordering::AcqRel);
    }

    /// This CPU is back: catches up with what it missed. Answers how it was. Context: any.
    pub fn leave_lazy(
        &self,
        requests: &Requests,
        flush: &mut impl FnMut(TlbFlush),
    ) -> Option<Lazy> {
        // Only this CPU changes these bits.
        let state = self.state.load(Ordering::Relaxed);
        let was = match state & (LAZY | OFFLINE) {
            0 => None,
            LAZY => Some(Lazy::Idle),
            _ => Some(Lazy::Offline),
        };
        if was.is_some() {
            let bits = LAZY | OFFLINE | UNDER_WAY;
            self.state.fetch_and(!bits, Ordering::AcqRel);
            self.catch_up(requests, flush);
        }
        was
    }

    /// Whether the CPU is lazy. Context: any CPU; stale when it arrives.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.state.load(Ordering::Relaxed) & LAZY != 0
    }

    /// What the CPU needs to have flushed for `generation`. Context: any CPU; by who raised it.
    pub fn ask(&self, generation: Generation, reach: Reach) -> Need {
        if self.is_at(generation) {
            return Need::Nothing;
        }
        // A change even where it changes nothing: the CPU finds the generation when it is not lazy any more.
        let is_left_out = |state: u32| is_left_out(state, reach);
        let change = |state| Some(state | if is_left_out(state) { 0 } else { UNDER_WAY });
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, change);
        match before.unwrap_or_else(|state| state) {
            state if is_left_out(state) => Need::Nothing,
            state if state & UNDER_WAY != 0 => Need::Time,
            _ => Need::Interrupt,
        }
    }

    /// The interrupt that somebody was told to send could not be sent: the next one to ask is told so too. Context:
    /// any CPU.
    pub fn note_unsent(&self) {
        self.state.fetch_and(!UNDER_WAY, Ordering::Release);
    }

    /// Whether nothing that the CPU does any more uses what `generation` made old. Context: any CPU, after
    /// [`Self::ask`].
    #[must_use]
    pub fn has_flushed(&self, generation: Generation, reach: Reach) -> bool {
        self.is_at(generation) || is_left_out(self.state.load(Ordering::Acquire), reach)
    }

    fn is_at(&self, generation: Generation) -> bool {
        !generation.is_after(Generation::of(self.flushed.load(Ordering::Acquire)))
    }

    /// The last generation that the CPU has flushed for. Context: any CPU.
    #[must_use]
    pub fn flushed(&self) -> Generation {
        Generation::of(self.flushed.load(Ordering::Relaxed))
    }

    /// Counts a request for which this CPU interrupted others.
    pub(crate) fn count_remote(&self) {
        self.counts.remote.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a flush that another CPU asked for.
    pub(crate) fn count_received(&self) {
        self.counts.received.fetch_add(1, Ordering::Relaxed);
    }

    /// What the CPU did so far. Context: any CPU.
    #[must_use]
    pub fn stats(&self) -> TlbStats {
        TlbStats {
            remote_flush: self.counts.remote.load(Ordering::Relaxed),
            remote_flush_received: self.counts.received.load(Ordering::Relaxed),
            local_flush_all: self.counts.all.load(Ordering::Relaxed),
            local_flush_one: self.counts.one.load(Ordering::Relaxed),
        }
    }
}

const fn is_left_out(state: u32, reach: Reach) -> bool {
    match reach {
        Reach::Pages => state & LAZY != 0,
        Reach::Tables => state & OFFLINE != 0,
    }
}

/// All requests and all CPUs of a machine.
#[derive(Debug)]
pub struct Shootdown {
    requests: Requests,
    seats: Array<Seat>,
}

impl Shootdown {
    /// For as many CPUs as there are seats, which were made with these requests.
    #[must_use]
    pub const fn new(requests: Requests, seats: Array<Seat>) -> Self {
        Self { requests, seats }
    }

    /// What was asked for.
    #[must_use]
    pub const fn requests(&self) -> &Requests {
        &self.requests
    }

    /// A CPU's part. Context: any.
    #[must_use]
    pub fn seat(&self, cpu: CpuId) -> Option<&Seat> {
        self.seats.at(u64::from(cpu.0))
    }

    /// All of them, by number. Context: any.
    pub fn seats(&self) -> impl Iterator<Item = (CpuId, &Seat)> {
        (0..).map(CpuId).zip(self.seats.iter())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
