//! What a frame is used for, in words and colours: the same for all who draw frame maps.
#![forbid(unsafe_code)]

use crate::buddy::MigrateType;
use crate::frame::{FrameState, Kind, PageFlags, Word};

/// What a frame is used for, as far as its record and the page tables say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Owner {
    /// No RAM, or none that the allocator was told of.
    #[default]
    Hole,
    /// RAM whose section was not looked at yet: free, without records.
    Latent,
    /// Free, in a pageblock of this type.
    Free(MigrateType),
    /// On a CPU's own list.
    PerCpu,
    /// Objects of a cache.
    Slab,
    /// A page table.
    PageTable,
    /// Mapped in an area of kernel addresses.
    Vmalloc,
    /// The same, and somebody's stack.
    Stack,
    /// Whatever its owner likes.
    Used,
    /// Reference-counted.
    Shared,
    /// Never handed to the allocator: the kernel, the firmware's tables, records of frames.
    Reserved,
    /// Damaged.
    Poisoned,
}

/// A colour on a screen: red, green, blue.
pub type Rgb = [u8; 3];

impl Owner {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// All of them, as legends list them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Free(MigrateType::Unmovable),
        Self::Free(MigrateType::Movable),
        Self::Free(MigrateType::Reclaimable),
        Self::Free(MigrateType::HighAtomic),
        Self::Free(MigrateType::Cma),
        Self::Free(MigrateType::Isolate),
        Self::Latent,
        Self::PerCpu,
        Self::Slab,
        Self::PageTable,
        Self::Vmalloc,
        Self::Stack,
        Self::Used,
        Self::Shared,
        Self::Reserved,
        Self::Poisoned,
        Self::Hole,
    ];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Free(kind) => kind.index(),
            Self::Latent => 6,
            Self::PerCpu => 7,
            Self::Slab => 8,
            Self::PageTable => 9,
            Self::Vmalloc => 10,
            Self::Stack => 11,
            Self::Used => 12,
            Self::Shared => 13,
            Self::Reserved => 14,
            Self::Poisoned => 15,
            Self::Hole => 16,
        }
    }

    /// What it is called in a legend.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free(MigrateType::Unmovable) => "free, unmovable",
            Self::Free(MigrateType::Movable) => "free, movable",
            Self::Free(MigrateType::Reclaimable) => "free, reclaimable",
            Self::Free(MigrateType::HighAtomic) => "free, high-atomic",
            Self::Free(MigrateType::Cma) => "free, CMA",
            Self::Free(MigrateType::Isolate) => "free, isolated",
            Self::Latent => "free, no records yet",
            Self::PerCpu => "per-CPU lists",
            Self::Slab => "slab",
            Self::PageTable => "page tables",
            Self::Vmalloc => "vmalloc",
            Self::Stack => "kernel stacks",
            Self::Used => "in use",
            Self::Shared => "in use, shared",
            Self::Reserved => "reserved",
            Self::Poisoned => "damaged",
            Self::Hole => "no RAM",
        }
    }

    /// Its colour: free memory is green to blue and dark, what is used is warm and bright.
    #[must_use]
    pub const fn colour(self) -> Rgb {
        match self {
            Self::Free(MigrateType::Unmovable) => [0x1f, 0x5a, 0x3c],
            Self::Free(MigrateType::Movable) => [0x2f, 0x8f, 0x57],
            Self::Free(MigrateType::Reclaimable) => [0x1e, 0x7d, 0x7d],
            Self::Free(MigrateType::HighAtomic) => [0x2b, 0x5f, 0xa8],
            Self::Free(MigrateType::Cma) => [0x57, 0x4b, 0xa8],
            Self::Free(MigrateType::Isolate) => [0x5c, 0x66, 0x70],
            Self::Latent => [0x16, 0x34, 0x2a],
            Self::PerCpu => [0x8f, 0xd4, 0x6a],
            Self::Slab => [0xe0, 0x8a, 0x2e],
            Self::PageTable => [0xd6, 0x4f, 0x9c],
            Self::Vmalloc => [0xc9, 0xa2, 0x27],
            Self::Stack => [0xf2, 0xd9, 0x66],
            Self::Used => [0xd1, 0x4b, 0x3c],
            Self::Shared => [0xa8, 0x66, 0xd1],
            Self::Reserved => [0x8a, 0x93, 0x9e],
            Self::Poisoned => [0xff, 0xff, 0xff],
            Self::Hole => [0x0d, 0x11, 0x17],
        }
    }

    /// What the frames of a block are used for, by the state word of its first frame; nothing where no block starts. `is_aligned`
    /// says whether the frame's number is a multiple of the block's frames, `kind` of which type its pageblock is.
    /// Context: any.
    #[must_use]
    pub fn of_block(word: Word, is_aligned: bool, kind: MigrateType) -> Option<Self> {
        let owner = match word.state()? {
            FrameState::Reserved => return Some(Self::Reserved),
            _ if !is_aligned => return None,
            FrameState::Interior => return None,
            FrameState::Free => Self::Free(kind),
            FrameState::Cached => Self::PerCpu,
            _ if word.flags().contains(PageFlags::HWPOISON) => Self::Poisoned,
            _ if word.is_for(Kind::Table) => Self::PageTable,
            _ if word.is_slab() => Self::Slab,
            FrameState::Unique => Self::Used,
            FrameState::Shared => Self::Shared,
        };
        Some(owner)
    }

    /// What frames are used for that are mapped in an area which this file of the source asked for. Context: any.
    #[must_use]
    pub fn of_area(file: &str) -> Self {
        match file.contains("/stack.rs") || file.contains("/stacks.rs") {
            true => Self::Stack,
            false => Self::Vmalloc,
        }
    }

    /// Whether it is free for whoever asks.
    #[must_use]
    pub const fn is_free(self) -> bool {
        matches!(self, Self::Free(_) | Self::Latent)
    }
}

