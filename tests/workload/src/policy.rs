//! Memory policies that a sequence sets as it goes.

use crate::Random;

/// What a policy does with its nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It has none: memory near to the CPU.
    Local,
    /// One node first.
    Preferred,
    /// These first.
    PreferredMany,
    /// These only.
    Bind,
    /// These by turns.
    Interleave,
    /// These by turns, as often as their weights say.
    WeightedInterleave,
}

/// A policy for the requests that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// What it does.
    pub mode: Mode,
    /// With which nodes: bit N for node N.
    pub nodes: u64,
}

impl Policy {
    /// That of a machine where nobody has set another.
    pub const LOCAL: Self = Self {
        mode: Mode::Local,
        nodes: 0,
    };

    /// Any mode, with any of the first `count` nodes.
    pub(crate) fn choose(random: &mut Random, count: u32) -> Self {
        let all = 1_u64.checked_shl(count).unwrap_or(0).wrapping_sub(1);
        let some = random.below(all).wrapping_add(1);
        let one = 1_u64 << random.below(u64::from(count.min(u64::BITS)));
        let (mode, nodes) = match random.below(6) {
            0 => (Mode::Preferred, one),
            1 => (Mode::PreferredMany, some),
            2 => (Mode::Bind, some),
            3 => (Mode::Interleave, some),
            4 => (Mode::WeightedInterleave, some),
            _ => return Self::LOCAL,
        };
        Self { mode, nodes }
    }

    /// The numbers of its nodes.
    pub fn node_numbers(self) -> impl Iterator<Item = u16> {
        (0..64).filter(move |node| self.nodes >> node & 1 == 1)
    }
}
