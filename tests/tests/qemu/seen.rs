//! Memory seen from outside is memory as the kernel counts it: frames by their use, zones, caches, areas; while it runs, and when
//! it has ended.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread;

use boot_runner::outcome::RanCommands;
use boot_runner::show;
use libtest_mimic::Failed;
use mm::report::EventKind;
use mm_viewer::guest::Guest;
use mm_viewer::history::History;
use mm_viewer::owner::Owner;
use mm_viewer::picture::Picture;
use mm_viewer::snapshot::Snapshot;
use mm_viewer::{mapped, space, splits};

use crate::guest;

/// A machine whose memory is looked at.
pub(crate) struct Seen {
    /// Name of the test, after `seen::`.
    pub(crate) name: &'static str,
    options: &'static str,
}

/// Small ones, ones with memory on both sides of 4 GiB, in one file and in many, and each protocol.
pub(crate) const SEEN: &[Seen] = &[
    seen("one_cpu", ""),
    seen("four_cpus_debug", "--cpus 4 --profile debug"),
    seen("plain_6G", "--profile plain --memory 6G"),
    seen("pc_5G_max", "--machine pc --cpu max --memory 5G"),
    seen("two_nodes_6G", "--numa 2 --cpus 2 --memory 6G"),
    seen(
        "microvm_populated_at_boot",
        "--machine microvm --cmdline populate=boot",
    ),
    seen("bios", "--firmware bios"),
];

const fn seen(name: &'static str, options: &'static str) -> Seen {
    Seen { name, options }
}

/// The files are read at once.
const COUNTS: &str =
    "stress 20000; stress slab 2000; cat /proc/meminfo; cat /proc/slabinfo; cat /proc/buddyinfo";

/// Runs commands, its memory in a file. Answers what was printed, and in which files the memory is.
pub(crate) fn ended(
    options: &str,
    commands: &str,
    file: &std::path::Path,
) -> Result<(String, Vec<PathBuf>), Failed> {
    let mut options = guest::options(options)?;
    options.machine.ram_file = Some(file.to_owned());
    let recorded = guest::boot(&options, commands)?;
    let printed = recorded.serial.replace('\r', "");
    match recorded.finished.outcome.exit_status(RanCommands::Yes) {
        0 => Ok((printed, options.machine.ram_files())),
        _ => Err(format!("{}\n{printed}", recorded.finished.outcome).into()),
    }
}

/// What the kernel printed last, and what is seen when it has ended, are the same.
pub(crate) fn agrees(case: &Seen) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (printed, files) = ended(case.options, COUNTS, &folder.path().join("ram"))?;
    let guest = show::attach(&files).map_err(|error| error.to_string())?;
    if History::read(&guest, u64::MAX) != History::default() {
        return Err("something is recorded that nobody asked for".into());
    }
    let snapshot = Snapshot::take(&guest);
    let counts = snapshot.counts();
    let of = |owner: Owner| counts[owner.index()] * 4;
    let free: u64 = Owner::ALL
        .into_iter()
        .filter(|owner| owner.is_free())
        .map(of)
        .sum();
    let numbers = [
        ("MemFree:", free),
        ("Slab:", of(Owner::Slab)),
        ("PageTables:", of(Owner::PageTable)),
    ];
    for (name, seen) in numbers {
        let line = printed.lines().find(|line| line.starts_with(name));
        let told = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        if told != Some(seen) {
            return Err(format!("{name} {told:?} kB, and {seen} are seen\n{printed}").into());
        }
    }
    let listed: u64 = snapshot
        .zones
        .iter()
        .flat_map(|zone| &zone.lists)
        .map(|list| list.count)
        .sum();
    if counts[Owner::PerCpu.index()] != listed {
        return Err(format!("{listed} frames are on lists: {counts:?}").into());
    }
    same_blocks(&snapshot, &printed)?;
    same_caches(&snapshot, &printed)?;
    if counts[Owner::Stack.index()] == 0 || snapshot.areas.is_empty() {
        return Err("no stacks are seen".into());
    }
    // A dot is a frame, and has its colour.
    let picture = Picture::new(&snapshot, case.name);
    let (dots, log) = picture.dots();
    match (log, dots == counts) {
        (0, false) => Err(format!("{dots:?} dots for {counts:?}").into()),
        _ => Ok(()),
    }
}

/// `/proc/buddyinfo` has what the records of free blocks add up to, but for what is not populated.
fn same_blocks(snapshot: &Snapshot, printed: &str) -> Result<(), Failed> {
    for zone in &snapshot.zones {
        let start = format!("Node {}, zone {:>8} ", zone.node, zone.name);
        let line = printed.lines().find_map(|line| line.strip_prefix(&start));
        let line = line.ok_or_else(|| format!("no {start:?} in {printed}"))?;
        let told: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if told != zone.blocks[..told.len()] {
            return Err(format!("{start}{told:?}, and {:?} are seen", zone.blocks).into());
        }
    }
    Ok(())
}

/// `/proc/slabinfo` names the caches and their slabs; sizes there are those of the places, which are larger in `debug`.
fn same_caches(snapshot: &Snapshot, printed: &str) -> Result<(), Failed> {
    let (_, table) = printed.split_once("# name ").ok_or("no slabinfo")?;
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("Node "));
    let mut told: Vec<(String, u64)> = rows
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let slabs = words.iter().rposition(|&word| word == "slabdata")?;
            let number = |place: usize| words.get(place)?.parse().ok();
            // As many bytes of a name as an entry has room for.
            let name = words[0].chars().take(16).collect();
            Some((name, number(slabs + 2)?))
        })
        .collect();
    let caches = snapshot.caches.iter();
    let mut seen: Vec<_> = caches
        .map(|cache| (cache.name.clone(), cache.slabs))
        .collect();
    told.sort();
    seen.sort();
    match told == seen && told.len() >= 52 {
        true => Ok(()),
        false => Err(format!("{told:?}, and {seen:?} are seen").into()),
    }
}

