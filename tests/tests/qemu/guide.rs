//! `docs/porting.md` is followed to the letter: its first kernel is made from the page's own blocks, built outside of the
//! workspace by a cargo of its own, and booted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boot_runner::host::workspace_root;
use boot_runner::image::KernelImage;
use boot_runner::outcome::Outcome;
use boot_runner::vm::Boot;
use libtest_mimic::Failed;

use crate::guest;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The blocks of a page that begin with a first line, in their order.
fn blocks<'a>(page: &'a str, first: &str) -> Vec<&'a str> {
    let opening = format!("```{first}\n");
    let blocks = page.split(&opening).skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

/// Writes the three files that the page shows to `folder`.
fn write_project(folder: &Path) -> Result<(), Failed> {
    let root = workspace_root();
    let page = fs::read_to_string(root.join("docs/porting.md"))?;
    let manifest = blocks(&page, "toml");
    let manifest = manifest.first().ok_or("the page has no manifest")?;
    let place = root.to_str().ok_or("a path that is no text")?;
    // It lies in the folder of another workspace here.
    let manifest = format!("{}\n[workspace]\n", manifest.replace('…', place));
    let build = blocks(&page, "rust,file=examples/tiny-kernel/build.rs");
    let main = blocks(&page, "rust,file=examples/tiny-kernel/src/main.rs");

    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("build.rs"), build.concat())?;
    fs::write(folder.join("src/main.rs"), main.join("\n"))?;
    // The same versions as here, and nothing to be looked up.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(())
}

/// Builds it as the page says.
fn build(folder: &Path) -> Result<PathBuf, Failed> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo.args(["build", "--quiet", "--release", "--target", TARGET]);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    let output = cargo.current_dir(folder).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(folder.join("target").join(TARGET).join("release/my-kernel"))
}

/// Who copies the page has a kernel that boots, uses memory and misses none.
pub(crate) fn is_followed() -> Result<(), Failed> {
    let folder = workspace_root().join("target/guide");
    write_project(&folder)?;
    let elf = build(&folder)?;
    let options = guest::options("")?;
    let boot = Boot {
        image: KernelImage { elf },
        machine: options.machine.clone(),
        cmdline: options.cmdline.clone(),
        timeout: Some(guest::DIRECT_LIMIT),
    };
    let recorded = boot.record().map_err(|error| error.to_string())?;
    let (outcome, serial) = (recorded.finished.outcome, &recorded.serial);
    if outcome != Outcome::Passed || !serial.contains("1000 names, DmaBuffer") {
        return Err(format!("{outcome}:\n{serial}").into());
    }
    Ok(())
}
