//! Caches for people: `slabtop`, one cache, one object, and the objects of a frame's slab.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use core::ptr::NonNull;

use crate::addr::{Pfn, VirtAddr};
use crate::config::PAGE_SIZE;
use crate::platform::{CpuId, NodeId, Platform};
use crate::slab::{Cache, CacheStats, FreeMap};
use crate::system::{Core, Memory};

/// Caches that fit on a screen, below the totals.
const LINES: usize = 16;
/// Objects in a line of a map.
const WIDE: usize = 64;

/// What `slabtop -o` of Linux shows: totals, and the caches that hold most memory, the largest first, as many as
/// fit on a screen. Objects that CPUs have at hand do not count as active. Context: task.
///
/// # Errors
/// `out`'s own.
pub fn slabtop<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    let mut totals = Totals::default();
    memory.for_each_cache(|_, stats| totals.add(stats));
    totals.write(out)?;
    out.write_str("  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME\n")?;
    let Some(core) = memory.core() else {
        return Ok(());
    };
    // Each round finds the largest below the one before: there is nowhere to sort them.
    let mut above = (u64::MAX, u16::MAX);
    for _ in 0..LINES {
        let sized = core.caches.iter().map(|cache| {
            let stats = cache.stats(memory.platform());
            ((bytes(stats), cache.id()), cache, stats)
        });
        let below = sized.filter(|(key, _, stats)| *key < above && stats.slabs > 0);
        let Some((key, cache, stats)) = below.max_by_key(|(key, _, _)| *key) else {
            break;
        };
        above = key;
        let CacheStats {
            objects,
            active_objects,
            slabs,
            objects_per_slab,
            ..
        } = stats;
        write!(out, "{objects:>6} {active_objects:>6} ")?;
        write!(out, "{:>3}% ", percent(active_objects, objects).0)?;
        let (whole, rest) = (stats.stride / 1024, stats.stride % 1024);
        let hundredths = rest.saturating_mul(100) / 1024;
        write!(out, "{whole:>4}.{hundredths:02}K {slabs:>6} ")?;
        write!(out, "{objects_per_slab:>8} {:>9}K ", bytes(stats) / 1024)?;
        writeln!(out, "{}", cache.name(memory.platform()).as_str())?;
    }
    Ok(())
}

/// Memory in a cache's slabs.
const fn bytes(stats: CacheStats) -> u64 {
    stats.pages.saturating_mul(PAGE_SIZE)
}

/// A part of a whole in per cent, and tenths of one; nothing is all of nothing.
fn percent(part: u64, whole: u64) -> (u64, u64) {
    let tenths = part.saturating_mul(1000).checked_div(whole);
    let tenths = tenths.unwrap_or(1000);
    (tenths / 10, tenths % 10)
}

/// Bytes as KiB with two digits behind the point.
struct Kib(u64);

impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1024, self.0 % 1024);
        write!(f, "{whole}.{:02}K", rest.saturating_mul(100) / 1024)
    }
}

/// Sums over all caches.
#[derive(Default)]
struct Totals {
    caches: u64,
    active_caches: u64,
    objects: u64,
    active_objects: u64,
    slabs: u64,
    active_slabs: u64,
    bytes: u64,
    active_bytes: u64,
    least: Option<u64>,
    most: u64,
}

impl Totals {
    fn add(&mut self, stats: CacheStats) {
        let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
        add(&mut self.caches, 1);
        add(&mut self.active_caches, u64::from(stats.slabs > 0));
        add(&mut self.objects, stats.objects);
        add(&mut self.active_objects, stats.active_objects);
        add(&mut self.slabs, stats.slabs);
        add(&mut self.active_slabs, stats.active_slabs);
        let of = |objects: u64| objects.saturating_mul(stats.stride);
        add(&mut self.bytes, of(stats.objects));
        add(&mut self.active_bytes, of(stats.active_objects));
        let least = self.least.unwrap_or(stats.stride);
        self.least = Some(least.min(stats.stride));
        self.most = self.most.max(stats.stride);
    }

    fn write(&self, out: &mut dyn Write) -> fmt::Result {
        let lines = [
            (
                "Active / Total Objects (% used)",
                self.active_objects,
                self.objects,
            ),
            (
                "Active / Total Slabs (% used)",
                self.active_slabs,
                self.slabs,
            ),
            (
                "Active / Total Caches (% used)",
                self.active_caches,
                self.caches,
            ),
        ];
        for (name, active, all) in lines {
            let (whole, tenth) = percent(active, all);
            writeln!(out, " {name:<35}: {active} / {all} ({whole}.{tenth}%)")?;
        }
        let (whole, tenth) = percent(self.active_bytes, self.bytes);
        let (active, all) = (Kib(self.active_bytes), Kib(self.bytes));
        let name = "Active / Total Size (% used)";
        writeln!(out, " {name:<35}: {active} / {all} ({whole}.{tenth}%)")?;
        let average = Kib(self.bytes.checked_div(self.objects).unwrap_or(0));
        let (least, most) = (Kib(self.least.unwrap_or(0)), Kib(self.most));
        let name = "Minimum / Average / Maximum Object";
        writeln!(out, " {name:<35}: {least} / {average} / {most}\n")
    }
}

