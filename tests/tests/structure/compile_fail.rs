//! R02: what the types rule out. Each file in `tests/compile-fail` must be refused by rustc with
//! exactly the error codes that its `//~` lines name; `fine.rs` must be accepted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::sources::root;

/// The compiled library, and where what it depends on lies.
struct Library {
    file: PathBuf,
    folder: PathBuf,
}

impl Library {
    /// Builds the library for snippets to link against.
    fn build() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--package", "mm", "--lib"])
            .args(["--message-format", "json", "--target-dir"])
            .arg(root().join("target/compile-fail"))
            .current_dir(root())
            .output()
            .expect("cargo runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "building mm: {log}");
        let messages = String::from_utf8(output.stdout).unwrap();
        let artifacts = messages
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut files = artifacts
            .filter(|message: &Value| message["target"]["name"] == "mm")
            .filter_map(|message| {
                let files = message["filenames"].as_array()?.clone();
                files.into_iter().find_map(|file| {
                    let file = file.as_str()?.to_owned();
                    file.ends_with(".rlib").then(|| PathBuf::from(file))
                })
            });
        let file = files.next_back().expect("cargo names the library");
        let folder = file.parent().unwrap().join("deps");
        Self { file, folder }
    }

    /// Compiles a snippet; answers the codes of the errors and what rustc said.
    fn compile(&self, snippet: &Path) -> (BTreeSet<String>, String) {
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(compiler)
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "lib",
                "--emit",
                "metadata",
            ])
            .args([
                "--error-format",
                "json",
                "--cap-lints",
                "allow",
                "--out-dir",
            ])
            .arg(env!("CARGO_TARGET_TMPDIR"))
            .arg("--extern")
            .arg(format!("mm={}", self.file.display()))
            .arg("-L")
            .arg(format!("dependency={}", self.folder.display()))
            .arg(snippet)
            .current_dir(root())
            .output()
            .expect("rustc runs");
        let said = String::from_utf8(output.stderr).unwrap();
        let errors = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["level"] == "error");
        let codes = errors.filter_map(|message| Some(message["code"]["code"].as_str()?.to_owned()));
        let codes: BTreeSet<_> = codes.collect();
        assert_eq!(codes.is_empty(), output.status.success(), "{said}");
        (codes, said)
    }
}

#[test]
fn what_the_types_rule_out_does_not_compile() {
    let library = Library::build();
    let folder = root().join("tests/compile-fail");
    let (mut refused, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let codes = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("//~ "));
        let expected: BTreeSet<_> = codes.map(str::to_owned).collect();
        let (found, said) = library.compile(&path);
        if found != expected {
            wrong.push(format!(
                "{}: {expected:?}, not {found:?}\n{said}",
                path.display()
            ));
        }
        refused += usize::from(!expected.is_empty());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused >= 12, "only {refused} snippets must fail");
}
