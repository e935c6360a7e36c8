//! The program itself, as a user or a script meets it.
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test may fail"
)]

use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

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
        ("frobnicate", "unexpected argument `frobnicate`"),
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

/// Minutes may lie between the start of a run and the picture of its end.
#[test]
fn what_cannot_be_shown_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    for option in ["--picture", "--movie", "--splits", "--addresses"] {
        for path in ["/nowhere/at/all.out", &folder.to_string()] {
            let (status, stdout, stderr) = run(&format!("{option} {path} --exec help"));
            assert_eq!(
                (status, stdout.as_str()),
                (Some(121), ""),
                "{option} {path}"
            );
            let reason = format!("mm-run: cannot create {path}: ");
            assert!(stderr.starts_with(&reason), "{option}: {stderr}");
        }
    }
    let (status, stdout, stderr) = run("--view --exec help");
    assert_eq!((status, stdout.as_str()), (Some(121), ""));
    assert!(stderr.contains("standard output is none"), "{stderr}");
}

/// Of a machine that did not even start there is no picture, but that is not the news.
#[test]
fn how_a_machine_ended_is_told_also_if_there_is_nothing_to_see_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    let line = format!(
        "--picture {} --qemu-arg -nonsense --exec help",
        path.display()
    );
    let (status, _, stderr) = run(&line);
    assert_eq!(status, Some(125), "{stderr}");
    assert!(stderr.contains("-nonsense"), "{stderr}");
    assert!(!path.exists());
    let line = format!("--splits {} --exec frobnicate", path.display());
    let (status, _, stderr) = run(&line);
    assert_eq!(status, Some(1), "{stderr}");
}

/// Runs the program with `lines` on its standard input; its status and what the machine printed.
fn typed(lines: &str) -> (Option<i32>, String) {
    let mut program = Command::new(PROGRAM)
        .args(["--timeout", "60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = program.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let output = program.wait_with_output().unwrap();
    let serial = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    (output.status.code(), serial)
}

#[test]
fn lines_on_standard_input_are_typed_into_the_shell_which_then_ends() {
    let (status, serial) = typed("echo typed line\necho without line end");
    assert_eq!(status, Some(0), "{serial}");
    assert!(serial.contains("\ntyped line\n"), "{serial}");
    assert!(serial.contains("\nwithout line end\n"), "{serial}");
}

#[test]
fn a_failed_command_on_standard_input_shows_in_the_status() {
    for lines in [
        "frobnicate\necho the rest still runs",
        "echo the rest still runs; frobnicate; poweroff",
        "echo the rest still runs; 'open",
    ] {
        let (status, serial) = typed(lines);
        assert_eq!(status, Some(1), "{lines}: {serial}");
    }
}

/// The program with a terminal on its standard input, and the other end of that terminal.
fn on_a_terminal() -> (Child, File) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let program = Command::new(PROGRAM)
        .args(["--timeout", "60"])
        .stdin(terminal)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    (program, File::from(keyboard))
}

/// What the program prints.
struct Screen {
    output: ChildStdout,
    /// Read, but not yet looked at.
    rest: Vec<u8>,
}

impl Screen {
    /// Reads up to and with the next `text`.
    fn until(&mut self, text: &str) -> String {
        loop {
            let mut windows = self.rest.windows(text.len());
            if let Some(at) = windows.position(|part| part == text.as_bytes()) {
                let seen: Vec<u8> = self.rest.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&seen).into_owned();
            }
            let mut piece = [0; 512];
            let count = self.output.read(&mut piece).unwrap();
            let so_far = String::from_utf8_lossy(&self.rest);
            assert_ne!(count, 0, "no {text:?} in {so_far}");
            self.rest.extend(&piece[..count]);
        }
    }
}

#[test]
fn ctrl_c_stops_a_command_and_the_shell_goes_on() {
    let (mut program, mut keyboard) = on_a_terminal();
    let output = program.stdout.take().unwrap();
    let rest = Vec::new();
    let mut screen = Screen { output, rest };
    let banner = screen.until("mm> ");
    assert!(banner.contains("`poweroff` to leave"), "{banner}");

    for (command, begun) in [
        ("stress 1000000000", "seed"),
        ("workload 1000000000 1", "digest"),
        ("bench; bench; bench; bench", "BENCH "),
        ("time stress 1000000000; echo not reached", "seed"),
    ] {
        keyboard
            .write_all(format!("{command}\r").as_bytes())
            .unwrap();
        // The echo first, which is the command's own text.
        screen.until("\r\n");
        screen.until(begun);
        keyboard.write_all(b"\x03").unwrap();
        let said = screen.until("mm> ");
        assert!(said.contains("^C"), "{command}: {said}");
        assert!(said.contains(": error: interrupted"), "{command}: {said}");
        assert!(!said.contains("not reached"), "{command}: {said}");
    }

    keyboard.write_all(b"stress 1000\r").unwrap();
    let said = screen.until("mm> ");
    assert!(said.contains("no violations"), "{said}");
    keyboard.write_all(b"poweroff\r").unwrap();
    // What failed on the terminal was seen there.
    assert_eq!(program.wait().unwrap().code(), Some(0));
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
        // Not what is about to become it: that does not yet end with the program.
        commands.any(|command| {
            let command = String::from_utf8_lossy(&command);
            let first = command.split('\0').next().unwrap_or_default();
            first.contains("qemu") && command.contains(&name)
        })
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
