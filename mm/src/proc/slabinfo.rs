//! `/proc/slabinfo`: every cache and its slabs.
#![forbid(unsafe_code)]

use core::fmt;

use crate::platform::Platform;
use crate::slab::CacheStats;
use crate::system::Memory;

/// `/proc/slabinfo` as Linux 6.1 prints it. Objects that CPUs have at hand do not count as active (Linux
/// counts those); slabs without an active object do not count as active either. Caches have nothing to be
/// tuned. Context: task.
///
/// # Errors
/// `out`'s own.
pub fn slabinfo<P: Platform>(memory: &Memory<P>, out: &mut dyn fmt::Write) -> fmt::Result {
    out.write_str(
        "slabinfo - version: 2.1\n\
         # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : \
         tunables <limit> <batchcount> <sharedfactor> : \
         slabdata <active_slabs> <num_slabs> <sharedavail>\n",
    )?;
    let mut written = Ok(());
    memory.for_each_cache(|name, stats| {
        if written.is_ok() {
            written = line(out, name, stats);
        }
    });
    written
}

fn line(out: &mut dyn fmt::Write, name: &str, stats: CacheStats) -> fmt::Result {
    let CacheStats {
        active_objects,
        objects,
        stride,
        objects_per_slab,
        pages_per_slab,
        active_slabs,
        slabs,
        ..
    } = stats;
    write!(out, "{name:<17} {active_objects:6} {objects:6} {stride:6}")?;
    write!(out, " {objects_per_slab:4} {pages_per_slab:4}")?;
    write!(out, " : tunables {:4} {:4} {:4}", 0, 0, 0)?;
    writeln!(out, " : slabdata {active_slabs:6} {slabs:6} {:6}", 0)
}
