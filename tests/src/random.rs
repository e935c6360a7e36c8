//! Random tests that can be run again.
//!
//! `MM_CASES` says how many cases, `MM_SEED` which; a failure prints the seed and the smallest
//! case that still fails.

use core::fmt::Debug;
use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

fn from_env(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs `test` over values of `strategy`, `cases` times unless `MM_CASES` says otherwise.
///
/// # Panics
/// When a case fails.
pub fn check<S>(cases: u64, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: Debug,
{
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = from_env("MM_SEED").unwrap_or_else(|| now.map_or(1, |now| now.as_nanos() as u64));
    let cases = from_env("MM_CASES").unwrap_or(cases);
    let config = Config {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let result = TestRunner::new_with_rng(config, rng).run(strategy, test);
    if let Err(error) = result {
        panic!("MM_SEED={seed} MM_CASES={cases}: {error}");
    }
}
