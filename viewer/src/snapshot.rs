//! A machine's memory at one moment: what every frame is used for, and all numbers.
//!
//! The guest goes on meanwhile, so what changes while it is read may be seen half: a frame twice, or not at all. Nothing is
//! believed without being checked for sense.

use std::collections::BTreeMap;

use mm::buddy::MigrateType;
use mm::inspect::{Entry, EntryKind, Record, latent_section};

use crate::areas::{self, Area};
use crate::guest::Guest;
use crate::owner::Owner;

/// log2 of the frames of a pageblock.
const PAGEBLOCK: u32 = 9;
/// Bytes from one to the next, at most, …
pub(crate) const WIDEST: u32 = 4096;
/// … and sections of a machine.
const MOST_SECTIONS: u64 = 1 << 20;
/// Zones, CPUs and caches, at most; whatever says more is damaged, and a look at it is to end.
const MOST_ZONES: usize = 512;
const MOST_CPUS: u64 = 512;
const MOST_CACHES: usize = 4096;
/// The same for ranges without records.
const MOST_RANGES: usize = 1024;

/// A zone, in numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zone {
    /// Its number among the machine's.
    pub number: u32,
    /// Its node.
    pub node: u32,
    /// Its index in the node, as records name it.
    pub index: u32,
    /// What it is called.
    pub name: String,
    /// From the first frame to behind the last.
    pub span: (u64, u64),
    /// Frames of RAM.
    pub present: u64,
    /// Numbers that the kernel keeps of it, by name: `free`, `min`, `low`, `high`, …
    pub numbers: BTreeMap<String, u64>,
    /// Free blocks by order, as the records say.
    pub blocks: [u64; 16],
    /// What each CPU has at hand.
    pub lists: Vec<CpuList>,
}

impl Zone {
    /// One of its numbers.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    /// Free frames: those in blocks, and those whose records are not made yet.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.number("free").saturating_add(self.number("latent"))
    }
}

/// What a CPU has at hand of a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuList {
    /// Frames on its lists.
    pub count: u64,
    /// How many there may be.
    pub high: u64,
    /// How many come or go at once.
    pub batch: u64,
    /// Frames that owners gave back, …
    pub freed: u64,
    /// … that came from the zone, …
    pub refilled: u64,
    /// … and that went back there.
    pub drained: u64,
    /// Times that some came, …
    pub refills: u64,
    /// … and went.
    pub drains: u64,
}

