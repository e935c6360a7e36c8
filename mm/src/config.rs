//! Geometry: the numbers that x86_64 and the field fix.
//!
//! Everything else (CPU counts, node counts, sizes of tables) is decided at run time
//! from what is present; see [`crate::platform::Platform`].
#![forbid(unsafe_code)]

mod layout;

pub use layout::{Layout, LayoutError};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in one page frame.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// The largest order that the buddy allocator serves: 4 MiB blocks.
/// Linux calls the same number `MAX_PAGE_ORDER` (6.8+) or `MAX_ORDER - 1` (before 6.4).
pub const MAX_ORDER: u8 = 10;
/// How many orders there are.
pub const ORDERS: usize = 11;

/// log2 of the frames in a pageblock, the unit that carries a migrate type: 2 MiB, one huge page.
pub const PAGEBLOCK_ORDER: u8 = 9;
/// Frames in a pageblock.
pub const PAGEBLOCK_FRAMES: u64 = 1 << PAGEBLOCK_ORDER;

/// log2 of the bytes in a section, the unit in which frame metadata comes and goes: 128 MiB,
/// as Linux's `SECTION_SIZE_BITS` on x86_64.
pub const SECTION_SHIFT: u32 = 27;
/// log2 of the frames in a section.
pub const SECTION_FRAME_SHIFT: u32 = SECTION_SHIFT - PAGE_SHIFT;
/// Frames in a section.
pub const SECTION_FRAMES: u64 = 1 << SECTION_FRAME_SHIFT;
/// Pageblocks in a section: exactly one bit each in a 64-bit word.
pub const SECTION_PAGEBLOCKS: usize = 64;

/// Physical address bits that the architecture allows at most (Intel SDM vol. 3A, 4.1.4: MAXPHYADDR ≤ 52).
pub const MAX_PHYS_BITS: u32 = 52;

/// First byte above ZONE_DMA: what ISA bus masters can reach.
pub const DMA_LIMIT: u64 = 16 << 20;
/// First byte above ZONE_DMA32: what 32-bit bus masters can reach.
pub const DMA32_LIMIT: u64 = 4 << 30;

const _: () = assert!(SECTION_FRAMES == PAGEBLOCK_FRAMES * 64);
