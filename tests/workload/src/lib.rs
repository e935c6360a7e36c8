//! Deterministic sequences of page allocations, the same on the host and in a kernel.
//!
//! [`run`] plays a sequence against any page allocator behind [`Pages`] and answers an
//! [`Outcome`] with a hash over every frame number handed out, in order: two allocators that
//! start with the same free ranges and follow the same rules give the same hash. Nothing here
//! allocates or needs an operating system; the caller gives the memory for the live blocks.
#![no_std]
#![forbid(unsafe_code)]

mod noted;
mod policy;
mod random;

pub use noted::{Digest, Noted};
pub use policy::{Mode, Policy};
pub use random::Random;

/// What kind of memory a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Kernel memory that stays (`GFP_KERNEL`).
    Kernel,
    /// A cache that can be dropped (`GFP_KERNEL | __GFP_RECLAIMABLE`).
    Cache,
    /// A user page (`GFP_HIGHUSER_MOVABLE`).
    User,
    /// Below 4 GiB (`GFP_KERNEL | GFP_DMA32`).
    Dma32,
    /// Below 16 MiB (`GFP_KERNEL | GFP_DMA`).
    Dma,
}

impl Class {
    /// Mostly kernel and user pages, as in a running system.
    fn choose(random: &mut Random) -> Self {
        match random.below(100) {
            0..=39 => Self::User,
            40..=74 => Self::Kernel,
            75..=89 => Self::Cache,
            90..=97 => Self::Dma32,
            _ => Self::Dma,
        }
    }
}

/// A page allocator.
pub trait Pages {
    /// Allocates `2^order` pages; the answer is the first frame's number.
    fn alloc(&mut self, class: Class, order: u8) -> Option<u64>;
    /// Gives back what [`alloc`](Self::alloc) gave out.
    fn free(&mut self, first: u64, order: u8);
    /// How many nodes the machine has. Where there are several, the sequence sets policies.
    fn nodes(&self) -> u32 {
        1
    }
    /// What the requests that follow have as memory policy; the sequence ends with
    /// [`Policy::LOCAL`].
    fn set_policy(&mut self, policy: Policy) {
        let _ = policy;
    }
    /// Whether the sequence is to end before its time; asked before each operation.
    fn is_stopped(&mut self) -> bool {
        false
    }
}

/// A block in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Live {
    /// First frame.
    pub first: u64,
    /// log2 of the number of frames.
    pub order: u8,
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Hash over the frame numbers handed out and the requests that failed, in order.
    pub hash: u64,
    /// Requests that were served.
    pub served: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Blocks given back before the end.
    pub freed: u64,
}

impl Outcome {
    const START: Self = Self {
        // The offset basis and prime of 64-bit FNV-1a.
        hash: 0xcbf2_9ce4_8422_2325,
        served: 0,
        failed: 0,
        freed: 0,
    };

    fn note(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Orders up to 10, small ones far more often.
fn choose_order(random: &mut Random) -> u8 {
    match random.below(64) {
        0..=39 => 0,
        40..=53 => u8::try_from(random.below(3)).unwrap_or(0).wrapping_add(1),
        54..=61 => u8::try_from(random.below(5)).unwrap_or(0).wrapping_add(4),
        _ => u8::try_from(random.below(2)).unwrap_or(0).wrapping_add(9),
    }
}

/// Plays `operations` allocations and frees that follow from `seed` and the number of nodes alone,
/// then gives everything back. With several nodes every 64th operation or so sets another policy. At most `slots.len()` blocks are live at a time; what `slots` held is overwritten.
/// Ends early, with everything given back, when [`Pages::is_stopped`] says so.
pub fn run(
    pages: &mut impl Pages,
    slots: &mut [Option<Live>],
    seed: u64,
    operations: u64,
) -> Outcome {
    slots.fill(None);
    let mut random = Random::new(seed);
    let mut outcome = Outcome::START;
    let nodes = pages.nodes();
    for _ in 0..operations {
        if pages.is_stopped() {
            break;
        }
        if nodes > 1 && random.below(64) == 0 {
            pages.set_policy(Policy::choose(&mut random, nodes));
        }
        let place = random.below_index(slots.len());
        let (class, order) = (Class::choose(&mut random), choose_order(&mut random));
        let Some(slot) = slots.get_mut(place) else {
            break;
        };
        if let Some(live) = slot.take() {
            pages.free(live.first, live.order);
            outcome.freed = outcome.freed.wrapping_add(1);
            continue;
        }
        *slot = pages.alloc(class, order).map(|first| Live { first, order });
        match slot {
            Some(live) => {
                outcome.note(live.first);
                outcome.served = outcome.served.wrapping_add(1);
            }
            None => {
                outcome.note(u64::MAX);
                outcome.failed = outcome.failed.wrapping_add(1);
            }
        }
    }
    for live in slots.iter_mut().filter_map(Option::take) {
        pages.free(live.first, live.order);
    }
    pages.set_policy(Policy::LOCAL);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out ever higher numbers.
    struct Bump(u64);

    impl Pages for Bump {
        fn alloc(&mut self, _: Class, order: u8) -> Option<u64> {
            let first = self.0;
            self.0 = first.wrapping_add(1 << order);
            (order < 9).then_some(first)
        }

        fn free(&mut self, _: u64, _: u8) {}
    }

    #[test]
    fn a_seed_gives_one_sequence_and_another_seed_another() {
        let play = |seed| run(&mut Bump(0), &mut [None; 100], seed, 10_000);
        assert_eq!(play(1), play(1));
        assert_ne!(play(1).hash, play(2).hash);
        let outcome = play(1);
        assert!(outcome.failed > 0 && outcome.freed > outcome.served / 2);
    }

    const MODES: [Mode; 6] = [
        Mode::Local,
        Mode::Preferred,
        Mode::PreferredMany,
        Mode::Bind,
        Mode::Interleave,
        Mode::WeightedInterleave,
    ];

    /// Notes which policies are set, by mode, and the last one.
    struct Nodes(u32, [u32; 6], Policy);

    impl Pages for Nodes {
        fn alloc(&mut self, _: Class, _: u8) -> Option<u64> {
            None
        }

        fn free(&mut self, _: u64, _: u8) {}

        fn nodes(&self) -> u32 {
            self.0
        }

        fn set_policy(&mut self, policy: Policy) {
            let Policy { mode, nodes } = policy;
            assert!(nodes < 1 << self.0 && (nodes == 0) == (mode == Mode::Local));
            assert!(mode != Mode::Preferred || nodes.count_ones() == 1);
            let named = u32::try_from(policy.node_numbers().count());
            assert_eq!(named, Ok(nodes.count_ones()));
            let times = &mut self.1[MODES.iter().position(|known| *known == mode).unwrap()];
            *times = times.wrapping_add(1);
            self.2 = policy;
        }
    }

    #[test]
    fn with_several_nodes_every_policy_is_set_and_none_is_left() {
        let mut pages = Nodes(3, [0; 6], Policy::LOCAL);
        run(&mut pages, &mut [None; 100], 1, 10_000);
        assert!(pages.1.iter().all(|&times| times > 10), "{:?}", pages.1);
        assert_eq!(pages.2, Policy::LOCAL);
        let mut pages = Nodes(1, [0; 6], Policy::LOCAL);
        run(&mut pages, &mut [None; 100], 1, 10_000);
        assert_eq!(pages.1, [1, 0, 0, 0, 0, 0]);
    }
}
