//! `crash`: fail on purpose, to see (and test) what the report says.

use super::{CommandError, CommandResult, no_arguments};
use crate::arch::crash as cause;
use crate::arch::{serial, smp};
use crate::memory::{pagealloc, wrong_uses};
use crate::{command, kprintln, ktest, ktest_assert};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

command! { "crash", "KIND", "fail on purpose; without KIND, an error and a list of the kinds", crash, "Kinds: panic overflow fault write call ud gp div nmi df oom nested nested-fault
locked smash page write-code run-data off-area vfree object assert all; `crash`
alone says what each does. Reports of page faults end with what `explain fault`
explains." }

/// Name, cause and description of a way to crash.
type Kind = (&'static str, fn() -> CommandResult, &'static str);

/// Every kind.
const KINDS: [Kind; 23] = [
    ("panic", panic_now, "a Rust panic"),
    ("overflow", overflow, "use the kernel stack up"),
    (
        "fault",
        || cause::bad_read(),
        "read an address nothing is mapped at",
    ),
    ("write", || cause::bad_write(), "write such an address"),
    ("call", || cause::bad_call(), "call such an address"),
    ("ud", || cause::invalid_opcode(), "an undefined instruction"),
    (
        "gp",
        || cause::general_protection(),
        "a non-canonical address",
    ),
    ("div", || cause::divide(), "divide by zero, in the CPU"),
    ("nmi", nmi, "a non-maskable interrupt"),
    ("df", || cause::double_fault(), "a double fault"),
    ("oom", out_of_memory, "use the early heap up"),
    ("nested", nested, "panic inside a panic's message"),
    (
        "nested-fault",
        nested_fault,
        "a page fault inside a panic's message",
    ),
    (
        "locked",
        locked,
        "a page fault while the terminal is locked",
    ),
    (
        "smash",
        || cause::lost_frame_pointer(),
        "a fault with a broken frame pointer",
    ),
    (
        "page",
        pagealloc::use_after_free,
        "read a free page (a crash with `debug_pagealloc=on` only)",
    ),
    (
        "write-code",
        wrong_uses::write_code,
        "write to the kernel's code",
    ),
    ("run-data", wrong_uses::run_data, "execute data"),
    (
        "off-area",
        wrong_uses::off_area,
        "read behind the end of an area of vmalloc",
    ),
    (
        "vfree",
        wrong_uses::after_vfree,
        "read an area of vmalloc after it was freed",
    ),
    (
        "object",
        wrong_uses::use_after_kfree,
        "write to an object after it was freed (a crash in the debug profile only)",
    ),
    ("assert", failed_assertion, "a failed bounds check"),
    ("all", all_panic, "a panic of all CPUs at once"),
];

fn crash(arguments: &[String]) -> CommandResult {
    let Some((kind, rest)) = arguments.split_first() else {
        for (name, _, what) in KINDS {
            kprintln!("{name:<12} {what}");
        }
        return Err(CommandError::usage("which kind?"));
    };
    no_arguments(rest)?;
    let Some((_, run, _)) = KINDS.into_iter().find(|(name, _, _)| name == kind) else {
        let names = KINDS.map(|(name, _, _)| name).join(", ");
        return Err(CommandError::usage(format_args!(
            "unknown kind `{kind}`, known are {names}"
        )));
    };
    run()?;
    Err(CommandError::failed("the kernel survived"))
}

#[expect(clippy::panic, reason = "panicking is what this is for")]
fn panic_now() -> CommandResult {
    panic!("crash panic: on purpose")
}

fn overflow() -> CommandResult {
    let sum = cause::stack_overflow();
    Err(CommandError::failed(sum))
}

fn nmi() -> CommandResult {
    cause::nmi();
    Ok(())
}

fn out_of_memory() -> CommandResult {
    let mut blocks = Vec::new();
    loop {
        blocks.push([0_u64; 512]);
    }
}

/// Panics while it is printed.
struct Broken;

impl fmt::Display for Broken {
    #[expect(clippy::panic, reason = "panicking is what this is for")]
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("crash nested: in a message")
    }
}

#[expect(clippy::panic, reason = "panicking is what this is for")]
fn nested() -> CommandResult {
    panic!("crash nested: {Broken}")
}

/// Faults while it is printed.
struct Unmapped;

impl fmt::Display for Unmapped {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        cause::bad_read()
    }
}

#[expect(clippy::panic, reason = "panicking is what this is for")]
fn nested_fault() -> CommandResult {
    panic!("crash nested-fault: {Unmapped}")
}

fn locked() -> CommandResult {
    let _held = serial::lock();
    cause::bad_read()
}

fn all_panic() -> CommandResult {
    smp::run_on_each(u32::MAX, &|_| {
        let _ = panic_now();
    });
    Ok(())
}

fn failed_assertion() -> CommandResult {
    let list: Vec<u8> = Vec::new();
    let index = core::hint::black_box(3);
    Err(CommandError::failed(list[index]))
}

ktest! {
    fn help_names_every_kind_of_crash() {
        let details = super::find("crash").map_or("", |command| command.details);
        for (name, ..) in KINDS {
            ktest_assert!(details.split_whitespace().any(|word| word.trim_end_matches(';') == name), "`help crash` lacks `{name}`");
        }
        Ok(())
    }
}
