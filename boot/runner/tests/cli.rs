//! The program itself: what a user sees of arguments that are wrong.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::process::Command;

fn run(line: &str) -> (Option<i32>, String, String) {
    let words = line.split_whitespace();
    let output = Command::new(env!("CARGO_BIN_EXE_mm-run"))
        .args(words)
        .output()
        .unwrap();
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
