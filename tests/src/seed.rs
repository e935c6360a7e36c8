//! Seeds of random tests: printed, and taken from `MM_SEED` to replay.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

pub use mm_workload::Random;

/// The seed of a test: `MM_SEED` (decimal, or hexadecimal after `0x`) if set, else from the clock.
/// It is printed, so that a failing test shows it.
///
/// # Panics
/// If `MM_SEED` is not a number: a replay that silently used another seed would mislead.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = match env::var("MM_SEED") {
        Ok(text) => parse(&text).unwrap_or_else(|| panic!("MM_SEED={text:?} is not a number")),
        Err(_) => from_clock(),
    };
    println!("{test}: replay with MM_SEED={seed:#x}");
    seed
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
