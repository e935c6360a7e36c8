//! The kinds of zones.
#![forbid(unsafe_code)]

use core::fmt;

/// What a zone's memory is good for: Linux's `enum zone_type` on x86_64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ZoneKind {
    /// Below 16 MiB: what ISA bus masters reach.
    Dma,
    /// Below 4 GiB: what 32-bit bus masters reach.
    Dma32,
    /// Everything above.
    Normal,
    /// Whatever its address: for contents that can be moved, so that it stays unpluggable and
    /// free of fragmentation.
    Movable,
    /// Comes with a device; never filled at boot.
    Device,
}

impl ZoneKind {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Every kind, in Linux's order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Dma,
        Self::Dma32,
        Self::Normal,
        Self::Movable,
        Self::Device,
    ];

    /// The kind's place in [`ALL`](Self::ALL).
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in `/proc` files and in the boot log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "Normal",
            Self::Movable => "Movable",
            Self::Device => "Device",
        }
    }
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
