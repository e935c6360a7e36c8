//! The program itself, as a user or a script meets it.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use core::time::Duration;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mm-run");

fn run(line: &str) -> (Option<i32>, String, String) {
    let words = line.split_whitespace();
    let output = Command::new(PROGRAM).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn help_is_on_standard_output_and_success() {
    let (status, stdout, stderr) = run("--help");
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    for option in [
        "--memory",
        "--cpus",
        "--machine",
        "--firmware",
        "--grub-line",
        "--cpu",
        "--cmdline",
        "--profile",
        "--exec",
        "--icount",
        "--debug",
        "--display",
        "--gdb",
        "--timeout",
        "--qemu-arg",
    ] {
        assert!(stdout.contains(&format!("  {option} ")), "{option}");
    }
}

#[test]
fn a_wrong_argument_is_named_and_the_status_is_2() {
    for (line, reason) in [
        ("--frobnicate", "there is no option --frobnicate"),
        ("--memory lots", "`lots` is not an amount of memory"),
        (
            "--machine microvm --firmware uefi",
            "--machine microvm has no drive",
        ),
        ("--exec \"", "cannot contain a double quote"),
    ] {
        let (status, stdout, stderr) = run(line);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{line}");
        assert!(stderr.contains(reason), "{line}: {stderr}");
        assert!(stderr.contains("cargo run -- --help"), "{line}: {stderr}");
    }
}

#[test]
fn lines_on_standard_input_are_typed_into_the_shell_which_then_ends() {
    let mut program = Command::new(PROGRAM)
        .args(["--timeout", "60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program
        .stdin
        .take()
        .unwrap()
        .write_all(b"echo typed line\necho without line end")
        .unwrap();
    let output = program.wait_with_output().unwrap();
    let serial = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert_eq!(output.status.code(), Some(0), "{serial}");
    assert!(serial.contains("\ntyped line\n"), "{serial}");
    assert!(serial.contains("\nwithout line end\n"), "{serial}");
}

#[test]
fn a_killed_program_takes_its_qemu_with_it() {
    let name = format!("mm-orphan-{}", std::process::id());
    let mut program = Command::new(PROGRAM)
        .args([
            "--timeout",
            "60",
            "--qemu-arg",
            "-name",
            "--qemu-arg",
            &name,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let own = program.id();
    let qemu_runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let others = processes.filter(|entry| *entry.file_name() != *own.to_string());
        let mut commands = others.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
        commands.any(|command| String::from_utf8_lossy(&command).contains(&name))
    };
    assert!(
        within(Duration::from_secs(120), qemu_runs),
        "it never started"
    );
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(
        within(Duration::from_secs(10), || !qemu_runs()),
        "it lives on"
    );
}

/// Waits for `condition`; false when it does not come true in `limit`.
fn within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