/// A cache of objects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    /// Its number, which records of slabs name.
    pub number: u32,
    /// What it is called.
    pub name: String,
    /// Bytes of an object.
    pub size: u64,
    /// Objects in a usual slab.
    pub per_slab: u64,
    /// Slabs, and the frames that they are.
    pub slabs: u64,
    /// See above.
    pub frames: u64,
    /// Objects that are not free, those that CPUs have at hand included.
    pub taken: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What each frame is used for, by number.
    pub owners: Vec<Owner>,
    /// Zones with memory.
    pub zones: Vec<Zone>,
    /// Caches that there are.
    pub caches: Vec<Cache>,
    /// Areas of kernel addresses.
    pub areas: Vec<Area>,
    /// Numbers of the machine, by name.
    pub numbers: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Looks at everything.
    #[must_use]
    pub fn take(guest: &Guest) -> Self {
        let mut snapshot = Self {
            zones: guest
                .of(EntryKind::Zone)
                .take(MOST_ZONES)
                .map(zone)
                .collect(),
            caches: guest
                .of(EntryKind::Cache)
                .filter(|entry| !entry.name().is_empty())
                .take(MOST_CACHES)
                .map(cache)
                .collect(),
            numbers: numbers(guest, EntryKind::OfMachine, 0),
            ..Self::default()
        };
        for zone in &mut snapshot.zones {
            zone.numbers = numbers(guest, EntryKind::OfZone, zone.number);
            zone.lists = lists(guest, zone.number);
        }
        let end = snapshot.zones.iter().map(|zone| zone.span.1).max();
        let end = end.unwrap_or(0).min(guest.frames());
        snapshot.owners = vec![Owner::Hole; usize::try_from(end).unwrap_or(0)];
        snapshot.look_at_frames(guest);
        snapshot.areas = areas::all(guest);
        for area in areas::within_reason(&snapshot.areas) {
            let owner = Owner::of_area(area.place.as_deref().unwrap_or(""));
            area.pages(guest, |_, pfn| {
                let place = usize::try_from(pfn).ok();
                let place = place.and_then(|pfn| snapshot.owners.get_mut(pfn));
                if let Some(place) = place.filter(|place| **place == Owner::Used) {
                    *place = owner;
                }
            });
        }
        snapshot
    }

    /// How many frames are used for what, by [`Owner::index`].
    #[must_use]
    pub fn counts(&self) -> [u64; Owner::COUNT] {
        let mut counts = [0; Owner::COUNT];
        for owner in &self.owners {
            if let Some(count) = counts.get_mut(owner.index()) {
                *count += 1;
            }
        }
        counts
    }

    fn look_at_frames(&mut self, guest: &Guest) {
        let section = guest.section_frames();
        let Some(table) = guest.of(EntryKind::Sections).next() else {
            return;
        };
        let types = Types::of(guest, &self.zones);
        let mut bytes = vec![0; usize::try_from(section).unwrap_or(0) * Record::BYTES];
        for number in 0..(self.owners.len() as u64).div_ceil(section) {
            let pointer = guest.u64_at(table.at.wrapping_add(number * 8)).unwrap_or(0);
            let first = number * section;
            if number >= table.numbers[0] || pointer == 0 || !guest.read(pointer, &mut bytes) {
                self.note_latent(guest, first, section);
                continue;
            }
            let mut next = first;
            while next < first + section {
                let place = usize::try_from(next - first).unwrap_or(0) * Record::BYTES;
                let record = bytes.get(place..).and_then(Record::read);
                next += self.note(next, &record.unwrap_or_default(), &types);
            }
        }
    }

    /// Frames of a section without records: free, where the machine says so.
    fn note_latent(&mut self, guest: &Guest, first: u64, count: u64) {
        let ranges = || guest.of(EntryKind::Latent).take(MOST_RANGES);
        let metadata = ranges().next().map_or(0, |entry| entry.numbers[2]);
        let free = ranges().map(|entry| (entry.numbers[0], entry.numbers[1]));
        latent_section(free, (first, count), metadata, |first, count, owner| {
            self.mark(first, count, owner);
        });
    }

    fn mark(&mut self, first: u64, count: u64, owner: Owner) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let count = usize::try_from(count).unwrap_or(0);
        let end = first.saturating_add(count).min(self.owners.len());
        if let Some(places) = self.owners.get_mut(first..end) {
            places.fill(owner);
        }
    }

    /// Takes note of the block that starts at a frame. Answers how many frames that are, or 1 if none starts there.
    fn note(&mut self, pfn: u64, record: &Record, types: &Types) -> u64 {
        let word = record.word;
        let order = word.order();
        let frames = order.frames();
        let is_aligned = pfn.is_multiple_of(frames);
        let Some(owner) = Owner::of_block(word, is_aligned, types.at(pfn)) else {
            return 1;
        };
        match owner {
            Owner::Free(_) => self.note_free(record),
            Owner::Slab => self.note_slab(record),
            Owner::Reserved => {
                self.mark(pfn, 1, owner);
                return 1;
            }
            _ => {}
        }
        self.mark(pfn, frames, owner);
        frames
    }

    fn note_free(&mut self, record: &Record) {
        let home = record.word.zone_id();
        let found = |zone: &&mut Zone| {
            (zone.node, zone.index) == (u32::from(home.node.0), u32::from(home.zone))
        };
        let order = usize::from(record.word.order().as_u8());
        if let Some(zone) = self.zones.iter_mut().find(found)
            && let Some(count) = zone.blocks.get_mut(order)
        {
            *count += 1;
        }
    }

    fn note_slab(&mut self, record: &Record) {
        let Some(slab) = record.slab() else { return };
        let found = |cache: &&mut Cache| cache.number == u32::from(slab.cache);
        if let Some(cache) = self.caches.iter_mut().find(found) {
            cache.slabs += 1;
            cache.frames += record.word.order().frames();
            cache.taken += u64::from(slab.taken);
        }
    }
}

