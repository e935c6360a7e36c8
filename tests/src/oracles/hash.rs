//! A hash over everything the library knows about a machine's frames.

use std::hash::{DefaultHasher, Hash, Hasher};

use mm::frame::Frame;
use mm::system::Memory;

use super::shape::settle;
use crate::sim::{SimConfig, SimPlatform};

/// All four words of every record of RAM, and every zone's counters. Two machines in the same
/// state have the same hash; a call that must change nothing leaves it as it was.
#[must_use]
pub fn state_hash<C: SimConfig>(memory: &Memory<SimPlatform<C>>) -> u64 {
    settle(memory);
    let mut hash: u64 = 0;
    for range in memory.platform().ram().ranges() {
        for pfn in range.whole_frames().iter() {
            let Some(page) = memory.page(pfn) else {
                continue;
            };
            for word in words(page.frame()) {
                hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    hash.hash(&mut hasher);
    for zone in memory.zones() {
        let snapshot = zone.snapshot(memory.platform());
        snapshot.blocks.hash(&mut hasher);
        snapshot.pageblocks.hash(&mut hasher);
        let stats = snapshot.stats;
        (snapshot.free, zone.managed(), zone.free_frames()).hash(&mut hasher);
        (stats.allocated, stats.freed, stats.splits).hash(&mut hasher);
        (stats.merges, stats.claims, stats.steals).hash(&mut hasher);
    }
    memory.quarantined_frames().hash(&mut hasher);
    hasher.finish()
}

/// The four words of a record, also those without an accessor.
fn words(frame: &Frame) -> [u64; 4] {
    let first = core::ptr::from_ref(frame).cast::<u64>();
    // SAFETY: a record is 32 bytes of atomics without padding, 8-byte aligned, and no other
    // thread writes to it while a test hashes.
    [0, 1, 2, 3].map(|index| unsafe { first.add(index).read_volatile() })
}
