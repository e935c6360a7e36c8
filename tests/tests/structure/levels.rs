//! A module uses lower levels only, and `unsafe` stays in its rooms.

use crate::sources::{Source, sources};

/// Every module's level. A module may use the levels below its own, and itself.
const LEVELS: [(&str, u32); 19] = [
    ("addr", 0),
    ("config", 0),
    ("numa", 0),
    ("platform", 0),
    ("report", 0),
    ("mem", 1),
    ("sync", 1),
    ("collections", 1),
    ("frame", 2),
    ("memblock", 2),
    ("buddy", 3),
    ("zone", 3),
    ("slab", 4),
    ("pagetable", 4),
    ("kspace", 5),
    ("system", 8),
    ("inspect", 8),
    ("proc", 8),
    ("adapters", 8),
];

/// Modules of one level that may use each other: the vocabulary of level 0, arrays under the
/// collections and under what each CPU has, and zones with their free areas.
const EQUALS: [&[&str]; 4] = [
    &["addr", "config", "numa", "platform", "report"],
    &["mem", "sync", "collections"],
    &["buddy", "zone"],
    &["system", "inspect", "proc", "adapters"],
];

/// Rooms for `unsafe`, each with how many lines of code and how many uses it may hold at most.
/// A room grows by changing this table, where a reviewer sees it. Files in a room that forbid
/// `unsafe` do not count.
const ROOMS: [(&str, usize, usize); 8] = [
    ("platform", 250, 1),
    ("sync", 960, 22),
    ("mem", 292, 17),
    ("frame/table", 1085, 32),
    ("slab/object", 640, 46),
    ("pagetable/entry_io", 85, 4),
    ("kspace/raw", 620, 41),
    ("adapters", 2400, 275),
];

/// Heads of modules that have a room below them: they cannot forbid `unsafe` for it, so they must
/// do without.
const HEADS: [&str; 4] = ["frame", "kspace", "slab", "pagetable"];

fn level(module: &str) -> u32 {
    let found = LEVELS.iter().find(|(name, _)| *name == module);
    found
        .unwrap_or_else(|| panic!("module `{module}` has no level: give it one"))
        .1
}

/// Modules of this crate that a line names.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn may_use(user: &str, used: &str) -> bool {
    let equals = EQUALS
        .iter()
        .any(|set| set.contains(&user) && set.contains(&used));
    user == used || equals || level(used) < level(user)
}

#[test]
fn modules_use_lower_levels_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let user = source.module();
        for line in source.code() {
            let upwards = named(line).filter(|used| !may_use(user, used));
            wrong.extend(upwards.map(|used| format!("{} uses {used}: {line}", source.name)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_level_check_can_fail() {
    assert!(!may_use("addr", "buddy") && !may_use("frame", "zone") && may_use("zone", "buddy"));
    let line = "use crate::{zone::Zone}; let x = crate::zone::plan::Plan; crate::buddy::Gfp";
    assert_eq!(named(line).collect::<Vec<_>>(), ["", "zone", "buddy"]);
}

/// The room that a file is in.
fn room(source: &Source) -> Option<usize> {
    ROOMS.iter().position(|(room, _, _)| {
        let inside = source.name.strip_prefix(room);
        inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn uses_of_unsafe(source: &Source) -> usize {
    let code = source.code().filter(|line| !line.contains("unsafe_code"));
    code.map(|line| line.matches("unsafe ").count()).sum()
}

#[test]
fn everything_outside_the_rooms_forbids_unsafe() {
    for source in sources() {
        let name = &source.name;
        if room(&source).is_some() || HEADS.contains(&name.as_str()) {
            continue;
        }
        let forbids = source.text.contains("#![forbid(unsafe_code)]\n");
        assert!(forbids, "mm/src/{name}.rs does not forbid unsafe code");
    }
    for source in sources()
        .iter()
        .filter(|source| HEADS.contains(&source.name.as_str()))
    {
        assert_eq!(uses_of_unsafe(source), 0, "{}", source.name);
    }
}

#[test]
fn the_rooms_stay_within_their_budget() {
    let mut totals = [(0, 0); ROOMS.len()];
    for source in sources() {
        let forbids = source.text.contains("#![forbid(unsafe_code)]\n");
        if let Some(room) = room(&source).filter(|_| !forbids) {
            totals[room].0 += source.code().count();
            totals[room].1 += uses_of_unsafe(&source);
        }
    }
    for ((room, lines, uses), (its_lines, its_uses)) in ROOMS.iter().zip(totals) {
        println!("{room}: {its_lines} lines, {its_uses} uses of unsafe");
        assert!(its_lines > 0, "room `{room}` is gone");
        assert!(
            its_lines <= *lines,
            "{room}: {its_lines} lines, {lines} allowed"
        );
        assert!(
            its_uses <= *uses,
            "{room}: {its_uses} uses of unsafe, {uses} allowed"
        );
    }
}

#[test]
fn no_file_of_the_library_is_longer_than_six_hundred_lines() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= 600, "mm/src/{}.rs has {lines} lines", source.name);
    }
}
