//! Decisions of the fallback path: pure functions, no state, unable to break anything.
//!
//! The rules are those of current Linux (`mm/page_alloc.c`: `should_try_claim_block`,
//! `try_to_claim_block`), whose free lists always match the type of the pageblock.
#![forbid(unsafe_code)]

use super::MigrateType;
use crate::addr::Order;
use crate::config::PAGEBLOCK_FRAMES;

/// What a pageblock holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// Free frames.
    pub free: u64,
    /// Frames in use for movable requests.
    pub movable: u64,
}

/// Whether a free block of `found` is reason enough for requests of type `wanted` to look at
/// taking over its whole pageblock. Pages that stay for ever, and large blocks, do; a movable
/// page may as well sit among others, since it can be moved away later.
#[inline]
#[must_use]
pub const fn worth_claiming(found: Order, wanted: MigrateType) -> bool {
    let half = Order::PAGEBLOCK.as_u8() / 2;
    found.as_u8() >= half || matches!(wanted, MigrateType::Unmovable | MigrateType::Reclaimable)
}

/// Whether a pageblock of type `owner` with these contents becomes one of type `wanted`: if at
/// least half of it is free or already used in the same way.
#[inline]
#[must_use]
pub const fn may_claim(survey: Survey, owner: MigrateType, wanted: MigrateType) -> bool {
    let alike = match (wanted, owner) {
        (MigrateType::Movable, _) => survey.movable,
        // Whatever is neither free nor movable in a movable block fits the wanted type.
        (_, MigrateType::Movable) => {
            PAGEBLOCK_FRAMES.saturating_sub(survey.free.saturating_add(survey.movable))
        }
        // Unmovable among reclaimable and the other way round: the difference is unknown.
        _ => 0,
    };
    survey.free.saturating_add(alike) >= PAGEBLOCK_FRAMES / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use MigrateType::{Movable, Reclaimable, Unmovable};

    #[test]
    fn half_a_block_free_or_alike_is_enough() {
        // (free, movable), owner, wanted → claimed?
        let cases = [
            ((256, 0), Unmovable, Movable, true),
            ((255, 0), Unmovable, Movable, false),
            ((100, 156), Unmovable, Movable, true),
            ((10, 300), Movable, Unmovable, false),
            ((10, 246), Movable, Unmovable, true),
            ((200, 0), Reclaimable, Unmovable, false),
        ];
        for ((free, movable), owner, wanted, expected) in cases {
            let survey = Survey { free, movable };
            assert_eq!(
                may_claim(survey, owner, wanted),
                expected,
                "{survey:?} {owner:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn a_small_block_is_no_reason_for_a_movable_request_to_claim() {
        assert!(!worth_claiming(Order::ZERO, Movable));
        assert!(!worth_claiming(Order::new(3).unwrap(), Movable));
        assert!(worth_claiming(Order::new(4).unwrap(), Movable));
        assert!(worth_claiming(Order::ZERO, Unmovable));
        assert!(worth_claiming(Order::ZERO, Reclaimable));
    }
}
