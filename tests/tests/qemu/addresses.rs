//! The commands about kernel addresses, what is said to those who mistype them, crashes of this half, and the boot log that
//! the README shows.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};

use crate::cases::Ending;
use crate::{ending, guest, succeeds_and_says, trial};

/// Terminals are no wider.
const COLUMNS: usize = 80;

/// Each ends with a status and says something.
const ENDINGS: &[Ending] = &[
    crash(
        "write-code",
        "crash write-code",
        "kernel write: the page's rights forbid it",
    ),
    crash(
        "run-data",
        "crash run-data",
        "instruction fetch: the page's rights forbid it",
    ),
    crash(
        "off-area",
        "crash off-area",
        "kernel read: page not present, at 0xffffc9",
    ),
    crash(
        "vfree",
        "crash vfree",
        "; it was given back, and is kept ready for the next one.",
    ),
    refused(
        "a_free_page_within_reach",
        "crash page",
        "nothing happened: boot with `debug_pagealloc=on`",
    ),
    refused(
        "an_unknown_region",
        "ptdump pages",
        "there are direct map, vmalloc, vmemmap, percpu, fixmap, kernel image\n",
    ),
    refused(
        "a_number_that_is_too_large",
        "explain vmalloc 99999999999999999999",
        "`99999999999999999999` does not fit into 64 bits",
    ),
    refused(
        "no_blank_behind_a_command_without_arguments",
        "stacks 1",
        "\nusage: stacks\n",
    ),
];

/// All of them.
pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    let endings = ENDINGS.iter().map(|case| {
        trial("addresses", case.name, || {
            let (status, said) = ending(case)?;
            match status == case.status && said.replace('\r', "").contains(case.says) {
                true => Ok(()),
                false => {
                    Err(format!("exit status {status}, wanted {:?}:\n{said}", case.says).into())
                }
            }
        })
    });
    endings.chain([
        trial("addresses", "are_told_by_commands", are_told_by_commands),
        trial(
            "addresses",
            "help_fits_on_a_terminal",
            help_fits_on_a_terminal,
        ),
        trial(
            "addresses",
            "the_readme_shows_a_boot",
            the_readme_shows_a_boot,
        ),
        trial(
            "addresses",
            "the_readme_shows_commands",
            the_readme_shows_commands_about_addresses,
        ),
    ])
}

fn are_told_by_commands() -> Result<(), Failed> {
    let commands = "cpu 1 offline; tlb; stacks; percpu; percpu alloc 300; percpu free; ptdump 'direct map'; \
                    ptdump kernel image; ptdump percpu; ptdump 0xffff880000001000 0xffff880000005000; \
                    vtop 0xffffffff80000000; explain fault 0xffffffff80200100; explain fault 0xffffffff80100000; \
                    explain vmalloc 16M; explain vmalloc 1; vmallocinfo";
    let says = [
        "\n  0  runs ",
        "\n  1  offline ",
        "CPU 0, main: thread 1, shell\n",
        "CPU 1, main: thread 2, idle/1\n",
        "\nchunks      0: ",
        "\nchunks      1: 1 by nodes",
        "\n---[ direct map ]---\n0xffff880000000000-",
        "\n---[ kernel image ]---\n0xffffffff80200000-",
        "\nnothing is mapped there\n",
        // Not to the end of the run.
        "\n0xffff880000001000-0xffff880000005000         16K       RW ",
        "  the next page of the kernel image region is at 0xffffffff80200000\n",
        "\nIt is in the image, Kernel code: ",
        "\nNothing is mapped there: the image is at 0xffffffff80200000, ",
        // One line for all of them.
        "16777216 bytes are 4096 pages, and one more that stays unmapped.\nThe area got ",
        " is mapped in 4096 pages of 4K, the first of which is at frame ",
        "\n1 byte is 1 page, and one more that stays unmapped.\n",
        " in 1 page of 4K, ",
        "\nsince boot: ",
    ];
    succeeds_and_says("--cpus 2", commands, &says)?;
    // Every stack once.
    let options = guest::options("--cpus 2")?;
    let recorded = guest::boot(&options, "stacks")?;
    let mut starts: Vec<&str> = recorded
        .serial
        .lines()
        .filter(|line| line.starts_with("0xffff"))
        .filter_map(|line| line.split('-').next())
        .collect();
    let lines = starts.len();
    starts.sort_unstable();
    starts.dedup();
    match lines == starts.len() && lines > 16 {
        true => Ok(()),
        false => Err(format!("{lines} lines, {} stacks", starts.len()).into()),
    }
}

