//! `crash` with kernel addresses: uses that page tables forbid, each of which is a page fault.
#![expect(unsafe_code, reason = "does what is forbidden, to be found")]

use super::{Kernel, MEMORY};
use crate::arch::{image, probe};
use crate::num::to_u64;
use crate::shell::{CommandError, CommandResult};
use mm::adapters::Vmalloc;
use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::KmemCache;

/// A function of one instruction, `ret`, among the constants' neighbours: data is not executed.
static RET: [u8; 1] = [0xc3];

/// An area of one page, and its address.
fn area() -> Result<(Vmalloc<Kernel>, u64), CommandError> {
    let area = Vmalloc::alloc(Kernel, 4096, Gfp::KERNEL).map_err(CommandError::failed)?;
    let first = to_u64(area.as_non_null().addr().get());
    Ok((area, first))
}

/// Writes to the kernel's code.
pub(crate) fn write_code() -> CommandResult {
    // SAFETY: it faults: code is read-only (looked at when the kernel booted).
    unsafe { probe::poke(image::text().start) };
    Ok(())
}

/// Executes data.
pub(crate) fn run_data() -> CommandResult {
    // SAFETY: it faults, or returns at once.
    unsafe { probe::call(to_u64((&raw const RET).addr())) };
    Ok(())
}

/// Writes to a freed object of a cache that checks its objects; who allocates it next finds that.
pub(crate) fn use_after_kfree() -> CommandResult {
    let flags = SlabFlags::POISON | SlabFlags::STORE_USER;
    let cache = KmemCache::create(Kernel, "crash", (64, 8), flags).map_err(CommandError::failed)?;
    let object = cache.alloc(Gfp::KERNEL).map_err(CommandError::failed)?;
    // SAFETY: nobody else has it.
    unsafe { cache.free(object) }.map_err(CommandError::failed)?;
    // SAFETY: RAM that is mapped, of a cache that nobody else knows. It is nobody's, which is the fault to be found.
    unsafe { object.as_ptr().write_volatile(b'A') };
    let found = cache.alloc(Gfp::KERNEL).map_err(CommandError::failed)?;
    // SAFETY: as above.
    unsafe { cache.free(found) }.map_err(CommandError::failed)?;
    cache.destroy().map_err(CommandError::failed)
}

/// Reads the byte behind an area.
pub(crate) fn off_area() -> CommandResult {
    let (area, first) = area()?;
    // SAFETY: the guard page of the area; a read, which faults.
    unsafe { probe::touch(first.saturating_add(4096)) };
    drop(area);
    Ok(())
}

/// Reads an area that was freed, after the purge.
pub(crate) fn after_vfree() -> CommandResult {
    let (area, first) = area()?;
    drop(area);
    let _ = MEMORY.vmalloc_purge();
    // SAFETY: RAM or nothing; a read, which faults.
    unsafe { probe::touch(first) };
    Ok(())
}
