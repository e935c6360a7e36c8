//! What the records of a slab say: whose it is, and which of its objects are free.
//!
//! Every record of a slab names the cache and the node, and those behind the first say how far that is: an object
//! may be anywhere in it.
#![forbid(unsafe_code)]

use super::Frame;
use crate::addr::Pfn;
use crate::platform::NodeId;
use crate::sync::RefCount;
use crate::sync::atomic::Ordering;

/// In the upper byte of `refs` of every frame of a slab: a note, so that nobody takes it for a count. Nodes and
/// caches have ten bits each.
const TAG: u32 = RefCount::note(1 << 24);
const TAG_MASK: u32 = 0xff << 24;
const NODE_SHIFT: u32 = 14;
const ID_MASK: u32 = 0x3ff;

/// The slab is not of its cache's usual order.
const ODD: u32 = 1 << 12;

/// Whose a frame of a slab is: all of them say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlabTag(u32);

impl SlabTag {
    /// That of no slab.
    pub(crate) const NONE: Self = Self(0);

    /// Of slabs of a cache, by number, that lie on a node.
    #[inline]
    pub(crate) const fn new(cache: u16, node: NodeId) -> Self {
        // One more: no record of a frame that is in no slab says 1 or more there.
        Self(TAG | wide(node.0) << NODE_SHIFT | wide(cache.wrapping_add(1)))
    }

    /// That of slabs that are not of their cache's usual order: their objects are not among those that a CPU has at
    /// hand and checks without a look at the slab.
    pub(crate) const fn odd(self) -> Self {
        Self(self.0 | ODD)
    }

    /// Number of the cache.
    #[inline(always)]
    pub(crate) const fn cache(self) -> u16 {
        narrow(self.0).wrapping_sub(1)
    }

    /// What stands in a record, if it is that.
    pub(crate) fn found(refs: u32) -> Option<Self> {
        (refs & TAG_MASK == TAG).then_some(Self(refs))
    }

    /// The node that the slab lies on.
    pub(crate) const fn node(self) -> NodeId {
        NodeId(narrow(self.0 >> NODE_SHIFT))
    }

    /// The way to the objects of that cache: the lower eight bits of the number after its own. 0 leads nowhere.
    #[inline(always)]
    pub(crate) const fn way(self) -> u8 {
        let [low, ..] = self.0.to_le_bytes();
        low
    }
}

/// Which objects of a slab are free: those on its list, and those from `fresh` on, which never had an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlabUse {
    /// Objects that are not free.
    pub(crate) taken: u16,
    /// The first on the list, or [`END`](Self::END).
    pub(crate) free: u16,
    /// The first that never had an owner; as many as there are if all had.
    pub(crate) fresh: u16,
}

impl SlabUse {
    /// The number of no object: the end of a list.
    pub(crate) const END: u16 = 0x3ff;
    /// That of a slab whose objects are all fresh.
    pub(crate) const FRESH: Self = Self {
        taken: 0,
        free: Self::END,
        fresh: 0,
    };

    /// Three times ten bits.
    const fn bits(self) -> u32 {
        let [taken, free, fresh] = [wide(self.taken), wide(self.free), wide(self.fresh)];
        taken | free << 10 | fresh << 20
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self {
            taken: narrow(bits),
            free: narrow(bits >> 10),
            fresh: narrow(bits >> 20),
        }
    }
}

const fn wide(number: u16) -> u32 {
    let [low, high] = number.to_le_bytes();
    u32::from_le_bytes([low, high, 0, 0]) & ID_MASK
}

const fn narrow(bits: u32) -> u16 {
    let [low, high, _, _] = (bits & ID_MASK).to_le_bytes();
    u16::from_le_bytes([low, high])
}

impl Frame {
    /// Says that the frame belongs to a slab, and how many frames of it are before this one.
    pub(crate) fn set_slab_tag(&self, tag: SlabTag, behind: u32) {
        self.refs().set_note(tag.0);
        self.maps().store(behind, Ordering::Relaxed);
    }

    /// Says that it does not any more.
    pub(crate) fn clear_slab_tag(&self) {
        self.set_slab_tag(SlabTag::NONE, 0);
    }

    /// Whose slab the frame belongs to, or anything. That is a hint: the first frame's state word knows.
    #[inline(always)]
    pub(crate) fn slab_tag_hint(&self) -> SlabTag {
        SlabTag(self.refs().get())
    }

    /// Whose slab the frame belongs to, if it belongs to one; a hint too.
    #[inline]
    pub(crate) fn slab_tag(&self) -> Option<SlabTag> {
        SlabTag::found(self.slab_tag_hint().0)
    }

    /// How many frames of the slab are before this one, if it is not the first.
    #[inline]
    pub(crate) fn behind_in_slab(&self) -> u32 {
        self.maps().load(Ordering::Relaxed)
    }

    /// Which objects are free. Context: the lock of the node's slabs of the cache is held.
    #[inline]
    pub(crate) fn slab_use(&self) -> SlabUse {
        SlabUse::from_bits(self.maps().load(Ordering::Relaxed))
    }

    /// Says which objects are free. Context: as [`Self::slab_use`].
    #[inline]
    pub(crate) fn set_slab_use(&self, slab: SlabUse) {
        self.maps().store(slab.bits(), Ordering::Relaxed);
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