fn zone(entry: &Entry) -> Zone {
    let [first, end, present] = entry.numbers;
    Zone {
        number: entry.index,
        node: entry.owner,
        index: entry.width,
        name: entry.name().to_owned(),
        span: (first, end),
        present,
        ..Zone::default()
    }
}

fn cache(entry: &Entry) -> Cache {
    let [size, per_slab, _] = entry.numbers;
    Cache {
        number: entry.index,
        name: entry.name().to_owned(),
        size,
        per_slab,
        ..Cache::default()
    }
}

fn numbers(guest: &Guest, kind: EntryKind, owner: u32) -> BTreeMap<String, u64> {
    let entries = guest.of(kind).filter(|entry| entry.owner == owner);
    entries
        .filter_map(|entry| Some((entry.name().to_owned(), guest.value(entry)?)))
        .collect()
}

/// Two bytes of a word, by number.
pub(crate) const fn field(word: u64, number: u32) -> u64 {
    word >> (16 * number) & 0xffff
}

fn lists(guest: &Guest, zone: u32) -> Vec<CpuList> {
    let mut entries = guest.of(EntryKind::OfCpu);
    let Some(entry) = entries.find(|entry| entry.owner == zone) else {
        return Vec::new();
    };
    let [cpus, low, high] = entry.numbers;
    let row = |cpu: u64| {
        let at = entry.at.wrapping_add(cpu * u64::from(entry.width));
        let word = |offset: u64| guest.u64_at(at.wrapping_add(offset)).unwrap_or(0);
        // Numbers of four bytes, in words of eight.
        let half = |offset: u64| word(offset) & 0xffff_ffff;
        CpuList {
            count: half(field(low, 0)),
            high: half(field(low, 1)),
            batch: half(field(low, 2)),
            freed: word(field(low, 3)),
            refilled: word(field(high, 0)),
            drained: word(field(high, 1)),
            refills: word(field(high, 2)),
            drains: word(field(high, 3)),
        }
    };
    (0..cpus.min(MOST_CPUS)).map(row).collect()
}

/// The types of all pageblocks.
struct Types(Vec<MigrateType>);

impl Types {
    fn of(guest: &Guest, zones: &[Zone]) -> Self {
        let end = zones.iter().map(|zone| zone.span.1).max().unwrap_or(0);
        let end = end.min(guest.frames());
        let mut types =
            vec![MigrateType::Unmovable; usize::try_from(end >> PAGEBLOCK).unwrap_or(0) + 1];
        let per_section = guest.section_frames() >> PAGEBLOCK;
        for entry in guest.of(EntryKind::Pageblocks).take(MOST_ZONES) {
            let Some(zone) = zones.iter().find(|zone| zone.number == entry.owner) else {
                continue;
            };
            let [sections, first, offset] = entry.numbers;
            // Whatever says more is damaged.
            if entry.width == 0 || entry.width > WIDEST || first > MOST_SECTIONS {
                continue;
            }
            // More than there are frames for say nothing.
            for section in 0..sections.min(guest.frames() / guest.section_frames() + 1) {
                let Some(area) = guest
                    .u64_at(entry.at.wrapping_add(section * 8))
                    .filter(|&at| at != 0)
                else {
                    continue;
                };
                let mut bytes =
                    vec![0; usize::try_from(per_section * u64::from(entry.width)).unwrap_or(0)];
                if !guest.read(area.wrapping_add(offset), &mut bytes) {
                    continue;
                }
                for block in 0..per_section {
                    let number = (first + section) * per_section + block;
                    let pfn = number << PAGEBLOCK;
                    let is_inside = pfn + (1 << PAGEBLOCK) > zone.span.0 && pfn < zone.span.1;
                    let at = usize::try_from(block * u64::from(entry.width)).unwrap_or(0);
                    if let (true, Some(&kind)) = (is_inside, bytes.get(at))
                        && let Some(place) = usize::try_from(number)
                            .ok()
                            .and_then(|number| types.get_mut(number))
                    {
                        *place = MigrateType::from_bits(kind);
                    }
                }
            }
        }
        Self(types)
    }

    fn at(&self, pfn: u64) -> MigrateType {
        let place = usize::try_from(pfn >> PAGEBLOCK).unwrap_or(usize::MAX);
        self.0.get(place).copied().unwrap_or(MigrateType::Unmovable)
    }
}
