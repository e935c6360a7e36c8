//! The record of a frame, from its bytes.
#![forbid(unsafe_code)]

use super::format::Reader;
use crate::frame::Word;
use crate::frame::slab::{SlabTag, SlabUse};
use crate::platform::NodeId;

/// A copy of the record of a frame; the table at [`crate::frame`] says what its words mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The state word.
    pub word: Word,
    /// References, or whose objects these are.
    pub refs: u32,
    /// Mappings, or which objects are taken.
    pub maps: u32,
    /// Neighbours.
    pub link: u64,
    /// The owner's.
    pub private: u64,
}

/// What the record of a slab says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabRecord {
    /// The number of its cache.
    pub cache: u16,
    /// The node that it lies on.
    pub node: NodeId,
    /// Objects that are not free in it, those that CPUs have at hand included.
    pub taken: u16,
}

impl Record {
    /// Bytes of a record.
    pub const BYTES: usize = 32;

    /// From bytes, if there are as many.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            word: Word::from_bits(reader.u64()?),
            refs: reader.u32()?,
            maps: reader.u32()?,
            link: reader.u64()?,
            private: reader.u64()?,
        })
    }

    /// What it says of a slab, if it is the first record of one.
    #[must_use]
    pub fn slab(&self) -> Option<SlabRecord> {
        let tag = SlabTag::found(self.refs).filter(|_| self.word.is_slab())?;
        Some(SlabRecord {
            cache: tag.cache(),
            node: tag.node(),
            taken: SlabUse::from_bits(self.maps).taken,
        })
    }
}
