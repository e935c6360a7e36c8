//! Memory of which each CPU has a copy: the command `percpu`, and benchmarks with the names and meanings of
//! `docs/benchmarks.md`.
#![expect(
    unsafe_code,
    reason = "measures the interface of plain addresses, whose frees are unsafe"
)]

use super::{Kernel, MEMORY};
use crate::arch::percpu;
use crate::arch::pin::Pin;
use crate::bench::{BenchError, Bencher};
use crate::registry::sorted;
use crate::shell::{CommandError, CommandResult, no_arguments};
use crate::{bench, command, kprintln};
use alloc::string::String;
use core::hint::black_box;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use mm::buddy::Gfp;
use mm::system::{BadPerCpuFree, PerCpuBox};

command! { "percpu", "", "what each CPU has a copy of: variables, chunks, used and free bytes; recounts them", percpu_command }

bench!(
    "percpu_8",
    "8 bytes for each CPU, zeroed: allocated and freed",
    pairs::<8>
);
bench!("percpu_64", "64 bytes for each CPU, zeroed", pairs::<64>);
bench!(
    "percpu_add",
    "this CPU's number of a counter made at run time: one added under a pin",
    add
);

/// Pairs a round.
const PAIRS: usize = 1_000;

fn percpu_command(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    MEMORY.validate_percpu().map_err(CommandError::failed)?;
    kprintln!("variables   {} bytes each", percpu::bytes());
    for variable in sorted(percpu::variables(), |variable| variable.name) {
        let offset = (variable.offset)();
        kprintln!(
            "  {offset:#06x}    {} bytes {}",
            variable.size,
            variable.name
        );
    }
    let stats = MEMORY.percpu_stats();
    kprintln!(
        "chunks      {}, {} near to their CPUs, {} without objects; {} units of {} bytes each",
        stats.chunks,
        stats.mapped,
        stats.empty,
        stats.cpus,
        stats.unit_bytes
    );
    kprintln!(
        "objects     {} of {} bytes; {} of them at hand of CPUs",
        stats.objects,
        stats.used_bytes,
        stats.at_hand
    );
    kprintln!("free        {} bytes", stats.free_bytes);
    Ok(())
}

#[inline(always)]
fn free(first: NonNull<u8>, size: usize) {
    // SAFETY: every caller got the object with that size, and forgets it.
    if let Err(error) = unsafe { MEMORY.free_percpu(first, size) } {
        refused(error);
    }
}

/// A refusal would be a bug of the allocator.
#[cold]
#[inline(never)]
fn refused(error: BadPerCpuFree) {
    log::error!("bench: an object was not taken back: {error}");
}

fn pairs<const SIZE: usize>(bencher: &mut Bencher) -> Result<(), BenchError> {
    let layout = (SIZE, 8);
    let first = MEMORY.alloc_percpu(layout, Gfp::KERNEL);
    free(first.map_err(BenchError::failed)?, SIZE);
    bencher.each("", PAIRS, |_| {
        if let Ok(first) = MEMORY.alloc_percpu(layout, Gfp::KERNEL) {
            free(black_box(first), SIZE);
        }
    });
    MEMORY.shrink_percpu();
    match MEMORY.drain_all_pages() {
        true => Ok(()),
        false => Err(BenchError::failed("a CPU did not drain its lists")),
    }
}

fn add(bencher: &mut Bencher) -> Result<(), BenchError> {
    let counter = PerCpuBox::new_with(Kernel, Gfp::KERNEL, |_| AtomicU64::new(0));
    let counter = counter.map_err(BenchError::failed)?;
    bencher.each("", PAIRS, |_| percpu::add(&counter, 1, &Pin::new()));
    drop(counter);
    MEMORY.shrink_percpu();
    Ok(())
}
