//! Reports that end the kernel say in a paragraph what the address was, or where memory went, behind a backtrace with names.
//! (What is said of faults that a kernel can survive, `selftest::stories` looks at.)

use libtest_mimic::{Failed, Trial};

use crate::cases::Ending;
use crate::{ending, trial};

/// A report.
struct Story {
    /// Name of the test, after `stories::`.
    name: &'static str,
    options: &'static str,
    commands: &'static str,
    status: u8,
    /// What it says, in this order.
    says: &'static [&'static str],
}

const BACKTRACE: &str = "\nbacktrace:\n  #0 0xffffffff8";

const STORIES: &[Story] = &[
    Story {
        name: "stack_overflow",
        options: "--cpus 2",
        commands: "on 1 crash overflow",
        status: 102,
        says: &[
            "UNEXPECTED EXCEPTION on CPU 1: #",
            "KERNEL STACK OVERFLOW",
            BACKTRACE,
            "kernel::arch::crash::stack_overflow",
            "\nIt is the guard page below the stack of thread ",
            " `kworker/1`: an access there is an overflow of it.",
        ],
    },
    Story {
        name: "double_fault",
        options: "",
        commands: "crash df",
        status: 102,
        says: &[
            "UNEXPECTED EXCEPTION on CPU 0: #DF double fault",
            BACKTRACE,
            "kernel::arch::crash::general_protection",
            "\nwhat the stack pointer is, 0xffff",
            "\nIt is the stack of thread 1 `shell`, ",
            " bytes below its top.",
        ],
    },
    Story {
        name: "general_protection",
        options: "",
        commands: "crash gp",
        status: 102,
        says: &[
            "#GP general protection fault",
            BACKTRACE,
            "kernel::arch::crash::general_protection",
            ", 0x8000000000000000:\nIt is no address: a pointer that something else was written over.",
        ],
    },
    Story {
        name: "behind_an_area",
        options: "",
        commands: "crash off-area",
        status: 102,
        says: &[
            "kernel read: page not present, at 0xffffc9",
            BACKTRACE,
            "kernel::memory::wrong_uses::off_area",
            "\nIt is the guard page behind an area (vmalloc) of 4096 bytes at 0xffffc9",
            ", allocated at kernel/src/memory/wrong_uses.rs:",
        ],
    },
    Story {
        name: "write_to_code",
        options: "",
        commands: "crash write-code",
        status: 102,
        says: &[
            "kernel write: the page's rights forbid it",
            BACKTRACE,
            "kernel::memory::wrong_uses::write_code",
            "\nIt is in the image, Kernel code: it is read and executed, and whoever writes to it has a page fault.",
        ],
    },
    Story {
        name: "free_page",
        options: "--cmdline 'debug_pagealloc=on page_owner=on'",
        commands: "crash page",
        status: 102,
        says: &[
            BACKTRACE,
            "kernel::memory::pagealloc::use_after_free",
            "\nIt is byte 0x0 of a free page, in a block of order 0 on a CPU's list, frame 0x",
            "; allocated last at kernel/src/memory/pagealloc.rs:",
            "; freed last by task 1 on CPU 0, from\n  #0 0xffffffff8",
            "kernel::memory::pagealloc::use_after_free",
        ],
    },
    Story {
        name: "out_of_memory",
        options: "--memory 64M --cmdline page_owner=on",
        commands: "crash oom",
        status: 101,
        says: &[
            "PANIC on CPU 0: memory allocation of ",
            BACKTRACE,
            "kernel::shell::crash::out_of_memory",
            "\nwhere memory went:\nOf ",
            " pages, ",
            " are in use as whole pages; ",
            " allocated most of all pages: ",
        ],
    },
    Story {
        name: "corruption_in_debug",
        options: "--profile debug",
        commands: "crash object",
        status: 101,
        says: &[
            "FATAL: memory corruption: crash: object ",
            "allocated at kernel/src/memory/wrong_uses.rs:",
            "freed at kernel/src/memory/wrong_uses.rs:",
            BACKTRACE,
            "kernel::memory::wrong_uses::use_after_kfree",
        ],
    },
    Story {
        name: "corruption_survived",
        options: "",
        commands: "crash object",
        status: 1,
        says: &[
            "error: memory corruption: crash: object ",
            "freed at kernel/src/memory/wrong_uses.rs:",
            BACKTRACE,
            "kernel::memory::wrong_uses::use_after_kfree",
            "crash: error: the kernel survived",
        ],
    },
];

/// All of them.
pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    let told = STORIES.iter();
    told.map(|story| trial("stories", story.name, || is_told(story)))
}

fn is_told(story: &Story) -> Result<(), Failed> {
    let case = Ending {
        name: story.name,
        options: story.options,
        exec: Some(story.commands),
        status: story.status,
        says: "",
    };
    let (status, said) = ending(&case)?;
    let said = said.replace('\r', "");
    let mut rest = said.as_str();
    for words in story.says {
        let Some((_, behind)) = rest.split_once(words) else {
            return Err(format!("no {words:?} where it should be in:\n{said}").into());
        };
        rest = behind;
    }
    match status == story.status {
        true => Ok(()),
        false => Err(format!("exit status {status}:\n{said}").into()),
    }
}
