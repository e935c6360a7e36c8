//! How programs that others wrote take Linux's `/proc` files apart, for files that no crate reads: their rules, written down anew.
//! Whatever they would refuse is an error here.
//!
//! | File | Rules of | Licence, file |
//! |---|---|---|
//! | `buddyinfo`, `slabinfo`, `zoneinfo` | `prometheus/procfs`, with which `node_exporter` reads | Apache-2.0: `buddyinfo.go`, `slab.go`, `zoneinfo.go` |
//! | `pagetypeinfo`, `vmallocinfo` | `kellyjonbrazil/jc` | MIT: `jc/parsers/proc_pagetypeinfo.py`, `proc_vmallocinfo.py` |
//!
//! `procfs-core` 0.18 knows none of the five; no other crate that is looked after reads them.

use std::collections::BTreeMap;

use regex::Regex;

/// What cannot be read, and why.
pub type Refused = String;

/// A zone, by the names of its node and its own.
pub type Place = (String, String);

/// `/proc/buddyinfo`: words by white space; the second is the node, the fourth the zone, the rest one number for each order. All lines
/// have as many.
///
/// # Errors
/// [`Refused`].
pub fn buddyinfo(text: &str) -> Result<BTreeMap<Place, Vec<u64>>, Refused> {
    let mut zones = BTreeMap::new();
    let mut orders = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, node, _, zone, sizes @ ..] = words.as_slice() else {
            return Err(format!("too few words: {line:?}"));
        };
        if *orders.get_or_insert(sizes.len()) != sizes.len() {
            return Err(format!("other orders than before: {line:?}"));
        }
        let place = [node, zone].map(|name| name.trim_end_matches(',').to_owned());
        zones.insert(
            place.into(),
            sizes.iter().map(number).collect::<Result<_, _>>()?,
        );
    }
    Ok(zones)
}

/// A cache, as `/proc/slabinfo` of version 2.1 describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slab {
    /// What it is called.
    pub name: String,
    /// Objects in use, all, their size, how many a slab has, and its pages.
    pub objects: [u64; 5],
    /// What can be tuned.
    pub tunables: [u64; 3],
    /// Slabs in use, all, and shared ones.
    pub slabs: [u64; 3],
}

/// `/proc/slabinfo`: lines with `slabinfo -` or `# name` are headings; in all others white space is one blank, and blanks part exactly
/// 16 words.
///
/// # Errors
/// [`Refused`].
pub fn slabinfo(text: &str) -> Result<Vec<Slab>, Refused> {
    let space = expression(r"(?-u:\s+)");
    let is_heading = |line: &&str| line.contains("slabinfo -") || line.contains("# name");
    let lines = text.lines().filter(|line| !is_heading(line));
    let read = |line| {
        let line = space.replace_all(line, " ");
        let words: Vec<&str> = line.split(' ').collect();
        let words: [&str; 16] = words
            .try_into()
            .map_err(|_| format!("not 16 words: {line:?}"))?;
        let [name, a, b, c, d, e, _, _, f, g, h, _, _, i, j, k] = words;
        Ok(Slab {
            name: name.to_owned(),
            objects: numbers([a, b, c, d, e])?,
            tunables: numbers([f, g, h])?,
            slabs: numbers([i, j, k])?,
        })
    };
    lines.map(read).collect()
}

/// A zone, as `/proc/zoneinfo` describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zone {
    /// Node and zone.
    pub place: Place,
    /// The numbers that are looked for, by name.
    pub numbers: BTreeMap<String, u64>,
    /// What is kept of it from requests for others.
    pub protection: Vec<u64>,
}

/// The names that `zoneinfo.go` looks for, of those that are there without files, swap and programs; the rest may be missing.
const LOOKED_FOR: [&str; 13] = [
    "nr_free_pages",
    "min",
    "low",
    "high",
    "spanned",
    "present",
    "managed",
    "numa_hit",
    "numa_miss",
    "numa_foreign",
    "numa_interleave",
    "numa_local",
    "numa_other",
];

/// `/proc/zoneinfo`: a block begins where a line begins with `Node`; an expression finds node and zone; of other lines the first word is
/// the name and the second the number; `protection:` has a list in brackets.
///
/// # Errors
/// [`Refused`].
pub fn zoneinfo(text: &str) -> Result<Vec<Zone>, Refused> {
    let heading = expression(r"(?-u:(\d+), zone\s+(\w+))");
    let block = |block: &str| {
        let mut zone = Zone::default();
        for line in block.lines() {
            if let Some(found) = heading.captures(line) {
                zone.place = (found[1].to_owned(), found[2].to_owned());
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, value, ..] = words.as_slice() else {
                continue;
            };
            if LOOKED_FOR.contains(name) {
                zone.numbers.insert((*name).to_owned(), number(value)?);
            } else if *name == "protection:" {
                let (_, list) = line.split_once(':').unwrap_or_default();
                let list = list.replacen('(', "", 1).replacen(')', "", 1);
                let values = list.trim().split(", ").map(|value| number(&value));
                zone.protection = values.collect::<Result<_, _>>()?;
            }
        }
        Ok(zone)
    };
    text.split("\nNode").map(block).collect()
}

/// `/proc/pagetypeinfo` of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageTypes {
    /// log2 of the pages of a block, and the pages.
    pub block: (u64, u64),
    /// Free blocks by order, for each zone and type.
    pub free: Vec<(Place, String, Vec<u64>)>,
    /// Blocks of unmovable, movable, reclaimable and high-atomic pages, in this order, and of what comes behind; for each zone.
    pub blocks: Vec<(Place, Vec<u64>)>,
}