/// The list, and what it says of each command that has more to say.
fn help_fits_on_a_terminal() -> Result<(), Failed> {
    let more = "explain vtop ptdump tlb stacks vmallocinfo percpu crash help numactl";
    let commands: Vec<String> = more.split(' ').map(|name| format!("help {name}")).collect();
    let options = guest::options("")?;
    let recorded = guest::boot(&options, &format!("help; {}", commands.join("; ")))?;
    let printed = recorded.serial.replace('\r', "");
    let help = printed
        .split_once("\nacpi ")
        .ok_or("no list of commands")?
        .1;
    match help.lines().find(|line| line.chars().count() > COLUMNS) {
        None => Ok(()),
        Some(line) => Err(format!("more than {COLUMNS} columns:\n{line}").into()),
    }
}

/// A line of the log with its numbers, and what the shell was told to do, left out.
fn shape(line: &str) -> String {
    let text = line.split_once("] ").map_or(line, |(_, text)| text);
    let text = text
        .split_once("Command line:")
        .map_or(text, |_| "Command line:");
    let is_digit = |character: char| character.is_ascii_hexdigit() || character == 'x';
    let words = text.split(' ').map(|word| {
        match word.contains(|character: char| character.is_ascii_digit()) {
            true => word.replace(is_digit, ""),
            false => word.to_owned(),
        }
    });
    let words: Vec<String> = words.collect();
    words.join(" ").trim_end().to_owned()
}

/// The README's text behind a command.
fn readme_behind(command: &str) -> Result<String, Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md"))?;
    let behind = readme.split_once(command).ok_or("no such block")?.1;
    Ok(behind.split("```").next().unwrap_or_default().to_owned())
}

/// Line by line, but for numbers; `…` stands for any lines.
fn agree<'a>(
    shown: impl Iterator<Item = &'a str>,
    real: impl Iterator<Item = &'a str>,
) -> Result<u32, Failed> {
    let mut real = real.map(|line| shape(line.trim_end())).peekable();
    let (mut skips, mut count) = (false, 0);
    for line in shown {
        if line == "…" {
            skips = true;
            continue;
        }
        let wanted = shape(line);
        while skips && real.next_if(|line| *line != wanted).is_some() {}
        skips = false;
        if real.next_if(|line| *line == wanted).is_none() {
            let there = real.peek();
            return Err(format!("the README has `{line}` where the kernel says {there:?}").into());
        }
        count += 1;
    }
    match real.next() {
        Some(line) => Err(format!("the README ends before `{line}`").into()),
        None => Ok(count),
    }
}

fn the_readme_shows_a_boot() -> Result<(), Failed> {
    let shown = readme_behind("\n$ cargo run\n")?;
    let shown = shown
        .lines()
        .take_while(|line| line.starts_with(['[', '…']));
    let recorded = guest::boot(&*guest::options("")?, "help")?;
    let log = recorded.serial.lines().filter(|line| line.starts_with('['));
    match agree(shown, log)? {
        31.. => Ok(()),
        count => Err(format!("only {count} lines").into()),
    }
}

fn the_readme_shows_commands_about_addresses() -> Result<(), Failed> {
    let shown = readme_behind("\n$ cargo run -- --exec 'vtop ")?;
    let (commands, shown) = shown.split_once("'\n").ok_or("no commands")?;
    let recorded = guest::boot(&*guest::options("")?, &format!("vtop {commands}"))?;
    let last = |line: &&str| !line.starts_with("  #0 ");
    // The function's name is the runner's.
    agree(
        shown.lines().filter(last),
        recorded.serial.lines().filter(last),
    )
    .map(|_| ())
}

const fn crash(name: &'static str, exec: &'static str, says: &'static str) -> Ending {
    Ending {
        name,
        options: "",
        exec: Some(exec),
        status: 102,
        says,
    }
}

const fn refused(name: &'static str, exec: &'static str, says: &'static str) -> Ending {
    Ending {
        name,
        options: "",
        exec: Some(exec),
        status: 1,
        says,
    }
}
