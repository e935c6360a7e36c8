//! What a cache is told when it is made; names as in Linux `include/linux/slab.h`.
#![forbid(unsafe_code)]

bitflags::bitflags! {
    /// Properties of a cache.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SlabFlags: u32 {
        /// Objects start where cache lines do, or share one with their like only.
        const HWCACHE_ALIGN = 1 << 0;
        /// Slabs count as reclaimable: they come from pageblocks of that type.
        const RECLAIM_ACCOUNT = 1 << 1;
        /// Slabs lie in the DMA zone.
        const CACHE_DMA = 1 << 2;
        /// Slabs lie below 4 GiB.
        const CACHE_DMA32 = 1 << 3;
        /// The cache has slabs of its own even where another one is like it.
        const NO_MERGE = 1 << 4;
    }
}
