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
        /// Whoever found an object as a [reader](crate::system::GracePeriods::pin) may look at it after it was
        /// freed: what is there stays an object of the cache until the reader is done, though it may have become another
        /// one meanwhile. Slabs go back when a grace period is over, and objects keep what is in them while they are
        /// free, so that they cannot be debugged.
        const TYPESAFE_BY_RCU = 1 << 5;
        /// Without the cache there is no going on: a failure to make it is a panic.
        const PANIC = 1 << 6;
        /// Objects never come from the sampling guard pool: it matters where they lie.
        const SKIP_KFENCE = 1 << 7;
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

    /// Objects have a constructor: not to be asked for, but added where there is one.
    pub(super) const CTOR: Self = Self::from_bits_retain(1 << 31);

    /// Whether nothing is written to objects while they are free.
    pub(super) const fn keep_contents(self) -> bool {
        self.intersects(Self::TYPESAFE_BY_RCU.union(Self::CTOR))
    }

    /// Whether the cache is one of its own.
    pub(super) const fn never_merge(self) -> bool {
        self.keep_contents() || self.intersects(Self::NO_MERGE.union(Self::DEBUG))
    }
}
