//! How an allocation found its block, in sentences.
//!
//! [`Recording`] is a [`Trace`] of fixed size: it only takes notes, since steps happen with a
//! zone's lock held and interrupts off, and is printed when all is over.
#![forbid(unsafe_code)]

use core::fmt;

use crate::buddy::{Step, Trace};
use crate::frame::ZoneId;
use crate::zone::ZoneKind;

/// Steps that are kept. An allocation on one node takes at most 43: four zones asked in four rounds, all but
/// one in vain, one claim or theft, one block found, ten times halved. Damaged blocks and more nodes add to that.
/// The first ones are kept, …
const FIRST: usize = 16;
/// … and the last: where more is told than there is room for, the end tells the outcome.
const LAST: usize = 48;

/// The steps of one allocation or release; what it prints is one numbered sentence a step.
#[derive(Clone, Debug)]
pub struct Recording {
    first: [Option<Step>; FIRST],
    /// A ring: the oldest is at `lost`, once there are more than it holds.
    last: [Option<Step>; LAST],
    taken: usize,
    /// Steps that were left out between the first and the last.
    lost: usize,
    /// The zone that was asked last before the last steps.
    lost_zone: Option<ZoneId>,
    names_nodes: bool,
}

impl Recording {
    /// No steps yet. Context: any.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: [None; FIRST],
            last: [None; LAST],
            taken: 0,
            lost: 0,
            lost_zone: None,
            names_nodes: false,
        }
    }

    /// Names node 0, too, which goes without saying where there is no other. Context: any.
    #[must_use]
    pub const fn naming_nodes(mut self) -> Self {
        self.names_nodes = true;
        self
    }

    /// The steps that were kept, first one first. Context: any.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        let (newer, older) = self.last.split_at(self.lost.checked_rem(LAST).unwrap_or(0));
        let kept = self.first.iter().chain(older).chain(newer);
        kept.filter_map(|step| *step)
    }

    /// How many steps there was no room for, between the first ones and the last. Context: any.
    #[must_use]
    pub fn lost(&self) -> u64 {
        u64::try_from(self.lost).unwrap_or(u64::MAX)
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace for Recording {
    fn step(&mut self, step: Step) {
        // Its merges tell.
        if matches!(step, Step::Given { .. }) {
            return;
        }
        let number = self.taken;
        self.taken = number.saturating_add(1);
        if let Some(place) = self.first.get_mut(number) {
            *place = Some(step);
            return;
        }
        let place = number.wrapping_sub(FIRST) % LAST;
        if let Some(before) = self.last[place].replace(step) {
            self.lost = self.lost.saturating_add(1);
            self.lost_zone = zone_of(before).or(self.lost_zone);
        }
    }
}

/// The zone that a step names.
const fn zone_of(step: Step) -> Option<ZoneId> {
    match step {
        Step::Zone { home }
        | Step::Exhausted { home }
        | Step::Short { home, .. }
        | Step::Populated { home, .. } => Some(home),
        _ => None,
    }
}

/// Each step in a line of its own.
impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut zone = None;
        let mut number: usize = 0;
        for step in self.steps() {
            if number == FIRST && self.lost > 0 {
                writeln!(f, "    ({} steps are left out here)", self.lost)?;
                number = number.saturating_add(self.lost);
                zone = self.lost_zone.or(zone);
            }
            number = number.saturating_add(1);
            zone = zone_of(step).or(zone);
            let names_nodes = self.names_nodes;
            let sentence = Sentence {
                zone,
                names_nodes,
                step,
            };
            writeln!(f, "{number:>2}. {sentence}")?;
        }
        Ok(())
    }
}

/// A step, and the zone that was asked last.
struct Sentence {
    zone: Option<ZoneId>,
    names_nodes: bool,
    step: Step,
}

