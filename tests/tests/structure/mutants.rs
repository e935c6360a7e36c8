//! Small deliberate faults, each of which the tests must notice.
//!
//! A file `tests/mutants/NAME.mutant` says what is wrong, in which file, and which text is put in
//! place of which. [`every_mutant_applies`] keeps the list current; the tests that build and run
//! mutants take long and are ignored unless asked for:
//!
//! ```text
//! cargo test -p mm-tests --test structure -- --ignored a_few_mutants_are_killed
//! cargo test -p mm-tests --test structure -- --ignored --nocapture all_mutants_are_killed
//! MM_MUTANTS=NAME,NAME cargo test -p mm-tests --test structure -- --ignored all_mutants
//! cargo test -p mm-tests --test structure -- --ignored --nocapture step_by_step
//! ```

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sources::root;

/// How long the tests of a mutant may take, building a kernel included; one that hangs is killed by that.
const PATIENCE: Duration = Duration::from_secs(480);
/// The mutants of the short form: one in memblock, one in the buddy, one in the locks.
const FEW: [&str; 3] = [
    "hand-over-rounds-out",
    "merge-keeps-buddy",
    "lock-keeps-irqs-masked",
];

struct Mutant {
    name: String,
    what: String,
    /// Whether the single-step test must notice it.
    is_stepped: bool,
    file: PathBuf,
    find: String,
    put: String,
}

impl Mutant {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let parts = text
            .split_once("--- find\n")
            .and_then(|(head, rest)| Some((head, rest.split_once("--- put\n")?)));
        let (head, (find, put)) = parts.unwrap_or_else(|| panic!("{name}: no find, no put"));
        let field = |key: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{name}: no `{key}`"))
                .trim()
                .to_owned()
        };
        Self {
            what: field("what:"),
            is_stepped: head.lines().any(|line| line == "also: single_step"),
            file: field("file:").into(),
            find: find.to_owned(),
            put: put.to_owned(),
            name,
        }
    }

    /// The file with the fault in it.
    fn applied(&self, text: &str) -> String {
        let places = text.matches(&self.find).count();
        let (name, file) = (&self.name, self.file.display());
        assert_eq!(places, 1, "{name}: the text must occur once in {file}");
        text.replacen(&self.find, &self.put, 1)
    }
}

fn mutants() -> Vec<Mutant> {
    let folder = fs::read_dir(root().join("tests/mutants")).unwrap();
    let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Mutant::read(path)).collect()
}

#[test]
fn every_mutant_applies() {
    let mutants = mutants();
    assert!(mutants.len() >= 15);
    for mutant in &mutants {
        let text = fs::read_to_string(root().join(&mutant.file)).unwrap();
        assert_ne!(
            mutant.applied(&text),
            text,
            "{} changes nothing",
            mutant.name
        );
        assert!(!mutant.what.is_empty());
    }
    for name in FEW {
        assert!(
            mutants.iter().any(|mutant| mutant.name == name),
            "{name} is gone"
        );
    }
}

#[test]
#[ignore = "builds the tests several times"]
fn a_few_mutants_are_killed() {
    kill(&SUITES[..2], |mutant| FEW.contains(&mutant.name.as_str()));
}

#[test]
#[ignore = "builds the tests once for each mutant"]
fn all_mutants_are_killed() {
    let wanted = std::env::var("MM_MUTANTS").unwrap_or_default();
    let names: Vec<_> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    kill(&SUITES, |mutant| {
        names.is_empty() || names.contains(&mutant.name.as_str())
    });
}

/// Those that say so are noticed by the single-step test in the kernel, too.
#[test]
#[ignore = "builds a kernel for each mutant"]
fn mutants_of_hot_paths_are_killed_step_by_step() {
    assert!(mutants().iter().filter(|mutant| mutant.is_stepped).count() >= 2);
    kill(&[STEPS], |mutant| mutant.is_stepped);
}

