//! Seeds of random tests: printed, and taken from `MM_SEED` to replay.

use std::env;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

pub use mm_workload::Random;

/// The seed of a test: `MM_SEED` (decimal, or hexadecimal after `0x`) if set, else from the clock.
/// It is printed, so that a failing test shows it.
///
/// # Panics
/// If `MM_SEED` is not a number: a replay that silently used another seed would mislead.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = from_env("MM_SEED").unwrap_or_else(from_clock);
    println!("{test}: replay with MM_SEED={seed:#x}");
    seed
}

/// Runs `body` over values of `strategy`, `cases` times unless `MM_CASES` says otherwise. A
/// failure is shrunk, 2,000 times unless `PROPTEST_MAX_SHRINK_ITERS` says otherwise.
///
/// # Panics
/// When a case fails, with the smallest that still does.
pub fn check<S>(
    test: &str,
    cases: u32,
    strategy: &S,
    body: impl Fn(S::Value) -> Result<(), TestCaseError>,
) where
    S: Strategy,
    S::Value: Debug,
{
    let number = |name, usual| from_env(name).map_or(usual, |number| number as u32);
    let config = Config {
        cases: number("MM_CASES", cases),
        rng_seed: RngSeed::Fixed(seed(test)),
        failure_persistence: None,
        max_shrink_iters: number("PROPTEST_MAX_SHRINK_ITERS", 2_000),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(strategy, body);
    outcome.unwrap_or_else(|error| panic!("{test}: {error}"));
}

/// How often a test does what it does: so often, unless `MM_CASES` says otherwise.
#[must_use]
pub fn cases(usual: u64) -> u64 {
    from_env("MM_CASES").unwrap_or(usual)
}

fn from_env(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(parse(&text).unwrap_or_else(|| panic!("{name}={text:?} is not a number")))
}

fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn from_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Random::new(now.map_or(1, |now| now.as_nanos() as u64)).next_u64()
}
