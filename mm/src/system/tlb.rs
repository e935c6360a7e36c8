//! Having all CPUs forget translations: who is asked, and who waits (`docs/shootdown.md`).
//!
//! The protocol stands in [`crate::sync::shootdown`]; this sends the interrupts and waits. A kernel calls
//! [`Memory::tlb_catch_up`] in the interrupt that [`Platform::kick_tlb`] sends, and when a non-maskable one begins; its
//! idle CPUs are [lazy](Memory::tlb_lazy_enter).
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::addr::VirtRange;
use crate::platform::{CpuId, Platform, TlbFlush};
use crate::report::Corruption;
use crate::sync::shootdown::{Generation, Lazy, Need, Reach, Seat, TlbStats, to_forget};
use crate::sync::{Pin, rank};

/// Rounds of waiting after which a CPU is interrupted once more.
const REMIND: u32 = 1 << 20;

/// A request: what is waited for.
#[derive(Clone, Copy)]
struct Order {
    generation: Generation,
    reach: Reach,
}

impl<P: Platform> Memory<P> {
    /// Has all CPUs forget the translations of the pages that a range touches; they have when this returns, and what the
    /// pages were mapped to may be used for something else (Linux: `flush_tlb_kernel_range`). Idle CPUs do it
    /// before they use anything again. Page tables that were taken out stay what they are until
    /// [`flush_tlb_tables`](Self::flush_tlb_tables). The page table is changed before.
    ///
    /// Context: any but NMI, also with interrupts off; without locks that are taken with interrupts off anywhere, since
    /// the CPUs that are waited for may be waiting for those. All locks of the library are; the debug profile
    /// reports it ([`rank::TLB`]).
    pub fn flush_tlb(&self, range: VirtRange) {
        self.shoot_down(range, Reach::Pages, |_| true);
    }

    /// As [`flush_tlb`](Self::flush_tlb), and no CPU walks by page tables any more that lay there: they may be freed
    /// (Linux: `freed_tables`). Idle CPUs are interrupted for that. Context: any but NMI, as `flush_tlb`.
    pub fn flush_tlb_tables(&self, range: VirtRange) {
        self.shoot_down(range, Reach::Tables, |_| true);
    }

    /// As [`flush_tlb`](Self::flush_tlb), on the CPUs that `is_wanted` names: for an address space that no other
    /// CPU has used (Linux: `mm_cpumask`). Context: any but NMI, as `flush_tlb`.
    pub fn flush_tlb_on(&self, range: VirtRange, is_wanted: impl Fn(CpuId) -> bool) {
        self.shoot_down(range, Reach::Pages, is_wanted);
    }

    /// Has all CPUs forget everything (Linux: `flush_tlb_all`). Context: any but NMI, as `flush_tlb`.
    pub fn flush_tlb_all(&self) {
        self.shoot(TlbFlush::All, Reach::Pages, |_| true);
    }

    fn shoot_down(&self, range: VirtRange, reach: Reach, is_wanted: impl Fn(CpuId) -> bool) {
        let Some(pages) = to_forget(range) else {
            return;
        };
        let what = match reach {
            Reach::Pages => pages,
            Reach::Tables => self.platform.tlb_features().with_tables(pages),
        };
        self.shoot(what, reach, is_wanted);
    }

    fn shoot(&self, what: TlbFlush, reach: Reach, is_wanted: impl Fn(CpuId) -> bool) {
        let platform = &self.platform;
        let pin = Pin::new(platform);
        let Some(core) = self.core() else {
            // No other CPU has been started.
            return platform.flush_tlb_here(what);
        };
        if P::PROFILE.is_debug() {
            platform.lock_acquired(rank::TLB);
        }
        let here = pin.cpu();
        let generation = core.tlb.requests().raise(what);
        let order = Order { generation, reach };
        let others = || {
            let seats = core.tlb.seats();
            seats.filter(|(cpu, _)| *cpu != here && is_wanted(*cpu))
        };
        let mut asked = false;
        for (cpu, seat) in others() {
            asked |= self.ask(cpu, seat, order);
        }
        // While they do it.
        let own = core.tlb.seat(here);
        match own {
            Some(seat) if is_wanted(here) => self.catch_up(core, seat),
            None => platform.flush_tlb_here(what),
            _ => {}
        }
        if let Some(own) = own.filter(|_| asked) {
            own.count_remote();
        }
        for (cpu, seat) in others() {
            self.wait_for(core, own, (cpu, seat), order);
        }
        if P::PROFILE.is_debug() {
            platform.lock_released(rank::TLB);
        }
    }