/// Shows what the frames of a section without records are used for: `sink` is told of ranges by first frame, number of frames
/// and use, later ones first in rank. `free` are all ranges that were handed over free, from a frame to behind another, and
/// `metadata` how many frames go to records when the section gets them. Context: any.
pub fn latent_section(
    free: impl Iterator<Item = (u64, u64)>,
    (first, frames): (u64, u64),
    metadata: u64,
    mut sink: impl FnMut(u64, u64, Owner),
) {
    let mut highest: Option<u64> = None;
    for (start, end) in free {
        let (start, end) = (start.max(first), end.min(first.saturating_add(frames)));
        let inside = end.saturating_sub(start);
        if inside > 0 {
            sink(start, inside, Owner::Latent);
        }
        if inside > 0 && inside >= metadata && highest.is_none_or(|before| before < end) {
            highest = Some(end);
        }
    }
    // Its records go there.
    if let Some(end) = highest {
        sink(end.saturating_sub(metadata), metadata, Owner::Reserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::vec::Vec;

    #[test]
    fn each_has_a_place_a_name_and_a_colour() {
        for (place, owner) in Owner::ALL.into_iter().enumerate() {
            assert_eq!(owner.index(), place);
        }
        let names: HashSet<_> = Owner::ALL.into_iter().map(Owner::name).collect();
        let colours: HashSet<_> = Owner::ALL.into_iter().map(Owner::colour).collect();
        assert_eq!((names.len(), colours.len()), (Owner::COUNT, Owner::COUNT));
    }

    #[test]
    fn records_of_a_latent_section_go_to_the_end_of_its_highest_free_range() {
        let mut marks = Vec::new();
        let free = [(0, 40), (50, 70), (90, 300)].into_iter();
        latent_section(free, (32, 64), 8, |first, count, owner| {
            marks.push((first, count, owner))
        });
        let (free, used) = (Owner::Latent, Owner::Reserved);
        assert_eq!(
            marks,
            [(32, 8, free), (50, 20, free), (90, 6, free), (62, 8, used)]
        );
    }
}
