//! Readers of `/proc` files, written as the tools write them: columns by white space, lines by
//! their first word, anything unknown skipped.

use std::collections::BTreeMap;

/// Node and zone.
pub(crate) type Place = (u16, String);

/// `Node 0, zone   Normal …` → the place, and the words behind it.
fn place(line: &str) -> Option<(Place, Vec<&str>)> {
    let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
    if words.next()? != "Node" {
        return None;
    }
    let node = words.next()?.parse().ok()?;
    if words.next()? != "zone" {
        return None;
    }
    let zone = words.next()?.to_owned();
    Some(((node, zone), words.collect()))
}

fn numbers(words: &[&str]) -> Vec<u64> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

/// `/proc/buddyinfo`: free blocks by order.
pub(crate) fn buddyinfo(text: &str) -> BTreeMap<Place, Vec<u64>> {
    let line = |line| {
        let (place, words) = place(line).unwrap();
        (place, numbers(&words))
    };
    text.lines().map(line).collect()
}

/// `/proc/pagetypeinfo`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageTypeInfo {
    /// Free blocks by order, for each type.
    pub(crate) free: BTreeMap<(Place, String), Vec<u64>>,
    /// Pageblocks, for each type.
    pub(crate) blocks: BTreeMap<(Place, String), u64>,
}

pub(crate) fn pagetypeinfo(text: &str) -> PageTypeInfo {
    let mut info = PageTypeInfo::default();
    let mut types = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("Number of blocks type") {
            types = heading.split_whitespace().map(str::to_owned).collect();
        }
        let Some((place, words)) = place(line) else {
            continue;
        };
        if words[0] == "type" {
            let kind = words[1].to_owned();
            info.free.insert((place, kind), numbers(&words[2..]));
        } else {
            let columns = types.iter().cloned().zip(numbers(&words));
            info.blocks
                .extend(columns.map(|(kind, count)| ((place.clone(), kind), count)));
        }
    }
    info
}

/// `/proc/zoneinfo`: for each zone its numbers by name.
pub(crate) fn zoneinfo(text: &str) -> BTreeMap<Place, BTreeMap<String, u64>> {
    let mut zones: BTreeMap<Place, BTreeMap<String, u64>> = BTreeMap::new();
    let mut here = None;
    for line in text.lines() {
        if let Some((place, _)) = place(line) {
            zones.insert(place.clone(), BTreeMap::new());
            here = Some(place);
            continue;
        }
        let mut words: Vec<_> = line.split_whitespace().collect();
        if words[0] == "pages" {
            words.remove(0);
        }
        let [name, number] = words[..] else { continue };
        let zone = zones.get_mut(here.as_ref().unwrap()).unwrap();
        let name = name.trim_end_matches(':').to_owned();
        let before = zone.insert(name, number.parse().unwrap());
        assert_eq!(before, None, "{line} stands there twice");
    }
    zones
}

/// `/proc/meminfo`: kB by name.
pub(crate) fn meminfo(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':').unwrap();
        let (number, unit) = rest.trim().split_once(' ').unwrap();
        assert_eq!(unit, "kB");
        (name.to_owned(), number.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// `/proc/vmstat`: numbers by name.
pub(crate) fn vmstat(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, number) = line.split_once(' ').unwrap();
        (name.to_owned(), number.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// A line of `/proc/iomem`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) depth: usize,
    pub(crate) start: u64,
    /// Last byte.
    pub(crate) last: u64,
    pub(crate) name: String,
}

pub(crate) fn iomem(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let trimmed = line.trim_start();
        let (range, name) = trimmed.split_once(" : ").unwrap();
        let (start, last) = range.split_once('-').unwrap();
        let hex = |digits| u64::from_str_radix(digits, 16).unwrap();
        Range {
            depth: (line.len() - trimmed.len()) / 2,
            start: hex(start),
            last: hex(last),
            name: name.to_owned(),
        }
    };
    text.lines().map(line).collect()
}