/// One cache: what it is, what it has on each node, and what CPUs have at hand (Linux: `slabinfo NAME` of its tools, and
/// the files of `/sys/kernel/slab/NAME`). Answers whether there is a cache of that name; several of one name are all
/// shown. Context: task.
///
/// # Errors
/// `out`'s own.
pub fn cache<P: Platform>(
    memory: &Memory<P>,
    name: &str,
    out: &mut dyn Write,
) -> Result<bool, fmt::Error> {
    let Some(core) = memory.core() else {
        return Ok(false);
    };
    let mut found = false;
    for cache in core.caches.iter() {
        if cache.name(memory.platform()).as_str() == name {
            found = true;
            write_cache(memory, core, (name, cache), out)?;
        }
    }
    Ok(found)
}

fn write_cache<P: Platform>(
    memory: &Memory<P>,
    core: &Core,
    (name, cache): (&str, &Cache),
    out: &mut dyn Write,
) -> fmt::Result {
    let platform = memory.platform();
    let Some(about) = cache.about(platform) else {
        return Ok(());
    };
    let CacheStats {
        object_size,
        stride,
        objects_per_slab,
        pages_per_slab,
        ..
    } = about.stats;
    writeln!(out, "{name}")?;
    let order = pages_per_slab.checked_ilog2().unwrap_or(0);
    writeln!(out, "  object     {object_size} bytes, one every {stride}")?;
    writeln!(
        out,
        "  slab       {objects_per_slab} objects, order {order}"
    )?;
    write!(out, "  flags      ")?;
    match about.flags.is_empty() {
        true => out.write_str("none")?,
        false => write_names(out, about.flags.iter_names().map(|(name, _)| name))?,
    }
    let aliases = about.users.saturating_sub(1);
    writeln!(out, "\n  aliases    {aliases}")?;
    let CacheStats {
        active_objects,
        objects,
        slabs,
        ..
    } = about.stats;
    writeln!(
        out,
        "  objects    {active_objects} in use, of {objects} in {slabs} slabs"
    )?;
    for node in (0..).map(NodeId).take(core.nodes.len()) {
        let stats = cache.stats_of(platform, node);
        let full = stats.slabs.saturating_sub(stats.partial);
        let partial = stats.partial.saturating_sub(stats.empty);
        let empty = stats.empty;
        writeln!(
            out,
            "  node {node:<5} {full} slabs full, {partial} partial, {empty} empty"
        )?;
    }
    write!(out, "  at hand    at most {} of a CPU:", about.most_at_hand)?;
    for cpu in (0..platform.cpus()).map(CpuId) {
        write!(out, " {}", cache.at_hand_of(cpu))?;
    }
    writeln!(out)
}

/// Flags as Linux writes them: `HWCACHE_ALIGN|RECLAIM_ACCOUNT`.
fn write_names(out: &mut dyn Write, names: impl Iterator<Item = &'static str>) -> fmt::Result {
    let mut separator = "";
    for name in names {
        write!(out, "{separator}{name}")?;
        separator = "|";
    }
    Ok(())
}

/// An object in one line: where it is, and of which cache. Any address will do. Context: task.
///
/// # Errors
/// `out`'s own.
pub fn object<P: Platform>(
    memory: &Memory<P>,
    object: NonNull<u8>,
    out: &mut dyn Write,
) -> fmt::Result {
    let platform = memory.platform();
    let address = VirtAddr::from_ptr(object.as_ptr());
    let Some(physical) = platform.virt_to_phys(address) else {
        return writeln!(out, "no memory of the page allocator");
    };
    let pfn = physical.frame();
    let offset = physical.offset_from(pfn.addr()).unwrap_or(0);
    write!(out, "frame {pfn}, offset {offset}, ")?;
    let slab = memory.frames().and_then(|table| table.slab_at(pfn));
    let cache = slab.and_then(|slab| memory.caches()?.get(slab.cache));
    match cache {
        Some(cache) => write!(out, "cache {}", cache.name(platform).as_str())?,
        None => out.write_str("pages of its own")?,
    }
    writeln!(out, ", {} bytes", memory.ksize(object).unwrap_or(0))
}

/// The slab that a frame belongs to, in lines as [`page`](super::page) prints them; nothing if it belongs to none.
pub(super) fn write_slab<P: Platform>(
    memory: &Memory<P>,
    pfn: Pfn,
    out: &mut dyn Write,
) -> fmt::Result {
    let Some(core) = memory.core() else {
        return Ok(());
    };
    let Some(slab) = core.frames.slab_at(pfn) else {
        return Ok(());
    };
    let Some(cache) = core.caches.get(slab.cache) else {
        return Ok(());
    };
    let name = cache.name(memory.platform());
    let size = cache.shape().map_or(0, |shape| shape.size());
    let map = cache.free_map(&memory.soil(core), slab);
    writeln!(
        out,
        "  slab       of cache {}, objects of {size} bytes",
        name.as_str()
    )?;
    match map {
        Some(map) => write_map(&map, out),
        None => writeln!(out, "  objects    their list is damaged, or gone"),
    }
}

/// Which objects are taken: by owners, or by CPUs that have them at hand.
fn write_map(map: &FreeMap, out: &mut dyn Write) -> fmt::Result {
    let (all, free) = (map.iter().count(), map.iter().filter(|free| *free).count());
    let taken = all.saturating_sub(free);
    write!(
        out,
        "  objects    {taken} of {all} taken (#), those at hand of CPUs too"
    )?;
    for (number, is_free) in map.iter().enumerate() {
        if number % WIDE == 0 {
            write!(out, "\n  {:<11}", "")?;
        }
        out.write_char(if is_free { '.' } else { '#' })?;
    }
    writeln!(out)
}
