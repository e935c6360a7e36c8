//! Trimming and limiting what RAM there is. For the time before anything is allocated: what lies
//! outside a limit is forgotten, taken or not.
#![forbid(unsafe_code)]

use super::{Memblock, RegionFlags};
use crate::addr::{PhysAddr, PhysRange};

impl Memblock {
    /// Shrinks every region of RAM to whole multiples of `align`, a power of two (anything else
    /// counts as the next one); a region that has none goes. Context: boot.
    pub fn trim_memory(&mut self, align: u64) {
        // An alignment above 2^63 fits nowhere but at 0.
        let align = align.checked_next_power_of_two().unwrap_or(1 << 63);
        self.memory.shrink_each(|region| {
            let start = region.base().align_up(align);
            let end = region.end().align_down(align);
            let trimmed = start.and_then(|start| PhysRange::new(start, end));
            trimmed.unwrap_or(PhysRange::EMPTY)
        });
    }

    /// Forgets RAM and reservations outside `range`; RAM without a direct map stays
    /// (Linux: `memblock_cap_memory_range`). Context: boot.
    pub fn cap_range(&mut self, range: PhysRange) {
        self.memory.shrink_each(|region| {
            if region.flags.contains(RegionFlags::NOMAP) {
                region.range
            } else {
                region.range.intersect(range)
            }
        });
        self.reserved
            .shrink_each(|region| region.range.intersect(range));
    }

    /// Keeps the lowest `bytes` of RAM and forgets the rest, and reservations beyond
    /// (Linux: `memblock_enforce_memory_limit`). Context: boot.
    pub fn limit_memory(&mut self, bytes: u64) {
        let mut left = bytes;
        let mut limit = PhysAddr::MAX;
        for region in self.memory() {
            if left <= region.range.size() {
                limit = region.base().saturating_add(left);
                break;
            }
            left = left.saturating_sub(region.range.size());
        }
        let kept = PhysRange::from_size(PhysAddr::ZERO, limit.as_u64());
        self.memory
            .shrink_each(|region| region.range.intersect(kept));
        self.reserved
            .shrink_each(|region| region.range.intersect(kept));
    }
}
