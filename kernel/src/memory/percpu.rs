//! Memory of which each CPU has a copy: the command `percpu`, and benchmarks with the names and meanings of
//! `docs/benchmarks.md`.
#![expect(
    unsafe_code,
    reason = "measures the interface of plain addresses, whose frees are unsafe"
)]

use super::{Kernel, MEMORY};
use crate::arch::lock::IrqLock;
use crate::arch::percpu;
use crate::arch::pin::Pin;
use crate::bench::{BenchError, Bencher};
use crate::registry::sorted;
use crate::shell::{self, CommandError, CommandResult};
use crate::{bench, command, kprintln};
use alloc::string::String;
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use mm::buddy::Gfp;
use mm::system::{BadPerCpuFree, PerCpuBox};

command! { "percpu", "[alloc COUNT | free]", "what each CPU has a copy of: variables, chunks, used and free bytes; recounts them", percpu_command, "  alloc COUNT  make so many objects of 64 bytes and keep them, to see chunks
  free         free what `alloc` keeps
`variables` are those of `percpu!`, offset and bytes of a copy; `chunks` hold
objects made at run time: each is one unit of memory for every CPU. Chunks by
nodes are mapped, each unit in pages of its CPU's own node; others are one block
of RAM." }

/// Objects that `percpu alloc` keeps.
static KEPT: IrqLock<Vec<PerCpuBox<[AtomicU64; 8], Kernel>>> = IrqLock::new(Vec::new());

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

fn keep(count: u64) -> CommandResult {
    for _ in 0..count {
        let object = PerCpuBox::new_with(Kernel, Gfp::KERNEL, |_| [const { AtomicU64::new(0) }; 8]);
        let object = object.map_err(CommandError::failed)?;
        let mut kept = KEPT.lock();
        kept.try_reserve(1).map_err(CommandError::failed)?;
        kept.push(object);
    }
    Ok(())
}

fn percpu_command(arguments: &[String]) -> CommandResult {
    match arguments {
        [] => {}
        [what, count] if what == "alloc" => keep(shell::number(count)?)?,
        [what] if what == "free" => {
            drop(core::mem::take(&mut *KEPT.lock()));
            MEMORY.shrink_percpu();
        }
        _ => {
            return Err(CommandError::usage(
                "expected `alloc COUNT`, `free` or nothing",
            ));
        }
    }
    MEMORY.validate_percpu().map_err(CommandError::failed)?;
    let listed = percpu::variables().iter().map(|variable| variable.size);
    let padding = percpu::bytes().saturating_sub(listed.fold(0, usize::saturating_add));
    kprintln!(
        "variables   {} bytes for each CPU, {padding} of them for alignment",
        percpu::bytes()
    );
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
        "chunks      {}: {} by nodes, {} without objects; each has {} units, one for each CPU, of {} bytes",
        stats.chunks,
        stats.mapped,
        stats.empty,
        stats.cpus,
        stats.unit_bytes
    );
    kprintln!(
        "objects     {}, {} bytes for each CPU; {} of them free again, and at hand of the CPU that freed them",
        stats.objects,
        stats.used_bytes,
        stats.at_hand
    );
    kprintln!("free        {} bytes for each CPU", stats.free_bytes);
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
