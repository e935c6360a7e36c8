//! Every benchmark of the kernel within its budget: `tests/budgets.toml`.
//!
//! With `MM_UPDATE_BUDGETS=1` the file and the tables of `docs/benchmarks.md` are written anew
//! from what is measured.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use boot_runner::host::workspace_root;
use boot_runner::outcome::RanCommands;
use libtest_mimic::{Failed, Trial};
use mm_tests::budgets::{self, Budgets, Table};

use crate::guest;

/// A machine that benchmarks run on.
#[derive(Clone, Copy)]
struct Machine {
    /// Its table in the file.
    name: &'static str,
    /// The runner's options, split at spaces.
    options: &'static str,
    /// What the shell runs.
    commands: &'static str,
}

const MACHINES: [Machine; 2] = [
    // As Linux's figures were taken: no checks, no zeroing.
    Machine {
        name: "plain-4G",
        options: "--profile plain --icount --cpus 1 --memory 4G --cmdline init_on_alloc=0",
        commands: "bench",
    },
    // As a user boots it.
    Machine {
        name: "default-512M",
        options: "--icount --cpus 1 --memory 512M",
        commands: "bench boot_*",
    },
];

/// One at a time writes files.
static FILES: Mutex<()> = Mutex::new(());

/// The trials: each machine's budgets, and that the document shows them.
pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    let measured = MACHINES
        .into_iter()
        .map(|machine| Trial::test(format!("budget::{}", machine.name), move || hold(machine)));
    measured.chain([Trial::test("budget::docs_show_the_budgets", docs_agree)])
}

/// Measures a machine, and compares or updates.
fn hold(machine: Machine) -> Result<(), Failed> {
    let recorded = guest::boot(&*guest::options(machine.options)?, machine.commands)?;
    let outcome = recorded.finished.outcome;
    if outcome.exit_status(RanCommands::Yes) != 0 {
        return Err(format!("{outcome}\n{}", recorded.serial).into());
    }
    let results = budgets::results(&recorded.serial);

    let _files = FILES.lock().unwrap();
    let mut all = read()?;
    let table = all.0.entry(machine.name.to_owned()).or_default();
    if is_updating() {
        budgets::update(&results, table).map_err(|gone| listed(&gone))?;
        return write(&all);
    }
    println!("{}\n{}", machine.name, budgets::report(&results, table));
    let violations = budgets::violations(&results, table);
    if violations.is_empty() {
        return Ok(());
    }
    Err(listed(&violations))
}

fn listed(violations: &[budgets::Violation]) -> Failed {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    let how = "to set budgets anew: MM_UPDATE_BUDGETS=1 cargo test -p mm-tests --test qemu budget";
    format!("{}\n{how}", lines.join("\n")).into()
}

/// The document's tables are those of the file.
fn docs_agree() -> Result<(), Failed> {
    let _files = FILES.lock().unwrap();
    if is_updating() {
        return Ok(());
    }
    let shown = fs::read_to_string(document())?;
    if shown != with_tables(&shown, &read()?)? {
        return Err("docs/benchmarks.md shows other figures than tests/budgets.toml".into());
    }
    Ok(())
}

fn with_tables(document: &str, all: &Budgets) -> Result<String, Failed> {
    let mut shown = document.to_owned();
    for machine in MACHINES {
        let empty = Table::new();
        let table = all.0.get(machine.name).unwrap_or(&empty);
        shown = budgets::with_table(&shown, machine.name, table)?;
    }
    Ok(shown)
}

fn is_updating() -> bool {
    env::var_os("MM_UPDATE_BUDGETS").is_some_and(|value| value != "0")
}

fn read() -> Result<Budgets, Failed> {
    Ok(Budgets::parse(&fs::read_to_string(file())?)?)
}

fn write(all: &Budgets) -> Result<(), Failed> {
    fs::write(file(), all.render())?;
    let shown = fs::read_to_string(document())?;
    fs::write(document(), with_tables(&shown, all)?)?;
    Ok(())
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets.toml")
}

fn document() -> PathBuf {
    workspace_root().join("docs/benchmarks.md")
}
