//! How the runner watches a machine, tried on hand-made kernels of a few instructions: each
//! prints one text on the serial line and then ends in its own way.
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test may fail"
)]

use core::time::Duration;

use boot_runner::cmdline::CommandLine;
use boot_runner::image::KernelImage;
use boot_runner::machine::Machine;
use boot_runner::outcome::Outcome;
use boot_runner::vm::{Boot, Recorded};

const BASE: u32 = 0x10_0000;

/// What a kernel does after it has printed.
enum Ending {
    /// Writes the value to the debug-exit port.
    Verdict(u8),
    /// Raises an exception with no table to take it from.
    TripleFault,
    /// Sleeps for ever.
    Halt,
}

impl Ending {
    fn code(&self) -> Vec<u8> {
        match self {
            // mov eax, value; mov dx, 0xf4; out dx, eax; hlt; jmp back
            Self::Verdict(value) => {
                vec![
                    0xb8, *value, 0, 0, 0, 0x66, 0xba, 0xf4, 0, 0xef, 0xf4, 0xeb, 0xfd,
                ]
            }
            // mov eax, 0x100000; lidt [eax] (the ELF's first bytes: no valid table); ud2
            Self::TripleFault => {
                vec![0xb8, 0, 0, 0x10, 0, 0x0f, 0x01, 0x18, 0x0f, 0x0b]
            }
            // hlt; jmp back
            Self::Halt => vec![0xf4, 0xeb, 0xfd],
        }
    }
}

/// A 32-bit ELF with a PVH note, loaded whole at [`BASE`].
fn kernel(text: &str, ending: &Ending) -> Vec<u8> {
    const NOTE_AT: u32 = 52 + 2 * 32;
    const NOTE_SIZE: u32 = 20;
    const CODE_AT: u32 = NOTE_AT + NOTE_SIZE;

    let tail = ending.code();
    // mov dx, 0x3f8; mov esi, text; 1: lodsb; test al, al; jz 2f; out dx, al; jmp 1b; 2:
    let print = [
        0x66, 0xba, 0xf8, 0x03, 0xbe, 0, 0, 0, 0, 0xac, 0x84, 0xc0, 0x74, 3, 0xee, 0xeb, 0xf8,
    ];
    let text_at = BASE + CODE_AT + u32::try_from(print.len() + tail.len()).unwrap();
    let size = text_at - BASE + u32::try_from(text.len()).unwrap() + 1;

    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    // version, entry, program headers at, sections at, flags; sizes and counts
    words(
        &mut file,
        &[1, BASE + CODE_AT, 52, 0, 0, 52 | 32 << 16, 2 | 40 << 16, 0],
    );
    words(&mut file, &[1, 0, BASE, BASE, size, size, 7, 4096]);
    let note = BASE + NOTE_AT;
    words(
        &mut file,
        &[4, NOTE_AT, note, note, NOTE_SIZE, NOTE_SIZE, 4, 4],
    );
    words(&mut file, &[4, 4, 18]);
    file.extend(b"Xen\0");
    words(&mut file, &[BASE + CODE_AT]);
    file.extend(print);
    file.splice(file.len() - 12..file.len() - 8, text_at.to_le_bytes());
    file.extend(tail);
    file.extend(text.bytes().chain([0]));
    file
}

fn words(file: &mut Vec<u8>, values: &[u32]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn boot(text: &str, ending: &Ending, timeout: u64, machine: Machine) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let elf = folder.path().join("kernel");
    std::fs::write(&elf, kernel(text, ending)).unwrap();
    let boot = Boot {
        image: KernelImage { elf },
        machine,
        cmdline: CommandLine::default(),
        timeout: Some(Duration::from_secs(timeout)),
    };
    boot.record().unwrap()
}

#[test]
fn each_way_to_end_is_told_apart_and_the_output_is_kept() {
    for (ending, timeout, outcome) in [
        (Ending::Verdict(0x10), 30, Outcome::Passed),
        (Ending::Verdict(0x11), 30, Outcome::CommandFailed),
        (Ending::Verdict(0x12), 30, Outcome::Panicked),
        (Ending::Verdict(0x15), 30, Outcome::Faulted),
        (Ending::Verdict(0x33), 30, Outcome::UnknownVerdict(0x33)),
        (Ending::TripleFault, 30, Outcome::TripleFaulted),
        (Ending::Halt, 2, Outcome::TimedOut),
    ] {
        let recorded = boot("hello\r\n", &ending, timeout, Machine::default());
        assert_eq!(recorded.finished.outcome, outcome);
        assert_eq!(recorded.serial, "hello\r\n", "{outcome:?}");
    }
}

#[test]
fn memory_far_beyond_the_hosts_and_forty_bits_can_be_had() {
    for (memory, board) in [
        ("64G", "q35"),
        ("961G", "q35"),
        ("1012G", "pc"),
        ("2T", "microvm"),
        ("4T", "q35"),
    ] {
        let (memory, board) = (memory.parse().unwrap(), board.parse().unwrap());
        let machine = Machine {
            memory,
            board,
            ..Machine::default()
        };
        let recorded = boot("hello", &Ending::Verdict(0x10), 60, machine);
        assert_eq!(
            recorded.finished.outcome,
            Outcome::Passed,
            "{memory} {board}: {recorded:?}"
        );
    }
}

#[test]
fn a_qemu_that_refuses_its_arguments_has_failed_and_said_why() {
    let machine = Machine {
        extra_args: vec!["-frobnicate".to_owned()],
        ..Machine::default()
    };
    let recorded = boot("hello", &Ending::Halt, 30, machine);
    assert_eq!(recorded.finished.outcome, Outcome::QemuFailed(Some(1)));
    assert!(recorded.finished.qemu_messages.contains("frobnicate"));
}

#[test]
fn a_timeout_leaves_no_qemu_behind() {
    let machine = Machine {
        extra_args: vec!["-name".into(), "mm-orphan".into()],
        ..Machine::default()
    };
    let recorded = boot("hello", &Ending::Halt, 1, machine);
    assert_eq!(recorded.finished.outcome, Outcome::TimedOut);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut commands =
        processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    assert!(!commands.any(|command| command.windows(9).any(|part| part == b"mm-orphan")));
}
