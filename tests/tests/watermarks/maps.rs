//! The numbers of every map file with `/proc/zoneinfo`, against ours.
//!
//! Linux computes them in the middle of its boot, and gives memory back afterwards without
//! computing them anew. All results come from one kernel with one ramdisk, so what it gave back
//! is the same number of pages each time: the kernel's own start-up code and data, which lie in
//! the zone of address 16 MiB, and the ramdisk at the top of the memory below 4 GiB.

use std::collections::{BTreeMap, BTreeSet};

use mm::buddy::pageset::limits;
use mm::zone::ZoneKind;
use mm::zone::watermark::policy::{self, ByZone, Marks, Share};
use mm_tests::maps::{MarksFile, MarksResults, ZoneMarks};

/// Pages of the kernel's that Linux frees after the start of its drivers.
const KERNEL_PAGES: u64 = 2145;
/// Pages of the ramdisk, which go when it is unpacked.
const RAMDISK_PAGES: u64 = 268;

/// Results that differ from ours, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "qemu-par-hugepages-1g-pc",
    "two 1 GiB pages, kept back at boot, were given to Normal after `protection` was computed",
)];

/// `node3/DMA32` → node and kind.
fn place(name: &str) -> (u16, ZoneKind) {
    let (node, kind) = name.split_once('/').unwrap();
    let node = node.strip_prefix("node").unwrap().parse().unwrap();
    let kinds = ZoneKind::ALL.into_iter();
    let kind = kinds.into_iter().find(|known| known.name() == kind);
    (node, kind.unwrap())
}

/// A machine's zones as they were when Linux computed.
struct Zones<'a> {
    zones: BTreeMap<(u16, ZoneKind), (&'a ZoneMarks, u64)>,
}

impl<'a> Zones<'a> {
    fn of(result: &'a MarksResults) -> Self {
        let zones = result.zoneinfo.iter();
        let zones = zones.map(|(name, zone)| (place(name), (zone, zone.managed)));
        let mut zones = Self {
            zones: zones.collect(),
        };
        let holds_kernel = |zone: &ZoneMarks| {
            let first = zone.start_pfn.unwrap_or(u64::MAX);
            (first..first.saturating_add(zone.spanned)).contains(&0x1000)
        };
        let kernel = zones.zones.iter().find(|(_, (zone, _))| holds_kernel(zone));
        let kernel = *kernel.unwrap().0;
        let ramdisk = zones.of_ramdisk(result);
        zones.zones.get_mut(&kernel).unwrap().1 -= KERNEL_PAGES;
        zones.zones.get_mut(&ramdisk).unwrap().1 -= RAMDISK_PAGES;
        zones
    }

    /// The zone at the top of the memory below 4 GiB.
    fn of_ramdisk(&self, result: &MarksResults) -> (u16, ZoneKind) {
        let below = result.node_ranges.iter().filter(|r| r.start.0 < 4 << 30);
        let node = below.max_by_key(|range| range.start).unwrap().node;
        let end = |zone: &ZoneMarks| zone.start_pfn.map(|first| first + zone.spanned);
        let ours = self.zones.iter().filter(|((of, _), _)| *of == node);
        let low = ours.filter(|(_, (zone, _))| end(zone).is_some_and(|end| end <= 1 << 20));
        *low.max_by_key(|(_, (zone, _))| end(zone)).unwrap().0
    }

    fn managed(&self, kinds: impl Fn(ZoneKind) -> bool) -> u64 {
        let chosen = self.zones.iter().filter(|((_, kind), _)| kinds(*kind));
        chosen.map(|(_, (_, managed))| managed).sum()
    }

    fn marks(&self, min_free_kib: u64, scale_factor: u32) -> BTreeMap<(u16, ZoneKind), Marks> {
        let whole = self.managed(|_| true);
        let marks = self.zones.iter().map(|(place, (_, part))| {
            let share = Share { part: *part, whole };
            (*place, policy::marks(min_free_kib, share, scale_factor))
        });
        marks.collect()
    }

    fn protection(&self, (node, kind): (u16, ZoneKind), ratio: &[u32; 5]) -> ByZone {
        let managed = ZoneKind::ALL.map(|kind| {
            let zone = self.zones.get(&(node, kind));
            zone.map_or(0, |(_, managed)| *managed)
        });
        policy::protection(&managed, ratio)[kind.index()]
    }

    /// `vm.min_free_kbytes` by the formula.
    fn min_free_kib(&self, scale_factor: u32) -> u64 {
        let low = |kind| kind <= ZoneKind::Normal;
        let first = policy::min_free_kib(self.managed(low));
        if self.managed(|_| true) < policy::HUGE_PAGE_MACHINE {
            return first;
        }
        let marks = self.marks(first, scale_factor);
        let zones = self.zones.iter().filter(|((_, kind), _)| low(*kind));
        let available = zones.clone().map(|(place, (_, managed))| {
            let high = marks[place].high;
            managed.saturating_sub(high)
        });
        let available = available.sum();
        let populated = zones.filter(|(_, (zone, _))| zone.present > 0).count();
        first.max(policy::huge_page_min_free_kib(populated as u64, available))
    }
}

/// Everything in which we differ from a result.
fn differences(result: &MarksResults) -> Vec<String> {
    let vm = result.vm.as_ref().unwrap();
    let zones = Zones::of(result);
    let mut found = Vec::new();
    let computed = zones.min_free_kib(vm.watermark_scale_factor);
    if computed != vm.min_free_kbytes {
        found.push(format!(
            "min_free_kbytes {computed}, not {}",
            vm.min_free_kbytes
        ));
    }
    let marks = zones.marks(vm.min_free_kbytes, vm.watermark_scale_factor);
    for (&place, (zone, _)) in &zones.zones {
        let Marks { min, low, high } = marks[&place];
        let protection = zones.protection(place, &vm.lowmem_reserve_ratio);
        let ours = (min, low, high, protection);
        let linux = (zone.min, zone.low, zone.high, zone.protection);
        if ours != linux {
            found.push(format!("{place:?}: {ours:?}, not {linux:?}"));
        }
    }
    found
}

#[test]
fn every_map_file_has_the_marks_and_reserves_that_we_compute() {
    let results = MarksFile::all();
    assert_eq!(results.len(), 147);
    let mut differing = BTreeSet::new();
    for (name, result) in &results {
        let found = differences(result);
        if !found.is_empty() {
            println!("{name}:\n  {}", found.join("\n  "));
            differing.insert(name.as_str());
        }
    }
    println!("{} of 147 results equal", 147 - differing.len());
    let listed: BTreeSet<_> = EXCEPTIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(differing, listed, "differing (left) against listed (right)");
}

/// Before 5.14 a quarter of at most 512 KiB went over at once, since then one of at most 1 MiB.
const OLD_BATCH: u32 = 31;

#[test]
fn every_boot_log_has_the_batches_that_we_compute() {
    let mut seen = 0;
    for (name, result) in MarksFile::results() {
        for (zone, pages) in &result.zone_pages {
            let Some(linux) = pages.lifo_batch else {
                continue;
            };
            let managed = pages.pages - pages.memmap_pages - pages.reserved_pages;
            let ours = limits::batch(managed);
            // Linux prints 0 and uses 1.
            let linux = linux.max(1);
            assert!(
                linux == ours || linux == ours.min(OLD_BATCH),
                "{name}: {zone}: {ours}, not {linux}"
            );
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} batches");
}
