//! What a frame is used for, and the colour for it.

use mm::buddy::MigrateType;

/// What a frame is used for, as far as its record and the page tables say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Owner {
    /// No RAM, or none that the allocator was told of.
    #[default]
    Hole,
    /// RAM whose section was not looked at yet: free, without records.
    Latent,
    /// Free, in a pageblock of this type.
    Free(Type),
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

/// Migrate types that free frames can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "as in `MigrateType`")]
pub enum Type {
    Unmovable,
    Movable,
    Reclaimable,
    HighAtomic,
    Cma,
    Isolate,
}

impl From<MigrateType> for Type {
    fn from(kind: MigrateType) -> Self {
        match kind {
            MigrateType::Unmovable => Self::Unmovable,
            MigrateType::Movable => Self::Movable,
            MigrateType::Reclaimable => Self::Reclaimable,
            MigrateType::HighAtomic => Self::HighAtomic,
            MigrateType::Cma => Self::Cma,
            MigrateType::Isolate => Self::Isolate,
        }
    }
}

/// A colour on a screen: red, green, blue.
pub type Rgb = [u8; 3];

impl Owner {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// All of them, as legends list them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Free(Type::Unmovable),
        Self::Free(Type::Movable),
        Self::Free(Type::Reclaimable),
        Self::Free(Type::HighAtomic),
        Self::Free(Type::Cma),
        Self::Free(Type::Isolate),
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
            Self::Free(kind) => kind as usize,
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
            Self::Free(Type::Unmovable) => "free, unmovable",
            Self::Free(Type::Movable) => "free, movable",
            Self::Free(Type::Reclaimable) => "free, reclaimable",
            Self::Free(Type::HighAtomic) => "free, high-atomic",
            Self::Free(Type::Cma) => "free, CMA",
            Self::Free(Type::Isolate) => "free, isolated",
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
            Self::Free(Type::Unmovable) => [0x1f, 0x5a, 0x3c],
            Self::Free(Type::Movable) => [0x2f, 0x8f, 0x57],
            Self::Free(Type::Reclaimable) => [0x1e, 0x7d, 0x7d],
            Self::Free(Type::HighAtomic) => [0x2b, 0x5f, 0xa8],
            Self::Free(Type::Cma) => [0x57, 0x4b, 0xa8],
            Self::Free(Type::Isolate) => [0x5c, 0x66, 0x70],
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

    /// Whether it is free for whoever asks.
    #[must_use]
    pub const fn is_free(self) -> bool {
        matches!(self, Self::Free(_) | Self::Latent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_has_a_place_a_name_and_a_colour() {
        for (place, owner) in Owner::ALL.into_iter().enumerate() {
            assert_eq!(owner.index(), place);
        }
        let names: HashSet<_> = Owner::ALL.into_iter().map(Owner::name).collect();
        let colours: HashSet<_> = Owner::ALL.into_iter().map(Owner::colour).collect();
        assert_eq!((names.len(), colours.len()), (Owner::COUNT, Owner::COUNT));
    }
}
