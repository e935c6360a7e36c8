//! The shell from outside: commands, `/proc` files, the log, the clock.

use crate::arch::time;
use crate::ktest::Failure;
use crate::shell::{CommandError, find, run, run_line};
use crate::{ktest, ktest_assert, ktest_eq, logger, procfs};
use alloc::string::String;

fn content(path: &str) -> Result<String, Failure> {
    let file = procfs::find(path).ok_or_else(|| Failure::new(path))?;
    let mut text = String::new();
    (file.print)(&mut text).map_err(Failure::new)?;
    Ok(text)
}

ktest! {
    fn an_unknown_command_is_an_error_with_its_name() {
        let error = run("frobnicate", &[]);
        ktest_eq!(error, Err(CommandError::Unknown(String::from("frobnicate"))));
        ktest_assert!(find("help").is_some());
        Ok(())
    }

    fn a_line_fails_if_any_of_its_commands_fails() {
        ktest_assert!(run_line("echo a; echo b"));
        ktest_assert!(!run_line("frobnicate; echo the rest still runs"));
        ktest_assert!(!run_line("echo 'open"));
        ktest_assert!(run_line(""));
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
        ktest_assert!(text.lines().all(|line| line.starts_with('[')));
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
