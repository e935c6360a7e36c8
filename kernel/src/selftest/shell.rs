//! The shell from outside: commands, `/proc` files, the log, the clock.

use crate::arch::time;
use crate::ktest::Failure;
use crate::shell::interrupt::{self, CTRL_C};
use crate::shell::{CommandError, find, run};
use crate::{ktest, ktest_assert, ktest_eq, logger, procfs};
use alloc::string::{String, ToString};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

fn content(path: &str) -> Result<String, Failure> {
    let file = procfs::find(path).ok_or_else(|| Failure::new(path))?;
    let mut text = String::new();
    (file.print)(&mut text).map_err(Failure::new)?;
    Ok(text)
}

/// Runs a line; whether all went well.
fn succeeds(line: &str) -> bool {
    let failed = AtomicBool::new(false);
    crate::shell::run_line(line, &failed);
    !failed.load(Ordering::Relaxed)
}

ktest! {
    fn an_unknown_command_is_an_error_with_its_name() {
        let error = run("frobnicate", &[]);
        ktest_eq!(error, Err(CommandError::Unknown(String::from("frobnicate"))));
        ktest_assert!(find("help").is_some());
        Ok(())
    }

    fn a_line_fails_if_any_of_its_commands_fails() {
        ktest_assert!(succeeds("echo a; echo b"));
        ktest_assert!(!succeeds("frobnicate; echo the rest still runs"));
        ktest_assert!(!succeeds("echo 'open"));
        ktest_assert!(succeeds(""));
        Ok(())
    }

    fn ctrl_c_ends_the_line_and_leaves_nothing_behind() {
        let free = crate::memory::free_frames();
        interrupt::take_in(b'x');
        interrupt::take_in(CTRL_C);
        let results = [
            run("stress", &["1000000".to_string()]),
            run("workload", &["1000000".to_string(), "1".to_string()]),
            run("bench", &["box*".to_string()]),
            run("ktest", &["*".to_string()]),
            run("dmesg", &[]),
        ];
        let rest = succeeds("echo this is not printed");
        interrupt::begin();
        for result in results {
            ktest_eq!(result, Err(CommandError::Interrupted));
        }
        ktest_assert!(!rest);
        ktest_eq!(crate::memory::free_frames(), free);
        ktest_assert!(succeeds("stress 100"));
        Ok(())
    }

    fn what_is_typed_ahead_comes_in_its_order() {
        for key in 0..=u8::MAX {
            interrupt::take_in(key.max(b' '));
        }
        interrupt::take_in(b'!');
        for key in 0..=u8::MAX {
            ktest_eq!(interrupt::next_key(), Some(key.max(b' ')));
        }
        ktest_eq!(interrupt::check(), Ok(()));
        Ok(())
    }

    fn output_fails_once_interrupted() {
        let mut output = interrupt::Output;
        ktest_eq!(output.write_str("not yet\n"), Ok(()));
        interrupt::take_in(CTRL_C);
        let result = output.write_str("");
        let error = CommandError::from(core::fmt::Error);
        interrupt::begin();
        ktest_eq!(result, Err(core::fmt::Error));
        ktest_eq!(error, CommandError::Interrupted);
        ktest_assert!(matches!(CommandError::from(core::fmt::Error), CommandError::Failed(_)));
        Ok(())
    }

    fn a_glob_that_matches_nothing_is_an_error() {
        for (command, what) in [("bench", "benchmark"), ("ktest", "test")] {
            let result = run(command, &["frobnicate*".to_string()]);
            let expected = alloc::format!("no {what} matches `frobnicate*`; `{command} --list` lists them");
            ktest_eq!(result, Err(CommandError::Failed(expected)));
            ktest_assert!(run(command, &["*_nothing,frobnicate".to_string()]).is_err());
        }
        Ok(())
    }

    fn a_wrong_seed_is_an_error_and_hexadecimal_is_not() {
        let stress = |seed: &str| run("stress", &["1".to_string(), seed.to_string()]);
        for seed in ["7", "0x7f", "seed=7", "seed=0x7f"] {
            ktest_eq!((seed, stress(seed)), (seed, Ok(())));
        }
        for seed in ["seven", "0x", "-1", "+1", "seed=", "speed=7"] {
            ktest_assert!(matches!(stress(seed), Err(CommandError::Usage(_))), "{seed}");
        }
        Ok(())
    }

    fn the_command_inside_time_says_itself_what_went_wrong() {
        let time = |words: &[&str]| {
            let words: alloc::vec::Vec<_> = words.iter().map(ToString::to_string).collect();
            run("time", &words)
        };
        ktest_eq!(time(&["frobnicate"]), Err(CommandError::Inner));
        ktest_eq!(time(&["echo", "fine"]), Ok(()));
        ktest_assert!(!succeeds("time frobnicate"));
        Ok(())
    }

    fn a_proc_file_is_found_by_its_name_too() {
        let path = |name| procfs::find(name).map(|file| file.path);
        ktest_eq!(path("meminfo"), Some("/proc/meminfo"));
        ktest_eq!(path("/proc/meminfo"), Some("/proc/meminfo"));
        ktest_eq!(path("/meminfo"), None);
        ktest_eq!(path(""), None);
        Ok(())
    }

    fn a_wrong_argument_is_named_with_what_there_is() {
        let usage = |words: &[&str]| {
            let words: alloc::vec::Vec<_> = words.iter().map(ToString::to_string).collect();
            let (name, rest) = words.split_first().ok_or_else(|| Failure::new("no name"))?;
            match run(name, rest) {
                Err(CommandError::Usage(reason) | CommandError::Failed(reason)) => Ok(reason),
                other => Err(Failure::new(alloc::format!("{words:?}: {other:?}"))),
            }
        };
        for (words, part) in [
            (["alloc", "0", "KERNEL|MOVEABLE"].as_slice(), "`MOVEABLE`: no such flag; known are ATOMIC, KERNEL, "),
            (&["alloc"], "kept"),
            (&["free"], "kept"),
            (&["free", "x"], "`x` is not an id; "),
            (&["free", "999999"], "nothing has id 999999; "),
            (&["crash", "frobnicate"], "known are panic, overflow, "),
            (&["crash"], "which kind?"),
            (&["page", "0xg"], "`0xg` is not a number"),
        ] {
            let said = usage(words)?;
            ktest_assert!(said.contains(part), "{words:?}: {said}");
        }
        Ok(())
    }

    fn commands_without_arguments_refuse_any() {
        for name in ["dmesg", "cpuinfo", "registers", "cmdline", "bootinfo", "heap", "poweroff", "reboot"] {
            let result = run(name, &[String::from("extra")]);
            ktest_assert!(matches!(result, Err(CommandError::Usage(_))), "{name}: {result:?}");
        }
        Ok(())
    }

    fn names_are_registered_once() {
        for command in crate::shell::commands() {
            let same = crate::shell::commands().iter().filter(|other| other.name == command.name);
            ktest_eq!((command.name, same.count()), (command.name, 1));
        }
        for file in procfs::files() {
            let same = procfs::files().iter().filter(|other| other.path == file.path);
            ktest_eq!((file.path, same.count()), (file.path, 1));
        }
        Ok(())
    }

    fn uptime_is_two_numbers_of_seconds() {
        let text = content("/proc/uptime")?;
        let mut numbers = text.trim_end().split(' ').map(|word| word.split_once('.').map(|(_, part)| part.len()));
        ktest_eq!(numbers.next(), Some(Some(2)));
        ktest_eq!(numbers.next(), Some(Some(2)));
        ktest_eq!(numbers.next(), None);
        Ok(())
    }

    fn the_log_keeps_what_was_logged() {
        log::info!("a line for the log test");
        let mut text = String::new();
        logger::dump(&mut text).map_err(Failure::new)?;
        ktest_assert!(text.lines().any(|line| line.ends_with("] a line for the log test")));
        // Reports of failed allocations have lines about nodes and zones.
        let is_whole = |line: &str| ["[", "Node ", "lowmem_reserve[]:"].iter().any(|begin| line.starts_with(begin));
        ktest_assert!(text.starts_with('[') && text.lines().all(is_whole));
        Ok(())
    }

    fn the_clock_goes_forward() {
        let mut last = time::now_ns();
        ktest_assert!(last > 0);
        for _ in 0..1_000 {
            let now = time::now_ns();
            ktest_assert!(now >= last, "{now} after {last}");
            last = now;
        }
        Ok(())
    }

    fn ticks_become_nanoseconds_without_overflow() {
        ktest_eq!(time::ticks_to_ns(3, 1), 3_000_000_000);
        ktest_eq!(time::ticks_to_ns(2_500_000_000, 2_500_000_000), 1_000_000_000);
        ktest_eq!(time::ticks_to_ns(u64::MAX, 1_000_000_000), u64::MAX);
        ktest_eq!(time::ticks_to_ns(u64::MAX, 4_000_000_000), u64::MAX / 4);
        Ok(())
    }
}