    /// Interrupts a CPU if it needs that; answers whether it is waited for.
    fn ask(&self, cpu: CpuId, seat: &Seat, order: Order) -> bool {
        match seat.ask(order.generation, order.reach) {
            Need::Nothing => return false,
            Need::Time => {}
            Need::Interrupt => {
                if !self.platform.kick_tlb(cpu) {
                    seat.note_unsent();
                }
            }
        }
        true
    }

    /// Waits for a CPU, and does what others want of this one: they may be waiting for it with interrupts off.
    fn wait_for(&self, core: &Core, own: Option<&Seat>, (cpu, seat): (CpuId, &Seat), order: Order) {
        let mut rounds: u32 = 0;
        while !seat.has_flushed(order.generation, order.reach) {
            if let Some(own) = own {
                self.serve(core, own);
            }
            self.platform.wait_tlb(cpu, rounds);
            rounds = rounds.wrapping_add(1);
            if rounds & REMIND.wrapping_sub(1) == 0 {
                self.ask(cpu, seat, order);
                self.platform.kick_tlb(cpu);
            }
        }
    }

    fn catch_up(&self, core: &Core, seat: &Seat) {
        seat.catch_up(core.tlb.requests(), &mut |what| {
            self.platform.flush_tlb_here(what);
        });
    }

    /// The same for others: it is counted before they are told that it is done.
    fn serve(&self, core: &Core, seat: &Seat) {
        let mut is_counted = false;
        seat.catch_up(core.tlb.requests(), &mut |what| {
            if !is_counted {
                seat.count_received();
                is_counted = true;
            }
            self.platform.flush_tlb_here(what);
        });
    }

    /// Forgets what other CPUs asked this one to: to be called in the interrupt that [`Platform::kick_tlb`] sends.
    /// Takes no lock and does not wait. Context: any.
    pub fn tlb_catch_up(&self) {
        let Some(core) = self.core() else { return };
        let pin = Pin::new(&self.platform);
        if let Some(seat) = core.tlb.seat(pin.cpu()) {
            self.serve(core, seat);
        }
    }

    /// This CPU is back, or has just been started: forgets what it was not asked to. From now on others wait for it when they
    /// unmap something, which every CPU that uses areas needs (obligation 12 of [`Platform`]). Answers how it was before; nothing where it was
    /// not lazy, which takes no time. A handler that comes while a CPU does this finds that it is not lazy any more, and
    /// maybe not done: an NMI handler calls [`tlb_catch_up`](Self::tlb_catch_up) then. Context: any.
    #[inline]
    pub fn tlb_lazy_leave(&self) -> Option<Lazy> {
        let core = self.core()?;
        let pin = Pin::new(&self.platform);
        let seat = core.tlb.seat(pin.cpu())?;
        seat.leave_lazy(core.tlb.requests(), &mut |what| {
            self.platform.flush_tlb_here(what);
        })
    }

    /// Reports, in the debug profile, a CPU that maps areas but was never told to be back: nobody waits for it when they
    /// are unmapped.
    #[inline(always)]
    pub(super) fn note_lazy_use(&self) {
        if P::PROFILE.is_debug() {
            let pin = Pin::new(&self.platform);
            let cpu = pin.cpu();
            let seat = self.core().and_then(|core| core.tlb.seat(cpu));
            if seat.is_some_and(Seat::is_lazy) {
                self.platform.corruption(&Corruption::LazyCpu { cpu });
            }
        }
    }

    /// How many flushes were asked for so far. Context: any.
    #[must_use]
    pub fn tlb_generation(&self) -> u64 {
        self.core()
            .map_or(0, |core| core.tlb.requests().latest().count())
    }

    /// What a CPU did so far, how many requests it is behind, and whether it is lazy; nothing of a CPU that there is
    /// not. Context: any; stale when it arrives.
    #[must_use]
    pub fn tlb_of(&self, cpu: CpuId) -> Option<TlbOfCpu> {
        let tlb = &self.core()?.tlb;
        let seat = tlb.seat(cpu)?;
        // Read first, so that it is not ahead.
        let flushed = seat.flushed();
        Some(TlbOfCpu {
            stats: seat.stats(),
            behind: tlb.requests().latest().since(flushed),
            is_lazy: seat.is_lazy(),
        })
    }

    /// What all CPUs did so far. Context: any; stale when it arrives.
    #[must_use]
    pub fn tlb_stats(&self) -> TlbStats {
        let seats = self.core().into_iter().flat_map(|core| core.tlb.seats());
        seats
            .map(|(_, seat)| seat.stats())
            .fold(TlbStats::default(), TlbStats::and)
    }
}

/// A CPU's part in TLB shootdowns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbOfCpu {
    /// What it did.
    pub stats: TlbStats,
    /// Requests that it has not flushed for.
    pub behind: u64,
    /// Whether it will do so when it wakes, or is started.
    pub is_lazy: bool,
}
