//! The race: every row for every contestant.

use mm_tests::race::{elapsed, in_turns, on_two_cpus, run_on, timed};

use crate::contestants::Contestant;
use crate::workloads::{
    BATCH, CHURN_ROUNDS, HUGE, age, batches, pairs, reach, shuffled, usable_as_huge,
};

/// Bytes that each contestant has to give.
const BYTES: usize = 128 << 20;

/// A row whose figure is a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    /// Order 0, alloc and free.
    Pair,
    /// Batches of pages, freed in another order, with nothing else in use.
    FreshBatch,
    /// The same in memory that 250 rounds of churn have left half full.
    AgedBatch,
    /// Order 9, alloc and free.
    HugePair,
    /// Order 0, alloc and free, on two CPUs at once.
    TwoCpus,
}

impl Row {
    pub(crate) const ALL: [Self; 5] = [
        Self::Pair,
        Self::FreshBatch,
        Self::AgedBatch,
        Self::HugePair,
        Self::TwoCpus,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pair => "4 KiB pair, 1 thread",
            Self::FreshBatch => "1,024 pages, shuffled free, fresh memory, per page",
            Self::AgedBatch => "1,024 pages, shuffled free, aged memory, per page",
            Self::HugePair => "2 MiB pair, 1 thread",
            Self::TwoCpus => "4 KiB pair, 2 threads, each on its own CPU",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pairs: usize,
    batches: usize,
    churn_rounds: usize,
}

impl Effort {
    /// For figures.
    pub(crate) const FULL: Self = Self {
        rounds: 11,
        pairs: 100_000,
        batches: 10,
        churn_rounds: CHURN_ROUNDS,
    };
    /// To see that everything runs.
    pub(crate) const SMOKE: Self = Self {
        rounds: 1,
        pairs: 100,
        batches: 1,
        churn_rounds: 2,
    };
}

/// A contestant on its marks: memory of every kind that the rows ask for.
pub(crate) struct Entrant<C: Contestant> {
    fresh: C,
    aged: C,
    shared: [C::Cpu; 2],
    sequence: Vec<usize>,
    effort: Effort,
}

/// What the race needs of an entrant, whichever contestant it is.
pub(crate) trait Runner {
    /// The contestant's name.
    fn name(&self) -> &'static str;
    /// Nanoseconds per operation of a row, once.
    fn sample(&mut self, row: Row) -> f64;
    /// What is left of free memory after the churn, as 2 MiB blocks, in per cent; nothing if the
    /// contestant never makes any.
    fn usable(&mut self) -> Option<f64>;
    /// What one CPU gets of what another gave back, in per cent.
    fn reach(&self) -> f64;
}

impl<C: Contestant> Entrant<C> {
    pub(crate) fn boxed(effort: Effort) -> Box<dyn Runner> {
        let mut aged = C::new(BYTES);
        age(&mut aged, effort.churn_rounds);
        Box::new(Self {
            fresh: C::new(BYTES),
            aged,
            shared: C::new(BYTES).on_two_cpus(),
            sequence: shuffled(),
            effort,
        })
    }
}

impl<C: Contestant> Runner for Entrant<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn sample(&mut self, row: Row) -> f64 {
        run_on(0);
        let (count, times) = (self.effort.pairs, self.effort.batches);
        match row {
            Row::Pair => timed(count, || pairs(&mut self.fresh, 0, count)),
            Row::HugePair => timed(count, || pairs(&mut self.fresh, HUGE, count)),
            Row::FreshBatch => timed(times * BATCH, || {
                batches(&mut self.fresh, &self.sequence, times);
            }),
            Row::AgedBatch => timed(times * BATCH, || {
                batches(&mut self.aged, &self.sequence, times);
            }),
            Row::TwoCpus => {
                let taken =
                    on_two_cpus(&mut self.shared, |_, cpu| elapsed(|| pairs(cpu, 0, count)));
                taken.as_nanos() as f64 / count as f64
            }
        }
    }

    fn usable(&mut self) -> Option<f64> {
        C::MERGES.then(|| usable_as_huge(&mut self.aged))
    }

    fn reach(&self) -> f64 {
        reach(&mut C::new(BYTES))
    }
}

/// The samples of one row, contestant by contestant.
pub(crate) fn run(row: Row, effort: Effort, runners: &mut [Box<dyn Runner>]) -> Vec<Vec<f64>> {
    in_turns(effort.rounds, runners, |runner| runner.sample(row))
}
