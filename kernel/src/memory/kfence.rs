//! The sampling guard pool: what it found, and a test of it.
//!
//! `kfencetest` does to objects of the pool what drivers do wrong.
#![expect(unsafe_code, reason = "touches what nobody may, to be found")]

use super::{Kernel, MEMORY};
use crate::arch::lock::IrqLock;
use crate::arch::probe;
use crate::num::to_u64;
use crate::shell::{CommandError, CommandResult};
use crate::{command, kprintln};
use alloc::string::String;
use core::fmt::Display;
use core::ptr::NonNull;
use mm::buddy::Gfp;
use mm::report::{AccessKind, Corruption, KfenceError, KfenceReport};
use mm::slab::{KFENCE_OBJECTS, SlabFlags};
use mm::system::{KmemCache, Summary};

command! { "kfence", "[ALLOCATIONS]", "the sampling guard pool in numbers; one object in so many is from it from now on, 0 for none", kfence }
command! { "kfencetest", "", "use objects of the guard pool wrongly in six ways: all found (needs `kfence.sample_interval=`)", kfencetest }

/// The cache whose objects are used wrongly on purpose.
const NAME: &str = "kfencetest";
const SIZE: usize = 32;
const PAGE: u64 = 4096;

/// What was told of its objects last.
static TOLD: IrqLock<Option<KfenceReport>> = IrqLock::new(None);

/// Tells whether there is a pool.
pub(super) fn log_pool(summary: &Summary) {
    if let Some(error) = summary.no_kfence {
        log::warn!("kfence: no guard pool: {error}");
    }
    if MEMORY.kfence_stats().is_ok() {
        log::info!("kfence: initialized - using 2097152 bytes for {KFENCE_OBJECTS} objects");
    }
}

/// Whether a fault is there on purpose: then it is told, and the machine goes on in any profile.
pub(super) fn is_on_purpose(report: &Corruption) -> bool {
    let Corruption::Kfence(report) = report else {
        return false;
    };
    let is_ours = report
        .object
        .is_some_and(|object| object.cache.as_str() == NAME);
    if is_ours {
        *TOLD.lock() = Some(*report);
    }
    is_ours
}

fn text(error: impl Display) -> String {
    alloc::format!("{error}")
}

type Cache = KmemCache<Kernel>;

/// An object of the pool, at the start of its page or at its end.
#[track_caller]
fn alloc(cache: &Cache, is_left: bool) -> Result<NonNull<u8>, String> {
    for _ in 0..KFENCE_OBJECTS {
        let before = MEMORY.kfence_stats().map_err(text)?.allocations;
        let object = cache.alloc(Gfp::KERNEL).map_err(text)?;
        let is_sampled = MEMORY.kfence_stats().map_err(text)?.allocations > before;
        if is_sampled && is_left == (to_u64(object.addr().get()).is_multiple_of(PAGE)) {
            return Ok(object);
        }
        free(cache, object)?;
    }
    Err(String::from("no object came from the pool"))
}

#[track_caller]
fn free(cache: &Cache, object: NonNull<u8>) -> Result<(), String> {
    // SAFETY: an object of the cache that nobody else has; a second free is refused.
    unsafe { cache.free(object) }.map_err(text)
}

/// Touches a byte at a distance from an object.
fn touch(object: NonNull<u8>, at: i64, kind: AccessKind) {
    let address = to_u64(object.addr().get()).wrapping_add_signed(at);
    match kind {
        // SAFETY: RAM; where it is out of reach the fault is taken (`page_fault`).
        AccessKind::Read => unsafe { probe::touch(address) },
        // SAFETY: as above; a byte of the pool that is nobody's, which is the fault to be found.
        AccessKind::Write => unsafe { probe::poke(address) },
    }
}

/// Tells what was found; answers whether it is what was done.
fn is_found(what: &str, is_right: impl Fn(&KfenceReport) -> bool) -> bool {
    let told = TOLD.lock().take();
    let is_found = told.as_ref().is_some_and(is_right);
    match told {
        Some(report) => kprintln!("{what}: {report}"),
        None => kprintln!("{what}: nothing was found"),
    }
    is_found
}

/// Does all of it. Answers how many were found.
fn misuse(cache: &Cache) -> Result<usize, String> {
    let mut found = 0_usize;
    let mut expect = |what, error: KfenceError, offset: i32| {
        let is_right = |report: &KfenceReport| {
            report.error == error
                && report
                    .object
                    .is_some_and(|object| object.offset == offset && object.allocated.is_some())
        };
        found = found.saturating_add(usize::from(is_found(what, is_right)));
    };
    let end = i64::try_from(SIZE).map_err(text)?;
    let last = i32::try_from(SIZE).map_err(text)?;
    let (read, write) = (AccessKind::Read, AccessKind::Write);

    let right = alloc(cache, false)?;
    touch(right, end, read);
    expect("read behind the end", KfenceError::OutOfBounds(read), last);
    free(cache, right)?;

    let left = alloc(cache, true)?;
    touch(left, -1, write);
    expect(
        "written before the start",
        KfenceError::OutOfBounds(write),
        -1,
    );
    free(cache, left)?;

    touch(left, 5, read);
    expect(
        "read after it was freed",
        KfenceError::UseAfterFree(read),
        5,
    );
    touch(right, 0, write);
    expect(
        "written to after it was freed",
        KfenceError::UseAfterFree(write),
        0,
    );

    let again = free(cache, right);
    expect("freed again", KfenceError::InvalidFree, 0);
    if again.is_ok() {
        return Err(String::from("a second free was taken"));
    }

    let left = alloc(cache, true)?;
    touch(left, end, write);
    free(cache, left)?;
    let is_right = |report: &KfenceReport| {
        matches!(report.error, KfenceError::Corruption { len: 1, .. })
            && report.object.is_some_and(|object| object.offset == last)
    };
    let around = is_found("written to behind the end, in its own page", is_right);
    Ok(found.saturating_add(usize::from(around)))
}

fn kfencetest(arguments: &[String]) -> CommandResult {
    if !arguments.is_empty() {
        return Err(CommandError::usage("kfencetest takes no arguments"));
    }
    let before = MEMORY
        .kfence_stats()
        .map_err(CommandError::failed)?
        .interval;
    MEMORY
        .set_kfence_interval(1)
        .map_err(CommandError::failed)?;
    let result = KmemCache::create(Kernel, NAME, (SIZE, 8), SlabFlags::NO_MERGE)
        .map_err(text)
        .and_then(|cache| {
            let found = misuse(&cache)?;
            cache.destroy().map_err(text)?;
            Ok(found)
        });
    MEMORY
        .set_kfence_interval(before)
        .map_err(CommandError::failed)?;
    let found = result.map_err(CommandError::failed)?;
    kprintln!("the guard pool found {found} of 6 faults");
    match found {
        6 => Ok(()),
        _ => Err(CommandError::failed("some were not found")),
    }
}

fn kfence(arguments: &[String]) -> CommandResult {
    match arguments {
        [] => {}
        [interval] => {
            let interval = interval.parse();
            let interval = interval.map_err(|_| CommandError::usage("kfence [ALLOCATIONS]"))?;
            MEMORY
                .set_kfence_interval(interval)
                .map_err(CommandError::failed)?;
        }
        _ => return Err(CommandError::usage("kfence [ALLOCATIONS]")),
    }
    let stats = MEMORY.kfence_stats().map_err(CommandError::failed)?;
    kprintln!("{stats}");
    Ok(())
}