/// A machine is seen while it runs, and has no part in it: it counts as many instructions.
pub(crate) fn live() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ram");
    let bench = "bench page_o0,kmalloc_64,vmalloc_4K";
    let options = "--profile plain --icount";
    let told = |printed: &str| -> Vec<String> {
        let lines = printed.lines().filter(|line| line.starts_with("BENCH "));
        lines.map(str::to_owned).collect()
    };
    let alone = guest::boot(&*guest::options(options)?, bench)?
        .serial
        .replace('\r', "");
    let looked = thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looks = 0;
            // The file is gone when the machine is.
            for _ in 0..6000 {
                let files = [file.clone()];
                if let Ok(mut guest) = show::attach(&files) {
                    looks += u64::from(look(&mut guest));
                } else if looks > 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            looks
        });
        let ran = ended(options, bench, &file);
        let gone = std::fs::remove_file(&file);
        let looks = looker.join().unwrap_or(0);
        gone.map_err(Failed::from)
            .and(ran)
            .map(|(printed, _)| (printed, looks))
    });
    let (printed, looks) = looked?;
    if told(&printed).len() != 3 || told(&printed) != told(&alone) {
        return Err(format!("{:?}, and alone {:?}", told(&printed), told(&alone)).into());
    }
    match looks {
        0 => Err("nobody looked while it ran".into()),
        _ => Ok(()),
    }
}

/// What is mapped at the kernel's addresses is what its own `ptdump` says, by rights and size of pages.
pub(crate) fn addresses() -> Result<(), Failed> {
    for options in [
        "--cmdline populate=boot",
        "--cpu max --memory 6G --cpus 2 --cmdline populate=boot",
    ] {
        let folder = tempfile::tempdir()?;
        let (printed, files) = ended(options, "ptdump", &folder.path().join("ram"))?;
        let guest = show::attach(&files).map_err(|error| error.to_string())?;
        let mapped = mapped::kernel(&guest);
        let mut seen = BTreeMap::new();
        for run in &mapped {
            *seen.entry((run.rights(), run.page)).or_insert(0) += run.bytes();
        }
        let mut told = BTreeMap::new();
        for (range, words) in printed.lines().filter_map(|line| line.split_once("  ")) {
            let Some((start, end)) = range.split_once('-') else {
                continue;
            };
            let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
            let words: Vec<&str> = words.split_whitespace().collect();
            let page = match words.last() {
                Some(&"pte") => 12,
                Some(&"pmd") => 21,
                Some(&"pud") => 30,
                _ => continue,
            };
            let rights = match (words.contains(&"RW"), words.contains(&"x")) {
                (true, true) => "rwx",
                (true, false) => "rw-",
                (false, true) => "r-x",
                (false, false) => "r--",
            };
            if let Some((start, end)) = number(start).zip(number(end)) {
                *told.entry((rights, page)).or_insert(0) += end.wrapping_sub(start);
            }
        }
        if seen != told || seen.len() < 4 {
            return Err(format!("{seen:?} are seen, {told:?} are told\n{printed}").into());
        }
        let drawing = space::draw(&guest, options);
        if !drawing.contains("kernel image: 0xffffffff80000000") || !drawing.ends_with("</svg>\n") {
            return Err(drawing.into());
        }
    }
    Ok(())
}

/// What a kernel that records has recorded, of each CPU and in one order, and with it how a block was halved and merged.
pub(crate) fn past() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let options = "--events --cpus 2 --memory 256M";
    let commands = "stress 5000; stress vmalloc 200";
    let (printed, files) = ended(options, commands, &folder.path().join("ram"))?;
    let guest = show::attach(&files).map_err(|error| error.to_string())?;
    let history = History::read(&guest, u64::MAX);
    let is_sorted = history.events.is_sorted_by_key(|happening| happening.time);
    let missing: Vec<_> = EventKind::ALL
        .into_iter()
        .filter(|&kind| !matches!(kind, EventKind::Steal | EventKind::Populate))
        .filter(|&kind| {
            !history
                .events
                .iter()
                .any(|happening| happening.event.kind == kind)
        })
        .collect();
    let cpus: BTreeSet<_> = history
        .events
        .iter()
        .map(|happening| happening.cpu)
        .collect();
    if !is_sorted || !missing.is_empty() || cpus != BTreeSet::from([0, 1]) {
        let count = history.events.len();
        return Err(format!("{count} events, {missing:?} are missing\n{printed}").into());
    }
    let kept = history
        .events
        .iter()
        .filter(|happening| happening.cpu == 0)
        .count();
    if kept > 1 << 16 || history.per_second.is_none() {
        return Err(format!("{kept} events of CPU 0, {:?} a second", history.per_second).into());
    }
    let now = Snapshot::take(&guest).owners;
    let before = history.undo(&now, usize::MAX);
    let changed = now
        .iter()
        .zip(&before)
        .filter(|(now, before)| now != before)
        .count();
    match splits::svg(&history) {
        Some(drawing) if drawing.starts_with("<svg") && changed > 0 => Ok(()),
        _ => Err(format!("nothing to draw, {changed} frames changed").into()),
    }
}

/// Whether something was seen: zones, with something free.
fn look(guest: &mut Guest) -> bool {
    guest.refresh();
    let snapshot = Snapshot::take(guest);
    snapshot.zones.iter().any(|zone| zone.free() > 0)
}