impl Sentence {
    fn write_zone(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ZoneId { node, zone }) = self.zone {
            // Most machines have one node, which goes without saying.
            if self.names_nodes || node.0 != 0 {
                write!(f, "node {node}, ")?;
            }
            match ZoneKind::ALL.get(usize::from(zone)) {
                Some(kind) => write!(f, "zone {kind}: ")?,
                None => write!(f, "zone number {zone}: ")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_about_objects(self.step) {
            return write_object(f, self.step);
        }
        self.write_zone(f)?;
        match self.step {
            Step::Zone { .. } => f.write_str("asked"),
            Step::Short { free, floor, .. } => write!(
                f,
                "too little to spare: {free} frames are free, {floor} are kept back"
            ),
            Step::Populated { pfn, .. } => write!(f, "populated the section at frame {pfn}"),
            Step::Found { pfn, order, kind } => {
                let kind = kind.name();
                write!(
                    f,
                    "found a free block of order {order} at frame {pfn} ({kind})"
                )
            }
            Step::Split { upper, order } => write!(
                f,
                "halved it; the upper half at frame {upper} stays free, of order {order}"
            ),
            Step::Claim { pfn, from, to } => {
                let (from, to) = (from.name(), to.name());
                write!(
                    f,
                    "turned the pageblock at frame {pfn} from {from} into {to}"
                )
            }
            Step::Steal { from } => {
                let from = from.name();
                write!(f, "takes a block out of a pageblock that stays {from}")
            }
            Step::Merge { pfn, order } => write!(
                f,
                "merged with the free buddy; the block at frame {pfn} has order {order} now"
            ),
            Step::Exhausted { .. } => f.write_str("has no block that fits"),
            at_hand => write_at_hand(f, at_hand),
        }
    }
}

/// Whether a step is a cache's own: it asks no zone.
const fn is_about_objects(step: Step) -> bool {
    matches!(
        step,
        Step::ObjectAtHand { .. }
            | Step::ObjectsRefilled { .. }
            | Step::NoSlab { .. }
            | Step::ObjectFromSlab { .. }
            | Step::SlabMade { .. }
    )
}

/// What a cache did.
fn write_object(f: &mut fmt::Formatter<'_>, step: Step) -> fmt::Result {
    match step {
        Step::ObjectAtHand { pfn, offset } => write!(
            f,
            "took the object at frame {pfn}, offset {offset}, which this CPU had at hand"
        ),
        Step::ObjectsRefilled { objects } => write!(
            f,
            "this CPU had none at hand, and got {objects} objects of its node's slabs"
        ),
        Step::NoSlab { node } => write!(f, "no slab of node {node} has a free object"),
        Step::ObjectFromSlab { pfn, offset } => write!(
            f,
            "took the object at frame {pfn}, offset {offset}, straight from its slab"
        ),
        Step::SlabMade {
            pfn,
            order,
            objects,
        } => write!(
            f,
            "made the block of order {order} at frame {pfn} a slab of {objects} objects"
        ),
        _ => Ok(()),
    }
}

/// What did not need the free lists.
fn write_at_hand(f: &mut fmt::Formatter<'_>, step: Step) -> fmt::Result {
    match step {
        Step::Latest { pfn, order } => write!(
            f,
            "took the block of order {order} at frame {pfn}, which came back last"
        ),
        Step::Unmerged { pfn, order } => write!(
            f,
            "keeps the block of order {order} at frame {pfn} as it is, to be merged later"
        ),
        Step::Listed { pfn, order } => write!(
            f,
            "took the block of order {order} at frame {pfn} from this CPU's own list"
        ),
        Step::Refilled { blocks, order } => {
            write!(
                f,
                "so this CPU's empty list got {blocks} blocks of order {order}"
            )
        }
        Step::Kept { pfn, order } => write!(
            f,
            "put the block of order {order} at frame {pfn} on this CPU's own list"
        ),
        Step::Drained { frames } => write!(
            f,
            "so this CPU, which had too many, gave {frames} frames back to the zone"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Order, Pfn};
    use crate::buddy::MigrateType;
    use crate::platform::NodeId;

    const fn zone(node: u16, zone: u8) -> ZoneId {
        ZoneId {
            node: NodeId(node),
            zone,
        }
    }

    fn recording(steps: &[Step]) -> Recording {
        let mut recording = Recording::new();
        steps.iter().for_each(|step| recording.step(*step));
        recording
    }

    #[test]
    fn every_kind_of_step_is_a_sentence() {
        let order = |order| Order::new(order).unwrap();
        let steps = [
            Step::Zone { home: zone(0, 2) },
            Step::Exhausted { home: zone(0, 2) },
            Step::Zone { home: zone(0, 1) },
            Step::Claim {
                pfn: Pfn::new(0x1fc00),
                from: MigrateType::Movable,
                to: MigrateType::Unmovable,
            },
            Step::Found {
                pfn: Pfn::new(0x1fc00),
                order: Order::MAX,
                kind: MigrateType::Unmovable,
            },
            Step::Split {
                upper: Pfn::new(0x1fe00),
                order: Order::PAGEBLOCK,
            },
            Step::Steal {
                from: MigrateType::Reclaimable,
            },
            Step::Populated {
                home: zone(0, 2),
                pfn: Pfn::new(0x8000),
            },
        ];
        let expected = " \
 1. zone Normal: asked
 2. zone Normal: has no block that fits
 3. zone DMA32: asked
 4. zone DMA32: turned the pageblock at frame 0x1fc00 from Movable into Unmovable
 5. zone DMA32: found a free block of order 10 at frame 0x1fc00 (Unmovable)
 6. zone DMA32: halved it; the upper half at frame 0x1fe00 stays free, of order 9
 7. zone DMA32: takes a block out of a pageblock that stays Reclaimable
 8. zone Normal: populated the section at frame 0x8000
";
        assert_eq!(recording(&steps).to_string(), expected);

        let merge = Step::Merge {
            pfn: Pfn::new(0x40),
            order: order(3),
        };
        assert_eq!(
            recording(&[merge]).to_string(),
            " 1. merged with the free buddy; the block at frame 0x40 has order 3 now\n"
        );
    }

    #[test]
    fn what_is_at_hand_is_named() {
        let listed = [
            Step::Latest {
                pfn: Pfn::new(0x80),
                order: Order::MAX,
            },
            Step::Unmerged {
                pfn: Pfn::new(0x80),
                order: Order::MAX,
            },
            Step::Refilled {
                blocks: 63,
                order: Order::ZERO,
            },
            Step::Listed {
                pfn: Pfn::new(0x40),
                order: Order::ZERO,
            },
            Step::Kept {
                pfn: Pfn::new(0x40),
                order: Order::ZERO,
            },
            Step::Drained { frames: 126 },
        ];
        let expected = " \
 1. took the block of order 10 at frame 0x80, which came back last
 2. keeps the block of order 10 at frame 0x80 as it is, to be merged later
 3. so this CPU's empty list got 63 blocks of order 0
 4. took the block of order 0 at frame 0x40 from this CPU's own list
 5. put the block of order 0 at frame 0x40 on this CPU's own list
 6. so this CPU, which had too many, gave 126 frames back to the zone
";
        assert_eq!(recording(&listed).to_string(), expected);
    }

    #[test]
    fn objects_ask_no_zone() {
        let order = Order::ZERO;
        let (pfn, offset) = (Pfn::new(0x123), 64);
        let steps = [
            Step::NoSlab { node: NodeId(0) },
            Step::Zone { home: zone(0, 2) },
            Step::Listed { pfn, order },
            Step::SlabMade {
                pfn,
                order,
                objects: 64,
            },
            Step::ObjectsRefilled { objects: 32 },
            Step::ObjectAtHand { pfn, offset },
            Step::ObjectFromSlab { pfn, offset },
        ];
        let expected = " \
 1. no slab of node 0 has a free object
 2. zone Normal: asked
 3. zone Normal: took the block of order 0 at frame 0x123 from this CPU's own list
 4. made the block of order 0 at frame 0x123 a slab of 64 objects
 5. this CPU had none at hand, and got 32 objects of its node's slabs
 6. took the object at frame 0x123, offset 64, which this CPU had at hand
 7. took the object at frame 0x123, offset 64, straight from its slab
";
        assert_eq!(recording(&steps).to_string(), expected);
    }

    #[test]
    fn other_nodes_and_unknown_zones_are_named() {
        let steps = [3, 9].map(|index| Step::Zone {
            home: zone(2, index),
        });
        let expected = " \
 1. node 2, zone Movable: asked
 2. node 2, zone number 9: asked
";
        assert_eq!(recording(&steps).to_string(), expected);
    }

    #[test]
    fn node_0_is_named_where_there_are_others() {
        let mut recording = Recording::new().naming_nodes();
        recording.step(Step::Zone { home: zone(0, 1) });
        assert_eq!(recording.to_string(), " 1. node 0, zone DMA32: asked\n");
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_in_the_middle() {
        let ask = |node| Step::Zone {
            home: zone(node, 0),
        };
        let mut recording = recording(&[]);
        for node in 0..70 {
            recording.step(ask(node));
        }
        let end = Step::Drained { frames: 7 };
        recording.step(end);
        assert_eq!(recording.steps().count(), FIRST + LAST);
        assert_eq!(recording.lost(), 7);
        let kept: Vec<Step> = recording.steps().collect();
        assert_eq!(kept[..FIRST], (0..16).map(ask).collect::<Vec<_>>());
        assert_eq!(kept[FIRST], ask(23));
        let text = recording.to_string();
        let gap = "16. node 15, zone DMA: asked\n    (7 steps are left out here)\n24. node 23, zone DMA: asked\n";
        assert!(text.contains(gap), "{text}");
        assert!(text.ends_with("71. node 69, zone DMA: so this CPU, which had too many, gave 7 frames back to the zone\n"), "{text}");

        // A zone that only a step names which was left out.
        let mut halved = Recording::new();
        halved.step(ask(0));
        (0..FIRST).for_each(|_| halved.step(end));
        halved.step(ask(3));
        (0..LAST + 1).for_each(|_| {
            halved.step(Step::Steal {
                from: MigrateType::Movable,
            })
        });
        let text = halved.to_string();
        assert!(
            text.ends_with(
                "node 3, zone DMA: takes a block out of a pageblock that stays Movable\n"
            ),
            "{text}"
        );
    }
}