/// `/proc/pagetypeinfo` of one node: lines are told by what they begin with; in the two tables a comma is a blank, the second word is the
/// node, the fourth the zone, the sixth the type.
///
/// # Errors
/// [`Refused`].
pub fn pagetypeinfo(text: &str) -> Result<PageTypes, Refused> {
    let mut types = PageTypes::default();
    let mut is_free = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let behind_colon = || number(&line.split_once(':').unwrap_or_default().1.trim());
        if line.starts_with("Page block order:") {
            types.block.0 = behind_colon()?;
        } else if line.starts_with("Pages per block:") {
            types.block.1 = behind_colon()?;
        } else if line.starts_with("Free pages count per migrate type at order") {
            is_free = Some(true);
        } else if line.starts_with("Number of blocks type") {
            is_free = Some(false);
        } else {
            let line = line.replace(',', " ");
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, node, _, zone, rest @ ..] = words.as_slice() else {
                return Err(format!("too few words: {line:?}"));
            };
            let place = ((*node).to_owned(), (*zone).to_owned());
            match (is_free, rest) {
                (Some(true), [_, kind, counts @ ..]) => {
                    let counts = counts.iter().map(number).collect::<Result<_, _>>()?;
                    types.free.push((place, (*kind).to_owned(), counts));
                }
                (Some(false), counts @ [_, _, _, _, _, ..]) => {
                    let counts = counts.iter().map(number).collect::<Result<_, _>>()?;
                    types.blocks.push((place, counts));
                }
                _ => return Err(format!("in no table: {line:?}")),
            }
        }
    }
    Ok(types)
}

/// An area, as `/proc/vmallocinfo` describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Area {
    /// From its first address to behind its guard page.
    pub range: (u64, u64),
    /// How many bytes that is said to be.
    pub size: u64,
    /// Who asked for it.
    pub caller: String,
    /// Words without a value.
    pub options: Vec<String>,
    /// Words with one: `pages=3`.
    pub values: BTreeMap<String, String>,
}

/// `/proc/vmallocinfo`: two words are addresses and size; of the rest, if it is not `unpurged vm_area`, the first is who asked, and others
/// have a value behind `=`, or none.
///
/// # Errors
/// [`Refused`].
pub fn vmallocinfo(text: &str) -> Result<Vec<Area>, Refused> {
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let (Some(range), Some(size)) = (words.next(), words.next()) else {
            return Err(format!("too few words: {line:?}"));
        };
        let (start, end) = range
            .split_once('-')
            .ok_or_else(|| format!("no range: {line:?}"))?;
        let address = |text: &str| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            u64::from_str_radix(digits, 16).map_err(|error| format!("{text:?}: {error}"))
        };
        let mut area = Area {
            range: (address(start)?, address(end)?),
            size: number(&size)?,
            ..Area::default()
        };
        let details: Vec<&str> = words.collect();
        match details.as_slice() {
            [] => return Err(format!("too few words: {line:?}")),
            ["unpurged", "vm_area"] => area.caller = "unpurged vm_area".to_owned(),
            [caller, rest @ ..] => {
                area.caller = (*caller).to_owned();
                for word in rest {
                    match word.split_once('=') {
                        Some((_, value)) if value.contains('=') => {
                            return Err(format!("two values: {line:?}"));
                        }
                        Some((key, value)) => {
                            area.values.insert(key.to_owned(), value.to_owned());
                        }
                        None => area.options.push((*word).to_owned()),
                    }
                }
            }
        }
        Ok(area)
    };
    text.lines()
        .filter(|line| !line.is_empty())
        .map(read)
        .collect()
}

fn number(text: &&str) -> Result<u64, Refused> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn numbers<const N: usize>(words: [&str; N]) -> Result<[u64; N], Refused> {
    let mut numbers = [0; N];
    for (place, word) in numbers.iter_mut().zip(words) {
        *place = number(&word)?;
    }
    Ok(numbers)
}

/// One that is written above.
fn expression(text: &str) -> Regex {
    Regex::new(text).expect("it is an expression")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_would_refuse_is_refused() {
        assert!(buddyinfo("Node 0, zone\n").is_err());
        assert!(buddyinfo("Node 0, zone DMA 1 2\nNode 0, zone DMA32 1\n").is_err());
        assert!(buddyinfo("Node 0, zone DMA 1 >100000\n").is_err());
        let cache = "dentry 1 2 3 4 5 : tunables 0 0 0 : slabdata 1 2 0";
        assert!(slabinfo(cache).is_ok());
        // A blank at the end is one word more, and so is one in a name.
        assert!(slabinfo(&format!("{cache} ")).is_err());
        assert!(slabinfo(&cache.replace("dentry", "dir entry")).is_err());
        assert!(zoneinfo("Node 0, zone DMA\n  present many\n").is_err());
        assert!(zoneinfo("Node 0, zone DMA\n  protection: (0, x)\n").is_err());
        assert!(pagetypeinfo("Node 0, zone DMA, type Movable 1 2\n").is_err());
        assert!(pagetypeinfo("Number of blocks type\nNode 0, zone DMA 1 2 3 4\n").is_err());
        assert!(vmallocinfo("0x1000-0x3000 8192\n").is_err());
        assert!(vmallocinfo("0x1000 8192 somebody\n").is_err());
        assert!(vmallocinfo("0x1000-0x3000 8192 somebody a=b=c\n").is_err());
    }
}
