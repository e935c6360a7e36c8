//! Requests that fail on purpose (Linux: `fail_page_alloc`, fault injection), so that what their
//! callers do about it is seen before memory is really short.
//!
//! Where it is on, no request is served from a CPU's list at first sight, so that each passes the one
//! place where it is decided. Where it is off, it costs nothing but a test where a zone is asked.
#![forbid(unsafe_code)]

use core::fmt;
use core::str::FromStr;

use super::{Core, Memory};
use crate::addr::Order;
use crate::buddy::{Gfp, Request};
use crate::platform::Platform;
use crate::report::ForcedFailure;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Which requests for pages fail on purpose: those that reach it all of the marks that it sets.
/// `NOFAIL` ones never do. It counts from when memory is up: what a kernel itself asks for until it gives
/// others a turn uses [`Self::times`] up, unless [`Self::space`] covers that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailPageAlloc {
    /// One in so many is looked at.
    pub interval: u64,
    /// How many of those fail, in per cent.
    pub probability: u8,
    /// So many pages are handed out before the first one fails.
    pub space: u64,
    /// How many fail at most.
    pub times: Times,
    /// Smaller ones do not fail. On the command line it is 1 unless a fifth number says otherwise, as in
    /// Linux.
    pub min_order: Order,
    /// Decides which ones do.
    pub seed: u64,
}

/// How often something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// At most so often.
    AtMost(u64),
    /// Without end (Linux: −1).
    Unlimited,
}

/// A text that is not `INTERVAL,PROBABILITY,SPACE,TIMES`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFaultRule;

impl fmt::Display for BadFaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not INTERVAL,PROBABILITY,SPACE,TIMES[,MIN_ORDER]")
    }
}

impl core::error::Error for BadFaultRule {}

impl FailPageAlloc {
    /// One request in `per_cent` hundreds fails, of any size and without end. Context: any.
    #[must_use]
    pub const fn per_cent(per_cent: u8, seed: u64) -> Self {
        Self {
            interval: 1,
            probability: per_cent,
            space: 0,
            times: Times::Unlimited,
            min_order: Order::ZERO,
            seed,
        }
    }
}

/// As on Linux's command line, `INTERVAL,PROBABILITY,SPACE,TIMES`, with a fifth number for what
/// Linux has in a file, `min-order`, which is 1 there unless it is set.
impl FromStr for FailPageAlloc {
    type Err = BadFaultRule;

    fn from_str(text: &str) -> Result<Self, BadFaultRule> {
        let mut words = text.split(',');
        let mut next = || words.next().ok_or(BadFaultRule);
        let number = |word: &str| word.parse::<u64>().map_err(|_| BadFaultRule);
        let interval = number(next()?)?;
        let probability = next()?.parse::<u8>().ok().filter(|share| *share <= 100);
        let space = number(next()?)?;
        let times = match next()? {
            "-1" => Times::Unlimited,
            word => Times::AtMost(number(word)?),
        };
        let min_order = match next() {
            Err(_) => Some(Order::ZERO.plus(1)),
            Ok(word) => word.parse().ok().and_then(Order::new),
        };
        if next().is_ok() {
            return Err(BadFaultRule);
        }
        Ok(Self {
            interval,
            probability: probability.ok_or(BadFaultRule)?,
            space,
            times,
            min_order: min_order.ok_or(BadFaultRule)?,
            seed: 0,
        })
    }
}

/// What decides, and what it did so far.
#[derive(Debug)]
pub(crate) struct Faults {
    rule: FailPageAlloc,
    /// Requests that were looked at.
    count: AtomicU64,
    /// Pages that are still handed out before any fails.
    space: AtomicU64,
    failed: AtomicU64,
}

impl Faults {
    pub(super) const fn new(rule: FailPageAlloc) -> Self {
        Self {
            rule,
            count: AtomicU64::new(0),
            space: AtomicU64::new(rule.space),
            failed: AtomicU64::new(0),
        }
    }

    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// As [`Self::strike`], and tells of it (Linux: `fail_dump`).
    #[cold]
    #[inline(never)]
    fn strike_aloud<P: Platform>(&self, platform: &P, request: &Request) -> bool {
        let strikes = self.strike(request);
        if strikes && !request.gfp().contains(Gfp::NOWARN) {
            platform.failure_forced(&ForcedFailure {
                order: request.order(),
                mode: request.gfp().bits(),
            });
        }
        strikes
    }

