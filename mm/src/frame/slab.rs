//! What the records of a slab say: whose it is, and which of its objects are free.
//!
//! Every record of a slab names the cache, and how far the first one is: an object may be anywhere in it.
#![forbid(unsafe_code)]

use super::Frame;
use crate::addr::Pfn;
use crate::sync::atomic::Ordering;

/// In the upper byte of `refs` of every frame of a slab.
const TAG: u32 = 0x51 << 24;
const TAG_MASK: u32 = 0xff << 24;
const BEHIND_SHIFT: u32 = 16;

/// Whose a frame of a slab is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlabTag {
    /// Number of the cache.
    pub(crate) cache: u16,
    /// How many frames of the slab are before this one.
    pub(crate) behind: u8,
}

impl SlabTag {
    /// That of the first frame.
    #[inline(always)]
    pub(crate) const fn first(self) -> Self {
        Self { behind: 0, ..self }
    }
}

/// Which objects of a slab are free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlabUse {
    /// Objects that are not on the slab's list of free ones.
    pub(crate) taken: u16,
    /// The first on that list.
    pub(crate) free: u16,
}

impl Frame {
    /// Says that the frame belongs to a slab.
    pub(crate) fn set_slab_tag(&self, tag: SlabTag) {
        let bits = TAG | u32::from(tag.behind) << BEHIND_SHIFT | u32::from(tag.cache);
        self.refs().set(bits);
    }

    /// Says that it does not any more.
    pub(crate) fn clear_slab_tag(&self) {
        self.refs().set(0);
    }

    /// Whose slab the frame belongs to, if it belongs to one. That is a hint: the first frame's state word
    /// knows.
    #[inline]
    pub(crate) fn slab_tag(&self) -> Option<SlabTag> {
        let bits = self.refs().get();
        let [low, high, behind, _] = bits.to_le_bytes();
        (bits & TAG_MASK == TAG).then_some(SlabTag {
            cache: u16::from_le_bytes([low, high]),
            behind,
        })
    }

    /// Which objects are free. Context: the lock of the node's slabs of the cache is held.
    #[inline]
    pub(crate) fn slab_use(&self) -> SlabUse {
        let [low, high, next, last] = self.maps().load(Ordering::Relaxed).to_le_bytes();
        SlabUse {
            taken: u16::from_le_bytes([low, high]),
            free: u16::from_le_bytes([next, last]),
        }
    }

    /// Says which objects are free. Context: as [`Self::slab_use`].
    #[inline]
    pub(crate) fn set_slab_use(&self, slab: SlabUse) {
        let bits = u32::from(slab.free) << 16 | u32::from(slab.taken);
        self.maps().store(bits, Ordering::Relaxed);
    }

    /// The neighbours in a list of slabs: the next one, and the one before.
    pub(crate) fn slab_links(&self) -> (Option<Pfn>, Option<Pfn>) {
        (pfn_of(self.link()), pfn_of(self.private()))
    }

    /// Changes the next one.
    pub(crate) fn set_next_slab(&self, next: Option<Pfn>) {
        self.set_link(bits_of(next));
    }

    /// Changes the one before.
    pub(crate) fn set_previous_slab(&self, previous: Option<Pfn>) {
        self.set_private(bits_of(previous));
    }
}

const END: u64 = u64::MAX;

fn pfn_of(bits: u64) -> Option<Pfn> {
    (bits != END).then(|| Pfn::new(bits))
}

fn bits_of(pfn: Option<Pfn>) -> u64 {
    pfn.map_or(END, Pfn::as_u64)
}
