//! The kernel in QEMU, as tests of `cargo test`: boots ([`cases`]), the example kernels ([`examples`]), benchmarks
//! against their budgets ([`budgets`]), and each in-kernel test by its name on each machine
//! ([`ktests`]).
//!
//! QEMU is installed when it is missing, as by `cargo run`. Only a listing (`-- --list`) leaves
//! the machine as it is: without QEMU it shows the boots and says that it knows no more.

mod addresses;
mod bad_input;
mod budgets;
mod cases;
mod counting;
mod cpus;
mod examples;
mod guest;
mod guide;
mod ktests;
mod levels;
mod nodes;
mod others;
mod overflows;
mod pictures;
mod recording;
mod replay;
mod screen;
mod seen;
mod shown;
mod sizes;
mod steps;
mod stories;
mod tables;

use std::process::ExitCode;

use boot_runner::machine::Firmware;
use boot_runner::options::Invocation;
use boot_runner::outcome::{Outcome, RanCommands};
use boot_runner::tools;
use libtest_mimic::{Arguments, Failed, Trial};

use bad_input::{ODDITIES, REFUSALS};
use cases::{
    BOOT_COMMANDS, BOOT_SAYS, BOOTS, Boot, CONTIGUOUS, DIVISIONS, EXAMPLE_MACHINES, Ending,
    OBJECTS, PRESSURES, REPLAYS, TREATMENTS, Treatment,
};
use cpus::CPUS;
use levels::LEVELS;
use nodes::NODES;
use tables::TABLES;

