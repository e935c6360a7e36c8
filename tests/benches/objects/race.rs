//! The race: every row whose figure is a time, for every contestant.

use std::time::{Duration, Instant};

use mm_tests::race::{elapsed, in_turns, median, on_two_cpus, run_on, timed};
use mm_tests::traces::Trace;

use crate::contestants::{Contestant, Talent};
use crate::workloads::{BATCH, Churn, LIVE, Mail, PARCEL, Replay, Touch, batches, pairs, shuffled};

/// Bytes that each contestant with an arena has to give.
pub(crate) const BYTES: usize = 64 << 20;
/// Who takes longer for one sample is not asked for another one.
const PATIENCE: Duration = Duration::from_secs(2);

/// A row whose figure is a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    /// 64 bytes, alloc and free.
    Pair,
    /// The same by way of what two CPUs would use: under a lock, for those that need one.
    Ready,
    /// Batches of objects, freed in another order.
    Batch,
    /// Objects of any size, of which many are alive.
    Churn,
    /// A trace, by its number.
    Trace(usize),
    /// The pair on two CPUs at once.
    TwoCpus,
    /// Taken on one CPU, given back on the other one.
    OtherCpu,
}

impl Row {
    pub(crate) const ALL: [Self; 8] = [
        Self::Pair,
        Self::Ready,
        Self::Batch,
        Self::Churn,
        Self::Trace(0),
        Self::Trace(1),
        Self::TwoCpus,
        Self::OtherCpu,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pair => "64 B pair",
            Self::Ready => "pair, ready for 2 CPUs",
            Self::Batch => "batch of 1,024",
            Self::Churn => "churn of 100k",
            Self::Trace(number) => mm_tests::traces::NAMES[number],
            Self::TwoCpus => "pair on 2 CPUs",
            Self::OtherCpu => "free on the other CPU",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pairs: usize,
    batches: usize,
    pub(crate) live: usize,
    pub(crate) events: usize,
    parcels: usize,
    /// The word for it on the command line.
    pub(crate) word: &'static str,
}

impl Effort {
    /// For figures.
    pub(crate) const FULL: Self = Self {
        rounds: 11,
        pairs: 200_000,
        batches: 50,
        live: LIVE,
        events: usize::MAX,
        parcels: 20,
        word: "full",
    };
    /// To see that everything runs.
    pub(crate) const SMOKE: Self = Self {
        rounds: 1,
        pairs: 100,
        batches: 1,
        live: 1_000,
        events: 10_000,
        parcels: 2,
        word: "smoke",
    };

    /// The effort of a word on the command line.
    pub(crate) fn named(word: &str) -> Self {
        match word {
            "full" => Self::FULL,
            _ => Self::SMOKE,
        }
    }
}

/// A contestant on its marks: memory of its own for every kind of row.
pub(crate) struct Entrant<C: Contestant> {
    fresh: C,
    churned: C,
    churn: Churn,
    replaying: C,
    replays: Vec<Replay>,
    shared: [C::Cpu; 2],
    mail: Mail,
    sequence: Vec<usize>,
    effort: Effort,
}

/// What the race needs of an entrant, whichever contestant it is.
pub(crate) trait Runner {
    /// Nanoseconds per operation of a row, once.
    fn sample(&mut self, row: Row) -> f64;
}

impl<C: Contestant> Entrant<C> {
    pub(crate) fn boxed(traces: &'static [Trace], effort: Effort) -> Box<dyn Runner> {
        let mut churned = C::new(BYTES);
        let mut churn = Churn::new(effort.live, effort.live);
        churn.fill(&mut churned, Touch::First);
        let replay = |trace| Replay::new(trace, effort.events);
        Box::new(Self {
            fresh: C::new(BYTES),
            churned,
            churn,
            replaying: C::new(BYTES),
            replays: traces.iter().map(replay).collect(),
            shared: C::new(BYTES).on_two_cpus(),
            mail: Mail::new(),
            sequence: shuffled(),
            effort,
        })
    }
}

impl<C: Contestant> Runner for Entrant<C> {
    fn sample(&mut self, row: Row) -> f64 {
        run_on(0);
        let Effort {
            pairs: count,
            batches: times,
            parcels,
            ..
        } = self.effort;
        match row {
            Row::Pair => timed(count, || pairs(&mut self.fresh, count)),
            Row::Ready => timed(count, || pairs(&mut self.shared[0], count)),
            Row::Batch => timed(times * BATCH, || {
                batches(&mut self.fresh, &self.sequence, times);
            }),
            Row::Churn => timed(self.churn.steps(), || {
                self.churn.work(&mut self.churned, Touch::First);
            }),
            Row::Trace(number) => {
                let replay = &mut self.replays[number];
                let taken = timed(replay.events(), || {
                    replay.work(&mut self.replaying, Touch::First, |_| {});
                });
                replay.finish(&mut self.replaying);
                taken
            }
            Row::TwoCpus => {
                let work = |_, cpu: &mut C::Cpu| elapsed(|| pairs(cpu, count));
                let taken = on_two_cpus(&mut self.shared, work);
                taken.as_nanos() as f64 / count as f64
            }
            Row::OtherCpu => {
                let work = |number, cpu: &mut C::Cpu| self.mail.work(number, cpu, parcels);
                let taken = on_two_cpus(&mut self.shared, work);
                taken.as_nanos() as f64 / (parcels * PARCEL) as f64
            }
        }
    }
}

/// An entrant, and its figure of this row if that took too long to ask again.
struct Seat {
    runner: Box<dyn Runner>,
    settled: Option<f64>,
}

impl Seat {
    fn sample(&mut self, row: Row) -> f64 {
        if let Some(figure) = self.settled {
            return figure;
        }
        let start = Instant::now();
        let figure = self.runner.sample(row);
        self.settled = (start.elapsed() > PATIENCE).then_some(figure);
        figure
    }
}

/// Nanoseconds per operation: for each contestant those of all rows.
pub(crate) fn times(
    talents: &[Talent],
    traces: &'static [Trace],
    effort: Effort,
) -> Vec<[f64; Row::ALL.len()]> {
    let seat = |talent: &Talent| Seat {
        runner: (talent.enter)(traces, effort),
        settled: None,
    };
    let mut seats: Vec<Seat> = talents.iter().map(seat).collect();
    let mut figures = vec![[0.0; Row::ALL.len()]; talents.len()];
    for (place, row) in Row::ALL.into_iter().enumerate() {
        eprintln!("{}", row.name());
        seats.iter_mut().for_each(|seat| seat.settled = None);
        let samples = in_turns(effort.rounds, &mut seats, |seat| seat.sample(row));
        for (figures, samples) in figures.iter_mut().zip(&samples) {
            figures[place] = median(samples);
        }
    }
    figures
}
