//! `mm` builds without features, with each alone, and with all: who takes one gets what it names, and nothing else changes.

use std::process::Command;

use crate::documents::read;
use crate::sources::root;

/// The features that `mm/Cargo.toml` declares.
fn features() -> Vec<String> {
    let manifest: toml::Table = read("mm/Cargo.toml").parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    features.keys().cloned().collect()
}

/// Checks `mm` with some features, warnings included; answers what the compiler said if it refused.
fn check(features: &str) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["check", "--quiet", "--locked", "--package", "mm", "--lib"])
        .args(["--no-default-features", "--features", features])
        .arg("--target-dir")
        .arg(root().join("target/features"))
        .env("RUSTFLAGS", "-D warnings")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root())
        .output()
        .expect("cargo runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_library_builds_without_features_with_each_alone_and_with_all() {
    let features = features();
    assert!(features.len() >= 2, "{features:?}");
    assert!(
        !features.contains(&"default".to_owned()),
        "who wants one says so"
    );
    let mut sets = vec![String::new(), features.join(",")];
    sets.extend(features);
    for set in sets {
        if let Err(said) = check(&set) {
            panic!("features `{set}`:\n{said}");
        }
    }
}

#[test]
fn the_check_of_features_can_fail() {
    let said = check("no-such-feature").unwrap_err();
    assert!(said.contains("no-such-feature"), "{said}");
}
