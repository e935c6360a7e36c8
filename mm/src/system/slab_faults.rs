//! Requests for objects that fail on purpose (Linux: `failslab`).
//!
//! Caches that the rule names at boot, or that are made with [`SlabFlags::FAILSLAB`](crate::slab::SlabFlags),
//! have no objects at hand of CPUs, so that each request passes the one place where it is decided. Others
//! know nothing of it.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use super::Memory;
use super::faults::{BadFaultRule, FailPageAlloc, Faults, Times};
use crate::addr::Order;
use crate::buddy::{Gfp, Request};
use crate::platform::Platform;
use crate::report::ForcedObjectFailure;
use crate::slab::{Cache, NamePattern};
use crate::sync::{SpinLock, rank};

/// Which requests for objects fail on purpose: those that reach it all of the marks that it sets.
/// `NOFAIL` ones never do. The n-th request alone fails with an `interval` of n, a `probability` of 100, and
/// [`Times::AtMost`]`(1)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailSlab {
    /// One in so many is looked at.
    pub interval: u64,
    /// How many of those fail, in per cent.
    pub probability: u8,
    /// So many are served before the first one is looked at.
    pub space: u64,
    /// How many fail at most.
    pub times: Times,
    /// The fewest bytes, and the most, that a request that fails asks for.
    pub sizes: (usize, usize),
    /// The caches that are asked.
    pub cache: NamePattern,
    /// Decides which ones do.
    pub seed: u64,
}

impl FailSlab {
    /// One request in `per_cent` hundreds to the caches that a pattern names fails, of any size and without
    /// end. Context: any.
    #[must_use]
    pub const fn per_cent(per_cent: u8, cache: NamePattern, seed: u64) -> Self {
        Self {
            interval: 1,
            probability: per_cent,
            space: 0,
            times: Times::Unlimited,
            sizes: (0, usize::MAX),
            cache,
            seed,
        }
    }

    /// The same for the n-th request alone, counted from 1. Context: any.
    #[must_use]
    pub const fn nth(number: u64, cache: NamePattern) -> Self {
        Self {
            interval: number,
            times: Times::AtMost(1),
            ..Self::per_cent(100, cache, 0)
        }
    }

    const fn sizes(&self) -> RangeInclusive<usize> {
        self.sizes.0..=self.sizes.1
    }

    /// What decides about pages decides here too: each object is one.
    const fn rule(&self) -> FailPageAlloc {
        FailPageAlloc {
            interval: self.interval,
            probability: self.probability,
            space: self.space,
            times: self.times,
            min_order: Order::ZERO,
            seed: self.seed,
        }
    }
}

/// As on Linux's command line, `INTERVAL,PROBABILITY,SPACE,TIMES`; with `MIN-MAX`, the sizes, and with a name
/// of caches, which is `*` if there is none.
impl FromStr for FailSlab {
    type Err = BadFaultRule;

    fn from_str(text: &str) -> Result<Self, BadFaultRule> {
        let mut words = text.splitn(6, ',');
        let first = [(); 4].map(|()| words.next());
        let [Some(interval), Some(probability), Some(space), Some(times)] = first else {
            return Err(BadFaultRule);
        };
        let number = |word: &str| word.parse::<u64>().map_err(|_| BadFaultRule);
        let size = |word: &str| word.parse::<usize>().map_err(|_| BadFaultRule);
        let probability = probability.parse::<u8>().ok().filter(|share| *share <= 100);
        let sizes = match words.next() {
            None => (0, usize::MAX),
            Some(range) => {
                let (least, most) = range.split_once('-').ok_or(BadFaultRule)?;
                (size(least)?, size(most)?)
            }
        };
        Ok(Self {
            interval: number(interval)?,
            probability: probability.ok_or(BadFaultRule)?,
            space: number(space)?,
            times: match times {
                "-1" => Times::Unlimited,
                times => Times::AtMost(number(times)?),
            },
            sizes,
            cache: NamePattern::new(words.next().unwrap_or("*")).ok_or(BadFaultRule)?,
            seed: 0,
        })
    }
}

