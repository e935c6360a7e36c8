//! Grace periods (Linux: RCU, of the kind whose readers pin themselves).
//!
//! A reader holds a [`Guard`]; what it reads may be unlinked meanwhile, but is not freed. Whoever
//! unlinks begins a grace period ([`Grace::start`]); it is over when every CPU has passed a
//! *quiescent state* since: a moment without readers, which the CPU reports
//! ([`Grace::quiescent`]) at each context switch, or whenever else it likes. A CPU that is away
//! ([`Presence`]) counts as quiescent. Nothing here waits: callers [poll](Grace::poll).
//!
//! The protocol stands in `epoch`: [`Epoch`] and [`Seat`].
#![forbid(unsafe_code)]

mod epoch;

pub use epoch::{Cookie, Epoch, Seat};

use super::atomic::{AtomicU32, Ordering};
use super::{Pin, Presence};
use crate::mem::Array;
use crate::platform::{CpuId, Platform};
use crate::report::{Check, Corruption, GraceStall};

/// Looks at a CPU that does not pass a quiescent state before that is reported.
const PATIENCE: u32 = 1_000;

/// Grace periods of a machine.
#[derive(Debug)]
pub struct Grace {
    epoch: Epoch,
    seats: Array<Seat>,
    patience: AtomicU32,
}

/// A CPU that a grace period waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Late {
    /// The CPU.
    pub cpu: CpuId,
    /// To be reported: it has been late for long.
    pub stall: Option<GraceStall>,
}

impl Grace {
    /// For as many CPUs as there are seats.
    #[must_use]
    pub fn new(seats: Array<Seat>) -> Self {
        Self {
            epoch: Epoch::new(),
            seats,
            patience: AtomicU32::new(PATIENCE),
        }
    }

    fn seat(&self, cpu: CpuId) -> Option<&Seat> {
        self.seats.at(u64::from(cpu.0))
    }

    /// Begins a reader. `None` on a CPU beyond those that the platform names. Context: any, but for
    /// handlers on a CPU that is away.
    #[inline]
    pub fn pin<'a, P: Platform>(&'a self, platform: &'a P) -> Option<Guard<'a, P>> {
        let pin = Pin::new(platform);
        let seat = self.seat(pin.cpu())?;
        seat.enter(&self.epoch);
        Some(Guard { seat, _pin: pin })
    }

    /// A quiescent state of this CPU. Inside of a [`Guard`] it is ignored; answers whether it
    /// counted. Context: any, but for handlers on a CPU that is away.
    #[inline]
    pub fn quiescent<P: Platform>(&self, pin: &Pin<'_, P>) -> bool {
        self.seat(pin.cpu())
            .is_none_or(|seat| seat.report(&self.epoch))
    }

    /// Begins a grace period. Context: any.
    #[must_use]
    pub fn start(&self) -> Cookie {
        self.epoch.start()
    }

    /// Whether a grace period is known to be over, without looking. Context: any.
    #[must_use]
    pub fn is_over(&self, cookie: Cookie) -> bool {
        self.epoch.is_over(cookie)
    }

    /// Whether grace periods have begun that are not known to be over. Context: any.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.epoch.is_over(self.epoch.latest())
    }

    /// Looks at all CPUs whether a grace period is over. Context: any but NMI.
    pub fn poll<P: Platform>(&self, platform: &P, presence: &Presence, cookie: Cookie) -> bool {
        self.is_over(cookie) || {
            let latest = self.epoch.latest();
            let cpus = presence.cpus();
            let lowest = cpus.map(|cpu| self.passed(platform, presence, cpu, latest));
            self.epoch.note_over(lowest.fold(latest, Cookie::earlier));
            self.is_over(cookie)
        }
    }

    /// As [`Self::poll`] for whatever is waited for, and counts how often CPUs are late: `each` is
    /// told of those. Context: any but NMI.
    pub fn poll_late<P: Platform>(
        &self,
        platform: &P,
        presence: &Presence,
        mut each: impl FnMut(Late),
    ) {
        let (latest, over) = (self.epoch.latest(), self.epoch.last_over());
        if over == latest {
            return;
        }
        let mut lowest = latest;
        for cpu in presence.cpus() {
            let passed = self.passed(platform, presence, cpu, latest);
            lowest = lowest.earlier(passed);
            let Some(seat) = self.seat(cpu) else { continue };
            if passed.is_after(over) {
                seat.forget_late();
                continue;
            }
            let polls = seat.count_late();
            let patience = self.patience.load(Ordering::Relaxed).max(1);
            let is_long = polls.checked_rem(patience) == Some(0);
            let stall = is_long.then(|| GraceStall {
                cpu,
                polls,
                is_reading: seat.is_reading(),
            });
            each(Late { cpu, stall });
        }
        self.epoch.note_over(lowest);
    }

    /// The last epoch that a CPU has passed; acts for it if it is away.
    fn passed<P: Platform>(
        &self,
        platform: &P,
        presence: &Presence,
        cpu: CpuId,
        latest: Cookie,
    ) -> Cookie {
        let Some(seat) = self.seat(cpu) else {
            return latest;
        };
        let passed = seat.passed(latest);
        if passed == latest || presence.is_present(cpu) {
            return passed;
        }
        let irq = platform.irq_save();
        if let Some(seized) = presence.seize(cpu) {
            seat.note_away(latest);
            drop(seized);
        }
        platform.irq_restore(irq);
        seat.passed(latest)
    }

    /// After how many looks that find a CPU late that is reported; 1,000 to begin with.
    pub fn set_patience(&self, looks: u32) {
        self.patience.store(looks, Ordering::Relaxed);
    }

    /// Checks that no CPU has seen, and no note says, what has not begun yet. Context: any.
    ///
    /// # Errors
    /// [`Corruption::Miscount`].
    pub fn validate(&self) -> Result<(), Corruption> {
        // Whatever is read first cannot be ahead of what is read last.
        let seen = self.seats.iter().filter_map(Seat::seen);
        let highest = seen.fold(self.epoch.last_over(), Cookie::later);
        let latest = self.epoch.latest();
        if highest.is_after(latest) {
            return Err(Corruption::Miscount {
                check: Check::GracePeriods,
                recorded: highest.number(),
                counted: latest.number(),
            });
        }
        Ok(())
    }
}

/// A reader: what it sees is not freed before it has gone.
#[derive(Debug)]
#[must_use = "what was read may be freed when this is dropped"]
pub struct Guard<'a, P: Platform> {
    seat: &'a Seat,
    _pin: Pin<'a, P>,
}

impl<P: Platform> Drop for Guard<'_, P> {
    #[inline]
    fn drop(&mut self) {
        // The pin is a field: it ends after this.
        self.seat.exit();
    }
}