/// Guests at a time: each keeps a host core busy.
const MOST_GUESTS: usize = 2;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // With huge pages the host backs 2 MiB for each page that a guest writes to; it does without
    // where this cannot be switched off, and needs more memory for the largest guests.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    args.test_threads = Some(args.test_threads.unwrap_or(MOST_GUESTS).min(MOST_GUESTS));

    let boots = BOOTS
        .iter()
        .map(|case| trial("boot", case.name, || comes_up(case)));
    let tiny = EXAMPLE_MACHINES
        .iter()
        .chain(levels::EXAMPLES)
        .map(|case| trial("tiny_kernel", case.name, || examples::tiny_kernel(case)));
    let tutorial = examples::IN_TUTORIAL_STYLE
        .iter()
        .map(|case| trial("blog_os_style", case.name, || examples::blog_os_style(case)));
    let disks = examples::WITH_A_DISK
        .iter()
        .map(|case| trial("virtio_blk", case.name, || examples::virtio_blk(case)));
    let least = [Firmware::Direct, Firmware::Bios, Firmware::Uefi].map(|firmware| {
        let name = format!("least_memory_{firmware}");
        trial("boot", &name, move || comes_up_with_the_least(firmware))
    });
    let endings = [
        ("bad_input", REFUSALS),
        ("odd_input", ODDITIES),
        ("objects", OBJECTS),
        ("division", DIVISIONS),
        ("pressure", PRESSURES),
        ("cma", CONTIGUOUS),
    ];
    let endings = endings.iter().flat_map(|(group, cases)| {
        let one = |case: &'static Ending| trial(group, case.name, || ends_as_told(case));
        cases.iter().map(one)
    });
    let treatments = TREATMENTS
        .iter()
        .map(|case| trial("treatment", case.name, || survives_stress(case)));
    let replays = REPLAYS.iter().map(|case| {
        trial("replay", case.name, || {
            replay::gives_the_frames_of_a_simulated_machine(case.options)
        })
    });
    let cpus = CPUS
        .iter()
        .map(|case| trial("cpus", case.name, || cpus::come_up(case)));
    let levels = LEVELS
        .iter()
        .map(|case| trial("levels", case.name, || levels::come_up(case)));
    let nodes = NODES
        .iter()
        .map(|case| trial("nodes", case.name, || nodes::come_up(case)));
    let tables = TABLES
        .iter()
        .map(|case| trial("tables", case.name, || tables::come_up(case)));
    let seen = seen::SEEN
        .iter()
        .map(|case| trial("seen", case.name, || seen::agrees(case)));
    let steps = steps::PROFILES
        .map(|profile| trial("single_step", profile, || steps::step_through(profile)));
    let mut trials: Vec<Trial> = boots
        .chain(tiny)
        .chain(tutorial)
        .chain(disks)
        .chain(least)
        .chain(endings)
        .chain(treatments)
        .chain(replays)
        .chain(cpus)
        .chain(levels)
        .chain(nodes)
        .chain(tables)
        .chain(seen)
        .chain(steps)
        .collect();
    trials.extend([
        trial("guide", "is_followed", guide::is_followed),
        trial("others", "read_files_of_proc", others::read),
        trial("others", "read_by_rules", others::read_by_rules),
        trial("virtio_blk", "none", examples::virtio_blk_without_a_disk),
        trial(
            "bad_input",
            "elf_loaded_over_a_reserved_range",
            refuses_reserved_memory,
        ),
        trial(
            "counting",
            "boot_stays_within_its_budget",
            counting::boot_stays_within_its_budget,
        ),
        trial(
            "counting",
            "two_boots_count_the_same",
            counting::counting_repeats,
        ),
    ]);
    trials.push(trial("seen", "while_it_runs", seen::live));
    trials.push(trial("seen", "what_happened_before", seen::past));
    trials.push(trial("seen", "addresses", seen::addresses));
    trials.push(trial(
        "recording",
        "shows_the_same",
        recording::shows_the_same,
    ));
    for case in overflows::OVERFLOWS {
        let overflow = || overflows::are_reported(case);
        trials.push(trial("overflow", case.name, overflow));
    }
    for (name, options) in levels::FORBIDDING {
        for cpus in [1, 4, 16] {
            let name = format!("{name}_{cpus}_cpus");
            trials.push(trial("forbidden", &name, move || {
                levels::forbid(options, cpus)
            }));
        }
    }
    for size in sizes::SIZES {
        let group = format!("size_{size}");
        trials.push(trial(&group, "boots_as_fast", || {
            sizes::boots_as_fast(size)
        }));
        let idle = || sizes::leaves_the_host_its_memory(size);
        trials.push(trial(&group, "leaves_the_host_its_memory", idle));
    }
    trials.extend([
        trial("size_256G", "gives_all", sizes::gives_all_of_256g),
        trial(
            "size_1T",
            "gives_a_block_of_each_section",
            sizes::gives_a_block_of_each_section_of_1t,
        ),
    ]);
    trials.extend(addresses::trials());
    trials.extend(stories::trials());
    trials.extend(screen::trials());
    trials.extend(pictures::trials());
    trials.extend(budgets::trials());
    trials.extend(shown::trials());
    if args.list && tools::installed_qemu().is_none() {
        eprintln!("qemu tests: QEMU is not installed; the in-kernel tests are not listed");
    } else {
        match ktests::trials(&args) {
            Ok(ktests) => trials.extend(ktests),
            Err(failed) => {
                // Whatever tests were meant: without the names there is no telling, and a filter
                // must not turn a kernel that does not build into a run of no tests.
                trials.push(Trial::test(ktests::LISTING, move || Err(failed)));
                (args.filter, args.skip) = (None, Vec::new());
                trials.retain(|trial| trial.name() == ktests::LISTING);
            }
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn trial(
    group: &str,
    name: &str,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::test(format!("{group}::{name}"), test)
}

/// The kernel comes up and runs its commands.
fn comes_up(case: &Boot) -> Result<(), Failed> {
    succeeds_and_says(case.options, BOOT_COMMANDS, &[BOOT_SAYS])
}

/// A boot whose commands succeed and print some texts.
fn succeeds_and_says(options: &str, commands: &str, texts: &[&str]) -> Result<(), Failed> {
    let options = guest::options(options)?;
    let recorded = guest::boot(&options, commands)?;
    let serial = &recorded.serial;
    let outcome = recorded.finished.outcome;
    if outcome.exit_status(RanCommands::Yes) != 0 {
        let said = &recorded.finished.qemu_messages;
        return Err(format!("{outcome}\n{said}\n{serial}").into());
    }
    let printed = serial.replace('\r', "");
    match texts.iter().find(|text| !printed.contains(**text)) {
        Some(text) => Err(format!("it did not print {text:?}:\n{serial}").into()),
        None => Ok(()),
    }
}

/// The kernel comes up with the least memory that the runner lets it have.
fn comes_up_with_the_least(firmware: Firmware) -> Result<(), Failed> {
    let mut options = guest::options("")?;
    let image = guest::kernel(options.kernel)?;
    options.machine.firmware = firmware;
    options.machine.memory = image
        .least_memory(firmware)
        .ok_or("the kernel is no 64-bit ELF")?;
    let recorded = guest::boot(&options, "stress 200; echo up and running")?;
    let outcome = recorded.finished.outcome;
    if outcome.exit_status(RanCommands::Yes) != 0 {
        let memory = options.machine.memory;
        return Err(format!("{memory}: {outcome}\n{}", recorded.serial).into());
    }
    Ok(())
}

/// SeaBIOS keeps the top of memory for itself. A machine so small that the kernel's image reaches
/// into that is told so; the runner would ask for more memory, but the last `-m` counts.
fn refuses_reserved_memory() -> Result<(), Failed> {
    let mut options = guest::options("")?;
    let image = guest::kernel(options.kernel)?;
    let end = image.end().ok_or("the kernel is no 64-bit ELF")?;
    let kib = end.next_multiple_of(8 << 10) / 1024 + 16;
    let arguments = format!(
        "-m {kib}K -object memory-backend-ram,id=small,size={kib}K -machine memory-backend=small"
    );
    let arguments = arguments.split(' ').map(Into::into);
    options.machine.extra_args.extend(arguments);
    let recorded = guest::boot(&options, "help")?;
    let (outcome, serial) = (recorded.finished.outcome, &recorded.serial);
    let says = [
        "boot: error: the kernel image ",
        "which the firmware reserves",
    ];
    if outcome != Outcome::BootFailed || !says.iter().all(|text| serial.contains(text)) {
        return Err(format!("{outcome}, or not all of {says:?}:\n{serial}").into());
    }
    Ok(())
}

/// `stress` and the in-kernel tests of memory find nothing.
fn survives_stress(case: &Treatment) -> Result<(), Failed> {
    let mut options = guest::options(case.options)?;
    options.machine.memory = "96M".parse()?;
    options.cmdline.text = case.parameters.to_owned();
    let recorded = guest::boot(&options, "stress 20000; ktest memory*")?;
    let serial = &recorded.serial;
    let outcome = recorded.finished.outcome;
    if outcome.exit_status(RanCommands::Yes) != 0 || !serial.contains("no violations") {
        return Err(format!("{outcome}\n{serial}").into());
    }
    Ok(())
}

/// A boot ends with its status and its message.
fn ends_as_told(case: &Ending) -> Result<(), Failed> {
    let (status, said) = ending(case)?;
    if status != case.status {
        return Err(format!("exit status {status}, not {}:\n{said}", case.status).into());
    }
    if !said.contains(case.says) {
        return Err(format!("it did not say {:?}:\n{said}", case.says).into());
    }
    Ok(())
}

/// The exit status for a case, and all that the user would see.
fn ending(case: &Ending) -> Result<(u8, String), Failed> {
    let options = match Invocation::parse(guest::words(case.options)) {
        Err(error) => return Ok((2, error.to_string())),
        Ok(Invocation::Boot(options)) => options,
        Ok(Invocation::Help | Invocation::View(..)) => return Err("that is no refusal".into()),
    };
    match guest::boot(&options, case.exec.unwrap_or("help")) {
        Err(guest::GuestError::Run(error)) => {
            let error = boot_runner::cli::CliError::Run(error);
            Ok((error.exit_status(), error.to_string()))
        }
        Err(error) => Err(error.into()),
        Ok(recorded) => {
            let outcome = recorded.finished.outcome;
            let said = recorded.finished.qemu_messages + &recorded.serial;
            let status = outcome.exit_status(RanCommands::Yes);
            Ok((status, format!("{said}\n{outcome}")))
        }
    }
}
