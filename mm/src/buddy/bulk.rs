//! Many blocks at once, between a zone's free areas and the lists of a CPU.
#![forbid(unsafe_code)]

use super::area::smallest_from;
use super::fallback::Mixing;
use super::free_areas::FreeAreas;
use super::pageset::List;
use super::take::ATTEMPTS;
use super::trace::{Step, Trace};
use crate::addr::{Order, Pfn, to_index};
use crate::frame::{FrameTable, Record, Word};
use crate::mem::Exclusive;
use crate::platform::Platform;

impl FreeAreas {
    /// Takes up to `count` blocks for a list; each goes to `put`. They are cut out of whatever is
    /// free, large blocks in one piece. Answers how many there were. Context: zone lock held.
    pub(crate) fn fetch<P: Platform>(
        &mut self,
        list: List,
        (count, mixing): (u32, Mixing),
        frames: &FrameTable,
        platform: &P,
        trace: &mut impl Trace,
        mut put: impl FnMut(Pfn, Record),
    ) -> u32 {
        let (kind, order) = (list.kind(), list.order());
        let cached = list.word(self.home);
        let mut got: u32 = 0;
        let mut attempts: usize = 0;
        while got < count && attempts < ATTEMPTS {
            let left = count.wrapping_sub(got);
            let Some((source, largest)) = self.source(kind, order) else {
                if got > 0 {
                    break;
                }
                // Other types' blocks: one, or a whole pageblock that is ours from now on.
                let word = Word::unique(self.home, order, kind.bits());
                let found = self.take_fallback(order, kind, word, mixing, platform, trace);
                let Some(block) = found else {
                    break;
                };
                frames.cache_pieces(block, cached, &mut put);
                got = got.wrapping_add(1);
                continue;
            };
            let Some(place) = self.lowest(source, largest) else {
                break;
            };
            let Some(Some(area)) = self.areas.get(to_index(place.slot)) else {
                break;
            };
            // The smallest block there is, but no more of it than is wanted.
            let there = smallest_from(area.blocks[place.block & 63].orders, order);
            let most = order.plus(left.ilog2());
            let size = there.map_or(order, |there| there.min(most));
            let word = Word::unique(self.home, size, kind.bits());
            match self.take_at::<P>(place, size, word, trace) {
                Ok(block) => {
                    frames.cache_pieces(block, cached, &mut put);
                    let pieces = size.as_u8().wrapping_sub(order.as_u8());
                    got = got.wrapping_add(1_u32.wrapping_shl(u32::from(pieces)));
                }
                Err(Some(corruption)) => {
                    platform.corruption(&corruption);
                    attempts = attempts.wrapping_add(1);
                }
                Err(None) => break,
            }
        }
        got
    }

    /// Takes blocks back from a list; they are sorted by address, so that neighbours go in as one.
    /// Context: zone lock held.
    pub(crate) fn give_back<P: Platform>(
        &mut self,
        list: List,
        sorted: &[Pfn],
        frames: &FrameTable,
        platform: &P,
        trace: &mut impl Trace,
    ) {
        let cached = list.word(self.home);
        let mut run: Option<Exclusive> = None;
        for &pfn in sorted {
            let block = match frames.uncache::<P>(pfn, cached, Word::INTERIOR) {
                Ok(block) => block,
                Err(corruption) => {
                    platform.corruption(&corruption);
                    continue;
                }
            };
            run = Some(match run.take() {
                None => block,
                Some(before) => match before.join(block) {
                    Ok(longer) => longer,
                    Err((before, block)) => {
                        self.give_run(before, trace);
                        block
                    }
                },
            });
        }
        if let Some(run) = run {
            self.give_run(run, trace);
        }
    }

    /// Takes back neighbouring frames, which have areas.
    fn give_run(&mut self, run: Exclusive, trace: &mut impl Trace) {
        for (pfn, order) in run.leak().blocks(Order::PAGEBLOCK) {
            let section = pfn.section().wrapping_sub(self.first_section);
            trace.step(Step::Given { pfn, order });
            self.insert(section, pfn.section_offset(), order, trace);
        }
    }
}
