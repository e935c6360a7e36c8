//! The states a frame can be in, and which may follow which.
//!
//! The set is closed and the transitions are a table, so that a test can execute every
//! combination. The frame table asks it before it changes a record
//! ([`Word::after`](super::Word::after)). A frame changes hands only through
//! [`FrameState::Free`].
#![forbid(unsafe_code)]

/// Who has a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameState {
    /// Not the first frame of anything: it belongs to the block around it, or to no block at
    /// all (a hole, or RAM nobody has been told of). The all-zero record.
    Interior = 0,
    /// First frame of a free block in the buddy allocator.
    Free = 1,
    /// Present, but never handed to the allocator: firmware, kernel image, boot-time tables.
    Reserved = 2,
    /// First frame of a block with exactly one owning handle.
    Unique = 3,
    /// First frame of a block that is reference-counted.
    Shared = 4,
    /// First frame of a block on a CPU's own list.
    Cached = 5,
}

/// What can happen to the first frame of a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Event {
    /// Boot or hotplug finds RAM that stays out of the allocator.
    Reserve,
    /// RAM is handed to the allocator: at boot, or when a reservation ends.
    Adopt,
    /// The allocator hands the block to an owner.
    Allocate,
    /// The owner gives the block back.
    Release,
    /// The owner lets others hold references.
    Share,
    /// The last reference is dropped: whoever dropped it is the owner, and may free the block.
    LastPut,
    /// The block becomes part of a larger one.
    Absorb,
    /// A larger block is cut here: this frame starts a free block of its own.
    CutFree,
    /// A larger block is cut here: this frame starts an owned block of its own.
    CutOwned,
    /// The owner gives the block back to a CPU's list.
    Cache,
    /// A CPU's list hands the block to an owner.
    Serve,
}

impl FrameState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Interior,
        Self::Free,
        Self::Reserved,
        Self::Unique,
        Self::Shared,
        Self::Cached,
    ];

    /// The state with this number.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            0 => Some(Self::Interior),
            1 => Some(Self::Free),
            2 => Some(Self::Reserved),
            3 => Some(Self::Unique),
            4 => Some(Self::Shared),
            5 => Some(Self::Cached),
            _ => None,
        }
    }

    /// The state's number.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub const fn bits(self) -> u64 {
        self as u64
    }

    /// What `event` makes of a frame in this state, or `None` if it may not happen to it.
    #[inline]
    #[must_use]
    pub const fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Interior, Event::Reserve) => Some(Self::Reserved),
            (Self::Interior | Self::Reserved, Event::Adopt) => Some(Self::Unique),
            (Self::Free, Event::Allocate) | (Self::Shared, Event::LastPut) => Some(Self::Unique),
            (Self::Unique, Event::Release) => Some(Self::Free),
            (Self::Unique, Event::Share) => Some(Self::Shared),
            (Self::Free | Self::Unique | Self::Reserved, Event::Absorb) => Some(Self::Interior),
            (Self::Interior, Event::CutFree) => Some(Self::Free),
            (Self::Interior, Event::CutOwned) => Some(Self::Unique),
            (Self::Unique, Event::Cache) => Some(Self::Cached),
            (Self::Cached, Event::Serve) => Some(Self::Unique),
            _ => None,
        }
    }

    /// Whether a block starts here, and the word says its order.
    #[inline]
    #[must_use]
    pub const fn starts_block(self) -> bool {
        matches!(
            self,
            Self::Free | Self::Unique | Self::Shared | Self::Cached
        )
    }

    /// Whether somebody outside the allocator owns the block.
    #[inline]
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Unique | Self::Shared)
    }

    /// A short name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interior => "interior",
            Self::Free => "free",
            Self::Reserved => "reserved",
            Self::Unique => "unique",
            Self::Shared => "shared",
            Self::Cached => "cached",
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 11] = [
        Self::Reserve,
        Self::Adopt,
        Self::Allocate,
        Self::Release,
        Self::Share,
        Self::LastPut,
        Self::Absorb,
        Self::CutFree,
        Self::CutOwned,
        Self::Cache,
        Self::Serve,
    ];
}