/// Applies each mutant to a copy of the sources and runs the tests there.
fn kill(suites: &[Suite], wanted: impl Fn(&Mutant) -> bool) {
    let tree = root().join("target/mutants/tree");
    copy(&root(), &tree);
    name_apart(&tree);
    let healthy = judge(&tree, suites);
    assert!(
        matches!(healthy, Verdict::Alive),
        "without a mutant: {healthy:?}"
    );

    let mut survivors = Vec::new();
    for mutant in mutants().iter().filter(|mutant| wanted(mutant)) {
        let start = Instant::now();
        let path = tree.join(&mutant.file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, mutant.applied(&text)).unwrap();
        let mut suites = suites.to_vec();
        // The tests of its own area are the likeliest to notice it.
        suites.sort_by_key(|suite| !suite.is_about(&mutant.file));
        let verdict = judge(&tree, &suites);
        fs::write(&path, text).unwrap();
        match verdict {
            Verdict::Killed(test) => {
                let seconds = start.elapsed().as_secs();
                println!("{}: killed by {test} ({seconds} s)", mutant.name);
            }
            verdict => survivors.push(format!("{} ({verdict:?}): {}", mutant.name, mutant.what)),
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
}

/// What the tests make of a tree.
#[derive(Debug)]
enum Verdict {
    /// It does not even compile: the mutant proves nothing.
    NotBuilt,
    /// No test noticed anything.
    Alive,
    /// This test did.
    Killed(String),
}

/// Tests that are built and run together.
#[derive(Clone, Copy)]
struct Suite {
    /// The sources that they are about most of all, if there are such.
    areas: &'static [&'static str],
    /// Whether they are models that loom runs.
    is_loom: bool,
    /// What cargo is to build.
    tests: &'static [&'static str],
    /// What the tests are told: which parts to skip, because they take long and notice nothing that the
    /// others miss.
    arguments: &'static [&'static str],
}

/// In the order in which they are asked, unless a mutant lies in the area of a later one.
const SUITES: [Suite; 15] = [
    Suite {
        areas: &[],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "frames"],
        arguments: &["--skip", "replay::", "--skip", "concurrency::"],
    },
    Suite {
        areas: &["mm/src/system"],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "watermarks"],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/slab",
            "mm/src/adapters/objects",
            "mm/src/system/objects",
            "mm/src/system/slab_faults",
            "mm/src/system/object_owners",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "objects"],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/kspace/percpu",
            "mm/src/kspace/raw/percpu",
            "mm/src/system/percpu",
            "mm/src/adapters/percpu",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "percpu"],
        arguments: &[],
    },
    Suite {
        areas: &["mm/src/memblock"],
        is_loom: false,
        tests: &[
            "--package",
            "mm",
            "--lib",
            "--package",
            "mm-tests",
            "--test",
            "memblock_alloc",
            "--test",
            "memblock_tables",
            "--test",
            "memblock_numa",
        ],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/platform/tlb.rs",
            "mm/src/sync/grace/epoch.rs",
            "mm/src/sync/bell.rs",
            "mm/src/sync/owner.rs",
            "mm/src/sync/presence.rs",
            "mm/src/sync/refcount.rs",
            "mm/src/sync/shootdown.rs",
            "mm/src/sync/shootdown",
            "mm/src/sync/under_way.rs",
            "mm/src/frame/record.rs",
            "mm/src/frame/stack.rs",
            "mm/src/kspace/raw/link.rs",
        ],
        is_loom: true,
        tests: &["--package", "mm", "--lib"],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/sync/grace.rs",
            "mm/src/sync/grace",
            "mm/src/system/defer.rs",
            "mm/src/system/defer",
            "mm/src/system/drain.rs",
            "mm/src/system/grace.rs",
            "mm/src/system/nolock.rs",
            "mm/src/zone/nolock.rs",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "grace"],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/pagetable",
            "mm/src/adapters/page_tables",
            "mm/src/adapters/set_memory",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "pagetable"],
        arguments: &["sparse"],
    },
    Suite {
        areas: &["mm/src/pagetable"],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "virtual_memory"],
        arguments: &["pages"],
    },
    Suite {
        areas: &["mm/src/system/tlb.rs", "mm/src/kspace/early.rs"],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "virtual_memory"],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/numa",
            "mm/src/numa.rs",
            "mm/src/system/node_states.rs",
            "mm/src/system/policy.rs",
            "mm/src/zone/numa_stats.rs",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "numa"],
        arguments: &[],
    },
    Suite {
        areas: &[
            "mm/src/collections/range_tree.rs",
            "mm/src/kspace",
            "mm/src/adapters/supply.rs",
            "mm/src/adapters/vmalloc.rs",
            "mm/src/adapters/vmap.rs",
            "mm/src/adapters/deferred.rs",
            "mm/src/adapters/kvmalloc.rs",
            "mm/src/system/page_tables.rs",
            "mm/src/system/purge.rs",
            "mm/src/system/vmalloc.rs",
            "mm/src/system/vmap.rs",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "vmalloc"],
        arguments: &["--skip", "suite::"],
    },
    Suite {
        areas: &[
            "mm/src/proc/shortage.rs",
            "mm/src/proc/story.rs",
            "mm/src/slab/story.rs",
        ],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "proc_files"],
        arguments: &["stories::"],
    },
    Suite {
        areas: &["mm/src/inspect", "mm/src/addr/place.rs", "viewer/src"],
        is_loom: false,
        tests: &["--package", "mm-tests", "--test", "seen"],
        arguments: &[],
    },
    Suite {
        areas: &["boot/src"],
        is_loom: false,
        tests: &["--package", "boot"],
        arguments: &[],
    },
];