/// No cache is asked before it serves a request: `failslab=` was not said when memory came up, and no
/// cache was made with [`SlabFlags::FAILSLAB`](crate::slab::SlabFlags::FAILSLAB).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoFailSlab;

impl fmt::Display for NoFailSlab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no cache can fail on purpose: say `failslab=` at boot")
    }
}

impl core::error::Error for NoFailSlab {}

/// The rule, and what it did so far.
#[derive(Debug)]
pub(crate) struct SlabFaults {
    rule: SpinLock<Option<(FailSlab, Faults)>>,
}

impl SlabFaults {
    pub(super) const fn new(rule: Option<FailSlab>) -> Self {
        let rule = match rule {
            Some(rule) => Some((rule, Faults::new(rule.rule()))),
            None => None,
        };
        Self {
            rule: SpinLock::new(rank::SLAB, rule),
        }
    }

    /// Whether a request fails (Linux: `should_failslab`); tells of it.
    #[cold]
    pub(super) fn strike_aloud<P: Platform>(
        &self,
        platform: &P,
        cache: &Cache,
        gfp: Gfp,
        size: usize,
    ) -> bool {
        let name = cache.name(platform);
        let rule = self.rule.lock(platform);
        let strikes = rule.as_ref().is_some_and(|(rule, faults)| {
            let is_meant = rule.sizes().contains(&size) && rule.cache.matches(name.as_str());
            let request = Request::new(gfp.difference(Gfp::COMP), Order::ZERO);
            is_meant && request.is_ok_and(|request| faults.strike(&request))
        });
        drop(rule);
        if strikes && !gfp.contains(Gfp::NOWARN) {
            platform.object_failure_forced(&ForcedObjectFailure {
                cache: name,
                size,
                mode: gfp.bits(),
            });
        }
        strikes
    }
}

impl<P: Platform> Memory<P> {
    /// Changes which requests for objects fail on purpose, counting from now on; or none does any more.
    /// Context: task.
    ///
    /// # Errors
    /// [`NoFailSlab`] if no cache looks at it.
    pub fn set_failslab(&self, rule: Option<FailSlab>) -> Result<(), NoFailSlab> {
        let core = self.core().ok_or(NoFailSlab)?;
        let fails = |cache: &Cache| cache.fails_on_purpose();
        core.caches
            .iter()
            .find(|cache| fails(cache))
            .ok_or(NoFailSlab)?;
        let rule = rule.map(|rule| (rule, Faults::new(rule.rule())));
        *core.slab_faults.rule.lock(&self.platform) = rule;
        Ok(())
    }

    /// How many requests for objects failed on purpose by the present rule. Context: any but NMI.
    #[must_use]
    pub fn injected_object_failures(&self) -> u64 {
        let Some(core) = self.core() else { return 0 };
        let rule = core.slab_faults.rule.lock(&self.platform);
        rule.as_ref().map_or(0, |(_, faults)| faults.failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_on_linux_command_line() {
        let all = NamePattern::new("*").unwrap();
        let rule = FailSlab {
            interval: 10,
            probability: 100,
            space: 500,
            times: Times::AtMost(7),
            ..FailSlab::per_cent(1, all, 0)
        };
        assert_eq!("10,100,500,7".parse(), Ok(rule));
        let cache = NamePattern::new("kmalloc-*").unwrap();
        let sizes = (16, 64);
        let narrow = FailSlab {
            cache,
            sizes,
            ..rule
        };
        assert_eq!("10,100,500,7,16-64,kmalloc-*".parse(), Ok(narrow));
        for text in [
            "",
            "1,2,3",
            "1,101,0,-1",
            "1,1,0,-2",
            "1,1,0,1,5",
            "1,1,0,1,5-6,",
        ] {
            assert_eq!(text.parse::<FailSlab>(), Err(BadFaultRule), "{text}");
        }
    }
}
