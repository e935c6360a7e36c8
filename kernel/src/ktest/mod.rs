//! Tests that run inside the kernel.
//!
//! A test is a function in a [`ktest!`](crate::ktest!) block, beside the code it tests or in
//! `selftest/`; it returns `Ok(())` or a [`Failure`], mostly through the assertion macros. The
//! `ktest` command lists and runs them, and prints for the host's harness:
//!
//! ```text
//! KTEST arch::traps_return ... start
//! KTEST arch::traps_return ... ok                (or: FAILED: why)
//! KTEST done 1 0                                 (passed, failed)
//! ```

use crate::registry::{registry, sorted};
use crate::shell::parse::{glob_list, unmatched_glob};
use crate::shell::{CommandError, CommandResult, interrupt};
use crate::{command, kprintln};
use alloc::string::String;
use core::fmt;

/// A registered test.
#[derive(Clone, Copy, Debug)]
pub struct Ktest {
    /// Path of the module it is in.
    pub module: &'static str,
    /// Name of the function.
    pub function: &'static str,
    /// The test.
    pub run: fn() -> Outcome,
}

/// What a test returns.
pub type Outcome = Result<(), Failure>;

/// Why a test failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure, in words.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(alloc::format!("{reason}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

registry! {
    /// Every registered test, in no order.
    pub fn ktests() -> [Ktest]; start "__start_ktests", stop "__stop_ktests"
}

/// Defines and registers tests.
///
/// ```ignore
/// ktest! {
///     /// Freeing a block gives its pages back.
///     fn free_returns_the_pages() {
///         ktest_eq!(free_pages(), before);
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! ktest {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {$(
        $(#[$attribute])*
        fn $name() -> $crate::ktest::Outcome $body

        $crate::__register!(
            "ktests",
            $crate::ktest::Ktest,
            $crate::ktest::Ktest {
                module: ::core::module_path!(),
                function: ::core::stringify!($name),
                run: $name,
            }
        );
    )*};
}

/// Fails the test unless the condition holds; a message may follow.
#[macro_export]
macro_rules! ktest_assert {
    ($condition:expr $(,)?) => {
        $crate::ktest_assert!($condition, "{}", ::core::stringify!($condition))
    };
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::ktest::Failure::new(::core::format_args!(
                "{}:{}: {}",
                ::core::file!(),
                ::core::line!(),
                ::core::format_args!($($message)+)
            )));
        }
    };
}

/// Fails the test unless both sides are equal.
#[macro_export]
macro_rules! ktest_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => $crate::ktest_assert!(
                *left == *right,
                "{} is {:?}, not {:?}",
                ::core::stringify!($left),
                left,
                right
            ),
        }
    };
}

/// A test's full name: module path without the crate, `::`, function.
#[derive(Clone, Copy, Debug)]
struct FullName(&'static Ktest);

impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = self.0.module;
        let module = module.strip_prefix("kernel::").unwrap_or(module);
        write!(f, "{module}::{}", self.0.function)
    }
}

command! { "ktest", "[--list | GLOB[,GLOB]...]", "run in-kernel tests, or list them", ktest_command }

fn ktest_command(arguments: &[String]) -> CommandResult {
    match arguments {
        [] => run_matching("*"),
        [option] if option == "--list" => {
            for name in names() {
                kprintln!("KTEST {name}");
            }
            Ok(())
        }
        [patterns] if !patterns.starts_with('-') => run_matching(patterns),
        _ => Err(CommandError::usage("expected --list or one list of globs")),
    }
}

fn names() -> impl Iterator<Item = FullName> + Clone {
    let mut tests = sorted(ktests(), |test| test.function);
    tests.sort_by_key(|test| test.module);
    tests.into_iter().map(FullName)
}

fn run_matching(patterns: &str) -> CommandResult {
    let texts = names().map(|test| alloc::format!("{test}"));
    if let Some(pattern) = unmatched_glob(patterns, texts) {
        return Err(CommandError::failed(format_args!(
            "no test matches `{pattern}`; `ktest --list` lists them"
        )));
    }

    let (mut passed, mut failed): (usize, usize) = (0, 0);
    for test in names() {
        let name = alloc::format!("{test}");
        if !glob_list(patterns, &name) {
            continue;
        }
        interrupt::check()?;
        kprintln!("KTEST {name} ... start");
        match (test.0.run)() {
            Ok(()) => {
                kprintln!("KTEST {name} ... ok");
                passed = passed.saturating_add(1);
            }
            Err(failure) => {
                kprintln!("KTEST {name} ... FAILED: {failure}");
                failed = failed.saturating_add(1);
            }
        }
    }
    kprintln!("KTEST done {passed} {failed}");

    if failed > 0 {
        return Err(CommandError::failed(format_args!("{failed} failed")));
    }
    Ok(())
}