    /// Whether a request fails (Linux: `should_fail`).
    #[cold]
    #[inline(never)]
    pub(super) fn strike(&self, request: &Request) -> bool {
        let rule = &self.rule;
        if request.gfp().contains(Gfp::NOFAIL) || request.order() < rule.min_order {
            return false;
        }
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let frames = request.order().frames();
        let spend = |space: u64| (space > frames).then(|| space.saturating_sub(frames));
        if self.space.fetch_update(set, fetch, spend).is_ok() {
            return false;
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let is_its_turn = rule.interval <= 1 || count.is_multiple_of(rule.interval);
        if !is_its_turn || mix(rule.seed ^ count).rem_euclid(100) >= u64::from(rule.probability) {
            return false;
        }
        let once_more = |failed: u64| match rule.times {
            Times::AtMost(times) if failed >= times => None,
            _ => Some(failed.saturating_add(1)),
        };
        self.failed.fetch_update(set, fetch, once_more).is_ok()
    }
}

/// Any two numbers give two that have nothing to do with each other (SplitMix64's last step).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Core {
    /// Whether a request fails on purpose.
    #[inline]
    pub(super) fn strikes<P: Platform>(&self, platform: &P, request: &Request) -> bool {
        match &self.faults {
            None => false,
            Some(faults) => faults.strike_aloud(platform, request),
        }
    }
}

impl<P: Platform> Memory<P> {
    /// How many requests failed on purpose. Context: any.
    #[must_use]
    pub fn injected_failures(&self) -> u64 {
        let faults = self.core().and_then(|core| core.faults.as_ref());
        faults.map_or(0, Faults::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_on_linux_command_line() {
        let rule = FailPageAlloc {
            interval: 10,
            probability: 100,
            space: 500,
            times: Times::Unlimited,
            min_order: Order::ZERO.plus(1),
            seed: 0,
        };
        assert_eq!("10,100,500,-1".parse(), Ok(rule));
        let small = FailPageAlloc {
            times: Times::AtMost(7),
            min_order: Order::ZERO,
            ..rule
        };
        assert_eq!("10,100,500,7,0".parse(), Ok(small));
        for text in [
            "",
            "1",
            "1,2,3",
            "1,101,0,-1",
            "1,1,0,-2",
            "1,1,0,1,11",
            "1,1,0,1,0,0",
            "a,1,0,1",
        ] {
            assert_eq!(text.parse::<FailPageAlloc>(), Err(BadFaultRule), "{text}");
        }
    }

    fn struck(rule: FailPageAlloc, requests: usize, order: u8) -> Vec<usize> {
        let faults = Faults::new(rule);
        let order = Order::new(order).unwrap();
        let request = Request::new(Gfp::KERNEL, order).unwrap();
        (0..requests).filter(|_| faults.strike(&request)).collect()
    }

    #[test]
    fn interval_space_times_and_order_decide_who_fails() {
        let all = FailPageAlloc::per_cent(100, 1);
        assert_eq!(struck(all, 3, 0), [0, 1, 2]);
        let third = FailPageAlloc { interval: 3, ..all };
        assert_eq!(struck(third, 9, 0), [2, 5, 8]);
        let twice = FailPageAlloc {
            times: Times::AtMost(2),
            ..third
        };
        assert_eq!(struck(twice, 90, 0), [2, 5]);
        // Four pages each: eleven are handed out, and with the third block there would be twelve.
        let late = FailPageAlloc { space: 11, ..all };
        assert_eq!(struck(late, 5, 2), [2, 3, 4]);
        let large = FailPageAlloc {
            min_order: Order::ZERO.plus(3),
            ..all
        };
        assert_eq!(
            (struck(large, 3, 2).len(), struck(large, 3, 3).len()),
            (0, 3)
        );
        let faults = Faults::new(all);
        let nofail = Gfp::KERNEL.union(Gfp::NOFAIL);
        assert!(!faults.strike(&Request::new(nofail, Order::ZERO).unwrap()));
    }

    #[test]
    fn about_as_many_fail_as_the_probability_says_and_others_with_another_seed() {
        for per_cent in [0, 1, 10, 50] {
            let number = struck(FailPageAlloc::per_cent(per_cent, 7), 100_000, 0).len();
            let expected = usize::from(per_cent) * 1_000;
            assert!(
                number.abs_diff(expected) <= expected / 5,
                "{per_cent} %: {number}"
            );
        }
        let (one, other) = (FailPageAlloc::per_cent(1, 1), FailPageAlloc::per_cent(1, 2));
        assert_ne!(struck(one, 10_000, 0), struck(other, 10_000, 0));
    }
}
