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
//! ```

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::sources::root;

/// How long the tests of a mutant may take; one that hangs is killed by that.
const PATIENCE: Duration = Duration::from_secs(240);
/// The mutants of the short form: one in memblock, one in the buddy, one in the locks.
const FEW: [&str; 3] = [
    "hand-over-rounds-out",
    "merge-keeps-buddy",
    "lock-keeps-irqs-masked",
];

struct Mutant {
    name: String,
    what: String,
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
    kill(|mutant| FEW.contains(&mutant.name.as_str()));
}

#[test]
#[ignore = "builds the tests once for each mutant"]
fn all_mutants_are_killed() {
    let wanted = std::env::var("MM_MUTANTS").unwrap_or_default();
    let names: Vec<_> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    kill(|mutant| names.is_empty() || names.contains(&mutant.name.as_str()));
}

/// Applies each mutant to a copy of the sources and runs the tests there.
fn kill(wanted: impl Fn(&Mutant) -> bool) {
    let tree = root().join("target/mutants/tree");
    copy(&root(), &tree);
    let healthy = judge(&tree);
    assert!(
        matches!(healthy, Verdict::Alive),
        "without a mutant: {healthy:?}"
    );

    let mut survivors = Vec::new();
    for mutant in mutants().iter().filter(|mutant| wanted(mutant)) {
        let path = tree.join(&mutant.file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, mutant.applied(&text)).unwrap();
        let verdict = judge(&tree);
        fs::write(&path, text).unwrap();
        match verdict {
            Verdict::Killed(test) => println!("{}: killed by {test}", mutant.name),
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

/// The tests, those first that notice most. What takes long and notices nothing that the others
/// miss is left out.
const STAGES: [(&[&str], &[&str]); 2] = [
    (
        &["--package", "mm-tests", "--test", "frames"],
        &[
            "--skip",
            "firmware::",
            "--skip",
            "replay::",
            "--skip",
            "concurrency::",
        ],
    ),
    (
        &[
            "--package",
            "mm",
            "--lib",
            "--package",
            "mm-tests",
            "--test",
            "memblock_alloc",
            "--test",
            "memblock_tables",
        ],
        &[],
    ),
];

fn judge(tree: &Path) -> Verdict {
    for (what, filter) in STAGES {
        let output = cargo(tree, what).args(["--quiet", "--no-run"]).output();
        let output = output.expect("cargo runs");
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stderr));
            return Verdict::NotBuilt;
        }
        let (status, said) = run(cargo(tree, what).arg("--").args(filter));
        match status {
            Some(status) if status.success() => {}
            Some(_) => return Verdict::Killed(killer(&said)),
            None => return Verdict::Killed("a test that never ended".to_owned()),
        }
    }
    Verdict::Alive
}

/// The tests that failed, as far as their names came through.
fn killer(said: &str) -> String {
    let failed = said.lines().filter_map(|line| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.trim_end_matches(" - should panic"))
    });
    let names: Vec<_> = failed.collect();
    match names.as_slice() {
        [] => "a crash".to_owned(),
        [one] => (*one).to_owned(),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

fn cargo(tree: &Path, what: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["test", "--locked"])
        .args(what)
        .arg("--target-dir")
        .arg(root().join("target/mutants/target"))
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env_remove("MM_SEED")
        .current_dir(tree)
        .stdin(Stdio::null());
    cargo
}

/// Runs tests; no status if they had to be stopped.
fn run(tests: &mut Command) -> (Option<ExitStatus>, String) {
    let mut child = tests
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stdout.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > PATIENCE {
            stop(child.id());
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    (status, reader.join().unwrap())
}

/// Stops cargo and the tests it started.
fn stop(cargo: u32) {
    let children = fs::read_to_string(format!("/proc/{cargo}/task/{cargo}/children"));
    let children = children.unwrap_or_default();
    for id in children
        .split_whitespace()
        .chain([cargo.to_string().as_str()])
    {
        let _ = Command::new("kill").args(["-KILL", id]).status();
    }
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
