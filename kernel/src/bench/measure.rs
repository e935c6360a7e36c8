//! Timing a loop, and printing what one pass of it costs.

use super::{BenchError, ROUNDS};
use crate::arch::irq::IrqGuard;
use crate::arch::registers::opaque;
use crate::arch::time::tsc;
use crate::kprintln;
use crate::num::{to_u64, to_usize};
use crate::shell::interrupt;
use core::hint::black_box;

/// What a benchmark measures with; each call prints one result line.
#[derive(Debug)]
pub struct Bencher {
    name: &'static str,
}

impl Bencher {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name }
    }

    /// Measures `operation`, called `operations` times a round with 0, 1, 2 …
    ///
    /// The result is called like the benchmark with `suffix` added.
    pub fn each(&mut self, suffix: &str, operations: usize, mut operation: impl FnMut(usize)) {
        let total = least_round(|| time_loop(operations, &mut operation));
        self.report(suffix, operations, total);
    }

    /// Measures `operation` on a state that `prepare` makes before, and `finish` takes after,
    /// each round; neither is timed.
    ///
    /// For one half of a pair: prepare nothing, time the allocations, free them in `finish`; or
    /// allocate in `prepare` and time the frees.
    ///
    /// # Errors
    ///
    /// The first error of `prepare` or `finish`. `operation` returns nothing, so that no check
    /// is timed that real code would not do: it leaves what went wrong in the state.
    pub fn phase<S>(
        &mut self,
        suffix: &str,
        operations: usize,
        mut prepare: impl FnMut() -> Result<S, BenchError>,
        mut operation: impl FnMut(&mut S, usize),
        mut finish: impl FnMut(S) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let mut least = u64::MAX;
        for () in rounds() {
            let mut state = prepare()?;
            least = least.min(time_loop(operations, |index| operation(&mut state, index)));
            finish(state)?;
        }
        self.report(suffix, operations, least);
        Ok(())
    }

    /// Measures a single run of `body` on a state that `prepare` makes before, and `finish` takes
    /// after, each round: no loop, nothing taken off. The figure is per `operations`.
    ///
    /// # Errors
    ///
    /// The first error of `prepare` or `finish`.
    pub fn whole<S>(
        &mut self,
        suffix: &str,
        operations: usize,
        mut prepare: impl FnMut() -> Result<S, BenchError>,
        mut body: impl FnMut(&mut S),
        mut finish: impl FnMut(S) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let mut least = u64::MAX;
        for () in rounds() {
            let mut state = prepare()?;
            let irq = IrqGuard::new();
            let start = tsc();
            body(&mut state);
            least = least.min(tsc().wrapping_sub(start));
            drop(irq);
            finish(state)?;
        }
        let total = least.saturating_sub(empty_measurement());
        self.print(suffix, operations, total);
        Ok(())
    }

    /// Prints a figure that was not measured here: `total` for `operations` of something.
    pub fn value(&mut self, suffix: &str, operations: usize, total: u64) {
        self.print(suffix, operations, total);
    }

    fn report(&self, suffix: &str, operations: usize, total: u64) {
        let empty = least_round(|| time_loop(operations, |_| ()));
        self.print(suffix, operations, total.saturating_sub(empty));
    }

    fn print(&self, suffix: &str, operations: usize, total: u64) {
        if interrupt::pending() {
            // Not all rounds were run: there is no figure.
            return;
        }
        // One decimal, rounded to nearest.
        let count = to_u64(operations).max(1);
        let half = count.checked_div(2).unwrap_or(0);
        let tenths = total
            .saturating_mul(10)
            .saturating_add(half)
            .checked_div(count)
            .unwrap_or(0);
        let whole = tenths.checked_div(10).unwrap_or(0);
        let tenth = tenths.checked_rem(10).unwrap_or(0);
        kprintln!("BENCH {}{suffix} {operations} {whole}.{tenth}", self.name);
    }
}

/// The rounds of a measurement, until Ctrl-C. The terminal is looked at between them, where
/// nothing is timed.
fn rounds() -> impl Iterator<Item = ()> {
    (0..ROUNDS).map_while(|_| interrupt::check().ok())
}

fn least_round(mut round: impl FnMut() -> u64) -> u64 {
    rounds().map(|()| round()).min().unwrap_or(0)
}

/// Ticks of `operations` calls, with interrupts off.
///
/// Inlined, so that the operation sits in the loop as it would in real code. The index is hidden
/// from the optimiser, which could else fold the loop.
#[inline(always)]
fn time_loop(operations: usize, mut operation: impl FnMut(usize)) -> u64 {
    let _irq = IrqGuard::new();
    let operations = black_box(operations);
    let start = tsc();
    for index in 0..operations {
        operation(to_usize(opaque(to_u64(index))));
    }
    tsc().wrapping_sub(start)
}

/// Ticks between two clock readings with nothing between.
fn empty_measurement() -> u64 {
    least_round(|| {
        let _irq = IrqGuard::new();
        let start = tsc();
        tsc().wrapping_sub(start)
    })
}
