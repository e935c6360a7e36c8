//! What comparisons of allocators have in common: samples that are taken in turns, threads on CPUs of their own, the
//! time that they ran, and tables in Markdown.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::lean;

/// Numbers that look random and are the same in each run (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((mixed * limit as u64) >> 32) as usize
    }

    /// Puts items in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// How long this thread has run so far: time in which the host ran others is not in it.
#[must_use]
pub fn time_on_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long this thread runs for some work.
pub fn elapsed(work: impl FnOnce()) -> Duration {
    let start = time_on_cpu();
    work();
    time_on_cpu().saturating_sub(start)
}

/// Nanoseconds per operation.
pub fn timed(operations: usize, work: impl FnOnce()) -> f64 {
    elapsed(work).as_nanos() as f64 / operations as f64
}

/// Keeps this thread on one CPU of the host, and makes it that CPU of the lean machines.
pub fn run_on(number: usize) {
    lean::set_cpu(number as u32);
    let mut set = CpuSet::new();
    set.set(number);
    // Where it is not allowed, figures are a little noisier.
    let _ = sched_setaffinity(None, &set);
}

/// Runs `work` on two CPUs at once, each on a thread of its own, which is told its number; of the times that they answer
/// the longer one.
///
/// # Panics
/// If the work does.
pub fn on_two_cpus<C: Send>(
    cpus: &mut [C; 2],
    work: impl Fn(usize, &mut C) -> Duration + Sync,
) -> Duration {
    let barrier = Barrier::new(2);
    let run = |number: usize, one: &mut C| {
        run_on(number);
        barrier.wait();
        work(number, one)
    };
    let run = &run;
    thread::scope(|scope| {
        let [first, second] = cpus;
        let threads = [
            scope.spawn(move || run(0, first)),
            scope.spawn(move || run(1, second)),
        ];
        threads
            .map(|thread| thread.join().unwrap())
            .into_iter()
            .max()
            .unwrap()
    })
}

/// So many samples of each contestant, and one before them to warm up: round by round in turns, so that what disturbs
/// the machine disturbs all of them.
pub fn in_turns<R>(
    rounds: usize,
    contestants: &mut [R],
    mut sample: impl FnMut(&mut R) -> f64,
) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for (contestant, samples) in contestants.iter_mut().zip(&mut samples) {
            let sample = sample(contestant);
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    samples
}

/// The middle one of the samples.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Prints the first two lines of a table: `first`, then a column for each name.
pub fn heading<'a>(first: &str, names: impl Iterator<Item = &'a str>) {
    let names: Vec<&str> = names.collect();
    println!("| {first} | {} |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(names.len()));
}

/// Prints a row of cells.
pub fn line(name: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    println!("| {name} | {} |", cells.join(" | "));
}
