//! Blocks that become slabs, and what becomes of them.

use crate::addr::{Order, Pfn, PfnRange, PhysAddr};
use crate::frame::slab::{SlabTag, SlabUse};
use crate::frame::{Frame, FrameTable, Kind, ZoneId};
use crate::mem::Exclusive;
use crate::platform::Platform;

/// The first frame of a slab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlabFrame<'a> {
    pub(crate) pfn: Pfn,
    pub(crate) frame: &'a Frame,
    /// What its records say.
    pub(crate) tag: SlabTag,
    /// Number of the cache.
    pub(crate) cache: u16,
    pub(crate) home: ZoneId,
    pub(crate) order: Order,
}

impl FrameTable {
    /// Makes a block a slab of a cache, whose slabs are usually of an order: its token is given up, its records say
    /// so.
    ///
    /// # Errors
    /// The token, if it is not for a block of this table.
    pub(crate) fn make_slab(
        &self,
        block: Exclusive,
        (cache, usual): (u16, Order),
    ) -> Result<SlabFrame<'_>, Exclusive> {
        let (frames, order) = (block.frames(), block.order());
        let Some(head) = self.frame(frames.first()) else {
            return Err(block);
        };
        let word = head.word().for_kind(Kind::Slab);
        let tag = SlabTag::new(cache, word.zone_id().node);
        let tag = if order == usual { tag } else { tag.odd() };
        for (behind, pfn) in (0..).zip(frames.iter()) {
            if let Some(frame) = self.frame(pfn) {
                frame.set_slab_tag(tag, behind);
            }
        }
        head.publish(word);
        let _ = block.leak();
        Ok(SlabFrame {
            pfn: frames.first(),
            frame: head,
            tag,
            cache,
            home: word.zone_id(),
            order,
        })
    }

    /// The slab that a frame belongs to, if it does.
    #[inline(always)]
    pub(crate) fn slab_at(&self, pfn: Pfn) -> Option<SlabFrame<'_>> {
        let mut frame = self.frame(pfn)?;
        let tag = frame.slab_tag()?;
        let (mut pfn, mut word) = (pfn, frame.word_acquire());
        if !word.is_slab() {
            let behind = u64::from(frame.behind_in_slab());
            pfn = Pfn::new(pfn.as_u64().wrapping_sub(behind));
            // What a frame behind the first says may be left over; the first one's word is not.
            frame = self
                .frame(pfn)
                .filter(|first| first.slab_tag() == Some(tag))?;
            word = frame.word_acquire();
        }
        word.is_slab().then(|| SlabFrame {
            pfn,
            frame,
            tag,
            cache: tag.cache(),
            home: word.zone_id(),
            order: word.order(),
        })
    }

    /// Whose slab the frame at an address belongs to, or anything, if it has a record.
    #[inline(always)]
    pub(crate) fn slab_tag_at<P: Platform>(&self, at: PhysAddr) -> Option<SlabTag> {
        Some(self.glance::<P>(at.frame())?.slab_tag_hint())
    }

    /// Turns a slab without taken objects, which is on no list, back into its token. Context: whoever took
    /// the last object back, or made it.
    ///
    /// # Errors
    /// How many objects are taken, or nothing if it is no slab; nothing is changed then.
    pub(crate) fn end_slab(&self, slab: SlabFrame<'_>) -> Result<Exclusive, SlabUse> {
        let found = slab.frame.slab_use();
        let word = slab.frame.word();
        if found.taken != 0 || !word.is_slab() {
            return Err(found);
        }
        // One caller wins.
        let plain = word.for_kind(Kind::Plain);
        slab.frame.exchange(word, plain).map_err(|_| found)?;
        let frames = PfnRange::block(slab.pfn, slab.order);
        for pfn in frames.iter() {
            if let Some(frame) = self.frame(pfn) {
                frame.clear_slab_tag();
            }
        }
        slab.frame.set_next_slab(None);
        slab.frame.set_private(0);
        // SAFETY: (1) the token was consumed by `make_slab`, all objects are back, and the exchange lets
        // one caller through; (2) only adopted frames become slabs.
        Ok(unsafe { Exclusive::new(frames) })
    }
}
