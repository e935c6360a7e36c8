//! The models of `mm/src/loom_tests`, built with `--cfg loom` by a cargo of their own and run: every
//! order of steps that the memory model allows, up to three switches that nobody asked for.

use std::process::Command;

use crate::sources::root;

/// Models that there are at least: one that is not built any more would not be missed.
const LEAST: usize = 41;

#[test]
fn every_order_of_steps_of_the_protocols_between_cpus_is_fine() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--locked", "--package", "mm", "--lib"])
        .arg("--target-dir")
        .arg(root().join("target/loom"))
        .args(["--", "loom_tests::"])
        .env("RUSTFLAGS", "--cfg loom")
        .env("RUST_BACKTRACE", "0")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let (said, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{log}");
    let models = said.lines().filter(|line| line.ends_with(" ... ok"));
    let models = models.count();
    assert!(models >= LEAST, "only {models} models:\n{said}");
}