/// The single-step test in QEMU.
const STEPS: Suite = Suite {
    areas: &[],
    is_loom: false,
    tests: &["--package", "mm-tests", "--test", "qemu"],
    arguments: &["single_step::hardened"],
};

impl Suite {
    /// Where it is built. Other flags would have all that was built for the others built anew.
    const fn target(&self) -> &'static str {
        if self.is_loom {
            "target/loom"
        } else {
            "target"
        }
    }

    fn is_about(&self, file: &Path) -> bool {
        self.areas.iter().any(|area| file.starts_with(area))
    }
}

/// Builds and runs the suites until a test fails.
fn judge(tree: &Path, suites: &[Suite]) -> Verdict {
    for suite in suites {
        let Some(programs) = build(tree, suite) else {
            return Verdict::NotBuilt;
        };
        assert!(!programs.is_empty(), "cargo built no tests");
        for program in programs {
            if let Some(test) = run(tree, &program, suite.arguments) {
                return Verdict::Killed(test);
            }
        }
    }
    Verdict::Alive
}

/// Gives the packages of a tree another version. With one target directory for both, cargo would
/// take what was built from the tree for the workspace's own, and the other way round: names of
/// packages and places within a workspace are all that it goes by.
fn name_apart(tree: &Path) {
    let manifest = tree.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let ours = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    // Theirs, and what they ask of each other.
    let theirs = text.replace(ours, "version = \"0.0.0-mutant\"");
    assert_ne!(text, theirs, "no version to replace");
    fs::write(manifest, theirs).unwrap();
}

/// Builds tests; the answer is the programs. What the tree shares with the workspace (all that
/// comes from elsewhere) is built already, since both use one target directory.
fn build(tree: &Path, suite: &Suite) -> Option<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--offline", "--no-run", "--quiet"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(suite.tests)
        .arg("--target-dir")
        .arg(root().join(suite.target()))
        .envs(suite.is_loom.then_some(("RUSTFLAGS", "--cfg loom")))
        .current_dir(tree)
        .stdin(Stdio::null())
        .output()
        .expect("cargo runs");
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let said = String::from_utf8(output.stdout).unwrap();
    let messages = said.lines().map(serde_json::from_str::<Value>);
    let programs = messages.filter_map(|message| {
        let program = message.unwrap()["executable"].as_str()?.to_owned();
        Some(program.into())
    });
    Some(programs.collect())
}

/// Runs tests up to the first that fails; the answer is its name.
fn run(tree: &Path, program: &Path, arguments: &[&str]) -> Option<String> {
    let mut tests = Command::new(program)
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env_remove("MM_SEED")
        .current_dir(tree.join("tests"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(tests.stdout.take().unwrap());
    let (tell, failed) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(test) = failed_test(&line) {
                // Nobody listens any more once the first has been heard of.
                let _ = tell.send(test.to_owned());
            }
        }
    });
    // The channel closes when the tests close their end of the pipe.
    let first = failed.recv_timeout(PATIENCE);
    if !matches!(first, Err(RecvTimeoutError::Disconnected)) {
        tests.kill().unwrap();
    }
    let status = tests.wait().unwrap();
    reader.join().unwrap();
    match first {
        Ok(test) => Some(test),
        Err(RecvTimeoutError::Timeout) => Some("a test that never ended".to_owned()),
        Err(RecvTimeoutError::Disconnected) if status.success() => None,
        Err(RecvTimeoutError::Disconnected) => Some(format!("a crash: {status}")),
    }
}

/// The test that a line says has failed.
fn failed_test(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.trim_end_matches(" - should panic"))
}

/// Copies what differs, so that cargo builds again only what changed.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, name) = (entry.path(), entry.file_name());
        if name == "target" || name == ".git" {
            continue;
        }
        let target = to.join(&name);
        if source.is_dir() {
            copy(&source, &target);
        } else if fs::read(&source).ok() != fs::read(&target).ok() {
            fs::copy(&source, &target).unwrap();
        }
    }
}
