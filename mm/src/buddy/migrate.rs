//! Migrate types: which pages may share a pageblock.
#![forbid(unsafe_code)]

/// What a pageblock is for (Linux: `enum migratetype`, same order).
///
/// Pages that can be moved or dropped are kept apart from those that stay for ever, so that
/// whole 2 MiB blocks can be freed up again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MigrateType {
    /// Stays where it is until freed: most kernel memory.
    Unmovable = 0,
    /// Can be moved elsewhere: user pages.
    Movable = 1,
    /// Cannot be moved, but dropped on demand: caches.
    Reclaimable = 2,
    /// Kept back for requests that cannot wait.
    HighAtomic = 3,
    /// Lent to movable pages until a device needs it.
    Cma = 4,
    /// Taken out of use: nothing is allocated here.
    Isolate = 5,
}

impl MigrateType {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them, in the order of `/proc/pagetypeinfo`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unmovable,
        Self::Movable,
        Self::Reclaimable,
        Self::HighAtomic,
        Self::Cma,
        Self::Isolate,
    ];

    /// The number as an index into per-type tables.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The number as kept in a frame's state word.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// The type with this number; unknown numbers read as unmovable.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Movable,
            2 => Self::Reclaimable,
            3 => Self::HighAtomic,
            4 => Self::Cma,
            5 => Self::Isolate,
            _ => Self::Unmovable,
        }
    }

    /// The name that Linux prints in `/proc/pagetypeinfo`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmovable => "Unmovable",
            Self::Movable => "Movable",
            Self::Reclaimable => "Reclaimable",
            Self::HighAtomic => "HighAtomic",
            Self::Cma => "CMA",
            Self::Isolate => "Isolate",
        }
    }

    /// Whose blocks are taken when this type has none left, best first (Linux: `fallbacks[]`).
    #[must_use]
    pub const fn fallbacks(self) -> &'static [Self] {
        match self {
            Self::Unmovable => &[Self::Reclaimable, Self::Movable],
            Self::Movable => &[Self::Reclaimable, Self::Unmovable],
            Self::Reclaimable => &[Self::Unmovable, Self::Movable],
            Self::HighAtomic | Self::Cma | Self::Isolate => &[],
        }
    }

    /// Whether free pageblocks of this type may merge with those of another
    /// (Linux: `migratetype_is_mergeable`).
    #[inline]
    #[must_use]
    pub const fn is_mergeable(self) -> bool {
        matches!(self, Self::Unmovable | Self::Movable | Self::Reclaimable)
    }
}
