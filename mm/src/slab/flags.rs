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
        /// Bytes before and behind each object hold a pattern, which is checked: who runs over an end
        /// is found.
        const RED_ZONE = 1 << 16;
        /// Objects that nobody owns hold a pattern, which is checked: who uses one after it was freed
        /// is found.
        const POISON = 1 << 17;
        /// Each object keeps who allocated it and who freed it: reports and `leaks` name them.
        const STORE_USER = 1 << 18;
        /// Whenever an object is allocated or freed, the list of free objects of its slab is followed
        /// to its end.
        const CONSISTENCY_CHECKS = 1 << 19;
        /// Requests may fail on purpose ([`FailSlab`](crate::system::FailSlab)).
        const FAILSLAB = 1 << 20;
    }
}

impl SlabFlags {
    /// Those of caches that look at every object which comes or goes. Such a cache has no objects at hand
    /// of CPUs, and slabs of its own.
    pub const DEBUG: Self = Self::RED_ZONE
        .union(Self::POISON)
        .union(Self::STORE_USER)
        .union(Self::CONSISTENCY_CHECKS)
        .union(Self::FAILSLAB);
}
