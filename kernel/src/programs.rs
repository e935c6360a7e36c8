//! `programs`: a JSON parser, a regular-expression engine and a hash map, as other people wrote them, on this
//! kernel's memory ([`mm_programs`]). What they find is checked, and what they took comes back.

use crate::arch::time;
use crate::ktest::Failure;
use crate::memory::{KernelPlatform, MEMORY, free_frames};
use crate::shell::{CommandError, CommandResult, interrupt, number};
use crate::{command, kprintln, ktest, ktest_assert, ktest_eq};
use alloc::string::String;
use mm::platform::Platform;
use mm_programs::{PROGRAMS, Program};

command! { "programs", "[MIB [SEED]]", "run a JSON parser, a regex engine and a hash map on so much input each, and check what they find", programs }

/// Input of a program unless it is said: MiB.
const MIB: u64 = 10;

fn programs(arguments: &[String]) -> CommandResult {
    let (mib, seed) = match arguments {
        [] => (MIB, 1),
        [mib] => (number(mib)?, 1),
        [mib, seed] => (number(mib)?, number(seed)?),
        _ => return Err(CommandError::usage("expected how many MiB, and a seed")),
    };
    let bytes = usize::try_from(mib.saturating_mul(1 << 20)).unwrap_or(usize::MAX);
    for (name, program) in PROGRAMS {
        interrupt::check()?;
        let start = time::now_ns();
        let outcome = program(bytes, seed)
            .map_err(|wrong| CommandError::failed(format_args!("{name}: {wrong}")))?;
        let ms = time::now_ns().saturating_sub(start) / 1_000_000;
        let (bytes, items) = (outcome.bytes, outcome.items);
        kprintln!("{name:<8} {bytes} bytes, {items} items, all as expected, {ms} ms");
    }
    Ok(())
}

/// Runs a program on ten MiB, or on one where there is little memory, or objects take several times theirs.
fn passes(program: Program) -> Result<(), Failure> {
    let before = free_frames();
    let is_large = MEMORY.managed_frames() > 90_000 && !KernelPlatform::PROFILE.is_debug();
    let bytes = if is_large { 10 << 20 } else { 1 << 20 };
    let outcome = program(bytes, 1).map_err(Failure::new)?;
    ktest_assert!(outcome.bytes >= bytes && outcome.items > 0);
    ktest_eq!(free_frames(), before);
    MEMORY.validate_caches().map_err(Failure::new)
}

ktest! {
    fn a_json_parser_works() {
        passes(PROGRAMS[0].1)
    }

    fn a_regex_engine_works() {
        passes(PROGRAMS[1].1)
    }

    fn a_hash_map_works() {
        passes(PROGRAMS[2].1)
    }
}
