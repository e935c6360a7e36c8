//! Memory that is recorded for tests without a machine: only what a viewer reads of it is kept.
//!
//! `MM_RECORD=1` writes it to `tests/data/recorded-ram`; else it is looked at, and forgotten.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use boot_runner::show;
use libtest_mimic::Failed;
use mm_tests::recorded::{self, PAGE};
use mm_viewer::frame::describe;
use mm_viewer::history::History;
use mm_viewer::mapped::{self, Mapped};
use mm_viewer::snapshot::Snapshot;

use crate::seen;

/// A small machine that keeps what can be kept: owners of frames, and the last events of each CPU.
const OPTIONS: &str = "--memory 32M --cpus 2 --profile debug --events --cmdline page_owner=on";
/// Something of everything, at the end: stacks, areas, caches, pages of all types.
const COMMANDS: &str = "stress 400 seed=1; stress slab 200 seed=1; stress vmalloc 40 seed=1";
/// Bytes in the repository, at most.
const MOST: usize = 300 << 10;
/// Of so many frames one is looked at while pages are left out: there are a few in each page of records.
const STRIDE: u64 = 32;

/// All that a viewer finds out.
#[derive(PartialEq)]
struct Look {
    snapshot: String,
    frames: Vec<Vec<String>>,
    history: History,
    mapped: Vec<Mapped>,
}

fn look(files: &[PathBuf], frames: Option<&[u64]>) -> Option<Look> {
    let guest = show::attach(files).ok()?;
    let snapshot = Snapshot::take(&guest);
    let told = |pfn: u64| describe(&guest, &snapshot, pfn, &mut |_| None);
    Some(Look {
        frames: match frames {
            Some(some) => some.iter().copied().map(told).collect(),
            None => (0..snapshot.owners.len() as u64).map(told).collect(),
        },
        history: History::read(&guest, u64::MAX),
        mapped: mapped::kernel(&guest),
        snapshot: format!("{snapshot:?}"),
    })
}

/// A few frames of all, with everybody who allocated or freed some.
fn sample(whole: &Look) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let numbered = (0..).zip(&whole.frames);
    // Behind what it is and its record: who had it.
    let mut is_new = |told: &Vec<String>| {
        let who = told.iter().skip(2);
        who.filter(|line| seen.insert((*line).clone())).count() > 0
    };
    let kept = numbered.filter(|(pfn, told)| is_new(told) || pfn % STRIDE == 0);
    kept.map(|(pfn, _)| pfn).collect()
}

/// Fills pages of a file with zeros as long as nothing that is seen changes: halves, quarters, …, single pages.
struct Shrink<'f> {
    files: &'f [PathBuf],
    file: File,
    frames: Vec<u64>,
    wanted: Look,
}

impl Shrink<'_> {
    fn range(&self, first: usize, pages: usize) -> Result<(), Failed> {
        let at = (first * PAGE) as u64;
        let mut before = vec![0; pages * PAGE];
        self.file.read_exact_at(&mut before, at)?;
        if before.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        self.file.write_all_at(&vec![0; pages * PAGE], at)?;
        if look(self.files, Some(&self.frames)).is_some_and(|seen| seen == self.wanted) {
            return Ok(());
        }
        self.file.write_all_at(&before, at)?;
        if pages == 1 {
            return Ok(());
        }
        let half = pages / 2;
        self.range(first, half)?;
        self.range(first + half, pages - half)
    }
}

/// What is left of a machine's memory shows the same, and is small.
pub(crate) fn shows_the_same() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (_, files) = seen::ended(OPTIONS, COMMANDS, &folder.path().join("ram"))?;
    let [path] = files.as_slice() else {
        return Err("memory of one node is one file".into());
    };
    let whole = look(&files, None).ok_or("nothing is seen")?;
    let file = File::options().read(true).write(true).open(path)?;
    let pages = usize::try_from(file.metadata()?.len())? / PAGE;
    let frames = sample(&whole);
    let wanted = look(&files, Some(&frames)).ok_or("nothing is seen")?;
    let shrink = Shrink {
        files: &files,
        file,
        frames,
        wanted,
    };
    shrink.range(0, pages)?;
    let kept = look(&files, None).ok_or("nothing is seen of what was kept")?;
    if kept != whole {
        let mut frames = kept.frames.iter().zip(&whole.frames);
        let other = frames.find(|(kept, whole)| kept != whole);
        return Err(format!("less is seen of what was kept: {other:?}").into());
    }
    let packed = recorded::pack(path)?;
    if packed.len() > MOST {
        return Err(format!("{} bytes are too many", packed.len()).into());
    }
    if std::env::var_os("MM_RECORD").is_some_and(|value| value != "0") {
        fs::create_dir_all(recorded::folder())?;
        fs::write(recorded::packed(), packed)?;
    }
    Ok(())
}
