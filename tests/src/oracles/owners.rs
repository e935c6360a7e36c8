//! Who owns which frames, kept beside the library (oracle O2).

use std::collections::BTreeMap;

use mm::addr::{Pfn, PfnRange};
use mm::config::PAGE_SIZE;

use crate::sim::Ram;

/// Places in each page that carry the owner's stamp, in words of eight bytes.
const STAMPED: [u64; 3] = [0, 255, 511];

/// Whether pages come zeroed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contents {
    /// They must.
    Zeroed,
    /// They may hold anything.
    Any,
}

/// Live blocks and their owners' stamps. Every page of a block is stamped when it is taken and
/// read again before it is given back.
#[derive(Debug)]
pub struct Owners {
    blocks: BTreeMap<Pfn, (PfnRange, u64)>,
    next_stamp: u64,
    contents: Contents,
}

impl Owners {
    /// Nobody owns anything; pages may hold anything when they are taken.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            blocks: BTreeMap::new(),
            next_stamp: 1,
            contents: Contents::Any,
        }
    }

    /// As [`new`](Self::new), but pages must hold zeroes when they are taken.
    #[must_use]
    pub fn of_zeroed() -> Self {
        Self {
            contents: Contents::Zeroed,
            ..Self::new()
        }
    }

    /// How many blocks are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Live blocks, lowest first.
    pub fn blocks(&self) -> impl Iterator<Item = PfnRange> {
        self.blocks.values().map(|(frames, _)| *frames)
    }

    /// Somebody was given these frames.
    ///
    /// # Panics
    /// If one has an owner already, is no RAM, or is not zeroed where it must be.
    pub fn took(&mut self, ram: &Ram, frames: PfnRange) {
        assert!(!frames.is_empty(), "O2: an empty block");
        let below = self.blocks.range(..frames.end()).next_back();
        if let Some((_, (theirs, _))) = below {
            let apart = theirs.end() <= frames.first();
            assert!(apart, "O2: {frames:?} overlaps the live block {theirs:?}");
        }
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        for pfn in frames.iter() {
            for (word, place) in Self::stamps(ram, pfn) {
                // SAFETY: `stamps` gives aligned pointers into RAM, and the frames were just
                // handed to this test alone.
                let found = unsafe { word.read() };
                if self.contents == Contents::Zeroed {
                    assert_eq!(found, 0, "word {place} of frame {pfn} is not zeroed");
                }
                // SAFETY: as above.
                unsafe { word.write(stamp ^ pfn.as_u64() << 32) };
            }
        }
        self.blocks.insert(frames.first(), (frames, stamp));
    }

    /// The owner of the block that starts at `first` is about to give it back.
    ///
    /// # Panics
    /// If nobody owns it, or somebody else has written to it.
    pub fn giving(&mut self, ram: &Ram, first: Pfn) -> PfnRange {
        let block = self.blocks.remove(&first);
        let (frames, stamp) = block.unwrap_or_else(|| panic!("O2: nobody owns {first}"));
        for pfn in frames.iter() {
            for (word, place) in Self::stamps(ram, pfn) {
                // SAFETY: as in `took`: the frames are still this test's.
                let found = unsafe { word.read() };
                let ours = stamp ^ pfn.as_u64() << 32;
                assert_eq!(
                    found, ours,
                    "O2: word {place} of frame {pfn} was overwritten"
                );
            }
        }
        frames
    }

    fn stamps(ram: &Ram, pfn: Pfn) -> impl Iterator<Item = (*mut u64, u64)> {
        let page = PfnRange::from_count(pfn, 1).unwrap().addrs();
        assert_eq!(page.size(), PAGE_SIZE, "frame {pfn} has no address");
        let first = ram
            .at(page)
            .unwrap_or_else(|| panic!("frame {pfn} is no RAM"));
        let words = first.as_ptr().cast::<u64>();
        STAMPED
            .iter()
            .map(move |&place| (words.wrapping_add(place as usize), place))
    }
}

impl Default for Owners {
    fn default() -> Self {
        Self::new()
    }
}
