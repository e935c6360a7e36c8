//! How often a request that found no memory tries again (Linux: the decisions of
//! `__alloc_pages_slowpath`). Every way through this ends.
#![forbid(unsafe_code)]

use crate::buddy::{Gfp, Request};
use crate::zone::ZoneKind;

/// Rounds without success before it counts as out of memory, and rounds of that for a request
/// that must not fail (Linux: `MAX_RECLAIM_RETRIES`).
pub(super) const FRUITLESS: u32 = 16;
/// Rounds altogether, even when each brought something that somebody else took.
const ROUNDS: u32 = 1024;
/// Blocks larger than this are hard to find, and nobody insists on them (Linux:
/// `PAGE_ALLOC_COSTLY_ORDER`).
const COSTLY_ORDER: u8 = 3;

/// What a request does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Reclaims, and looks again.
    Again,
    /// Tells that there is no memory left.
    OutOfMemory,
    /// Fails.
    GiveUp,
}

/// A request on its way through the rounds.
#[derive(Debug)]
pub(super) struct Retry {
    gfp: Gfp,
    is_costly: bool,
    /// Whether it is worth telling everybody that this one fails.
    may_call_out: bool,
    rounds: u32,
    fruitless: u32,
    calls: u32,
}

impl Retry {
    pub(super) fn new(request: &Request) -> Self {
        let gfp = request.gfp();
        let is_costly = request.order().as_u8() > COSTLY_ORDER;
        let is_special = gfp.intersects(Gfp::RETRY_MAYFAIL.union(Gfp::THISNODE))
            || request.highest() < ZoneKind::Normal;
        Self {
            gfp,
            is_costly,
            may_call_out: gfp.contains(Gfp::NOFAIL) || !(is_costly || is_special),
            rounds: 0,
            fruitless: 0,
            calls: 0,
        }
    }

    /// After a round of reclaim that brought `pages`, and still there is none for the request.
    pub(super) const fn after_reclaim(&mut self, pages: u64) -> Next {
        self.rounds = self.rounds.saturating_add(1);
        let gives_up_early = self.gfp.contains(Gfp::NORETRY)
            || (self.is_costly && !self.gfp.contains(Gfp::RETRY_MAYFAIL));
        if gives_up_early || self.rounds >= ROUNDS {
            return Next::GiveUp;
        }
        // Single pages say nothing about large blocks.
        self.fruitless = if pages > 0 && !self.is_costly {
            0
        } else {
            self.fruitless.saturating_add(1)
        };
        if self.fruitless < FRUITLESS {
            Next::Again
        } else if self.may_call_out {
            Next::OutOfMemory
        } else {
            Next::GiveUp
        }
    }

    /// Whether it has tried as often as makes sense.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.fruitless >= FRUITLESS
    }

    /// After everybody was told, which brought `pages`, and still there is none for the request.
    pub(super) const fn after_call(&mut self, pages: u64) -> Next {
        self.calls = self.calls.saturating_add(1);
        if pages > 0 {
            self.fruitless = 0;
        }
        let insists = pages > 0 || self.gfp.contains(Gfp::NOFAIL);
        if insists && self.calls <= FRUITLESS {
            Next::Again
        } else {
            Next::GiveUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Order;

    /// Rounds and calls until the request gives up, when each brings so many pages.
    fn ends(gfp: Gfp, order: u8, pages: u64, told: u64) -> (u32, u32) {
        let request = Request::new(gfp, Order::new(order).unwrap()).unwrap();
        let mut retry = Retry::new(&request);
        loop {
            let next = match retry.after_reclaim(pages) {
                Next::OutOfMemory => retry.after_call(told),
                next => next,
            };
            if next == Next::GiveUp {
                return (retry.rounds, retry.calls);
            }
        }
    }

    #[test]
    fn every_request_ends_when_nothing_helps() {
        for order in 0..=10 {
            let usual = if order <= 3 { (16, 1) } else { (1, 0) };
            assert_eq!(ends(Gfp::KERNEL, order, 0, 0), usual);
            assert_eq!(ends(Gfp::KERNEL | Gfp::NORETRY, order, 0, 0), (1, 0));
            let mayfail = Gfp::KERNEL | Gfp::RETRY_MAYFAIL;
            assert_eq!(ends(mayfail, order, 0, 0), (16, 0));
            let dma = if order <= 3 { (16, 0) } else { (1, 0) };
            assert_eq!(ends(Gfp::KERNEL | Gfp::DMA, order, 0, 0), dma);
        }
        assert_eq!(ends(Gfp::KERNEL | Gfp::NOFAIL, 0, 0, 0), (32, 17));
    }

    #[test]
    fn every_request_ends_when_others_take_what_it_finds() {
        assert_eq!(ends(Gfp::KERNEL, 0, 1, 0), (ROUNDS, 0));
        assert_eq!(ends(Gfp::KERNEL | Gfp::NOFAIL, 0, 1, 1), (ROUNDS, 0));
        assert_eq!(ends(Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 9, 1, 0), (16, 0));
        assert_eq!(ends(Gfp::KERNEL, 0, 0, 1), (17 * 16, 17));
    }
}
