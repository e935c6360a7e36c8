//! What lies at an address, in sentences: for reports of faults.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::addr::{PhysAddr, VirtAddr};
use crate::config::PAGE_SIZE;
use crate::frame::{FrameState, Kind, Page};
use crate::kspace::{AreaInfo, AreaState, IsLocked};
use crate::mem::poison;
use crate::platform::Platform;
use crate::report::ObjectOrigin;
use crate::slab::{ObjectStory, Owned};
use crate::system::Memory;

const NO_AREA: &str = "No area is there: it was freed, or there was none.";

/// Tells what lies at an address of RAM in the direct map, or of a region of areas: the object of which cache, and whether it
/// is free; the free page of which order; the guard page behind which area; and who allocated and freed it, where that is
/// kept (`page_owner=on`, `slub_debug=U`). Answers whether the address is one of these. Context: any, the report of a fault
/// included: locks are taken only where nobody has them, and what cannot be known for that is left out.
///
/// # Errors
/// `out`'s own.
pub fn story<P: Platform>(
    memory: &Memory<P>,
    at: VirtAddr,
    out: &mut dyn Write,
) -> Result<bool, fmt::Error> {
    if let Some(phys) = memory.platform().virt_to_phys(at) {
        of_frame(memory, phys, out)?;
        return Ok(true);
    }
    let mut spaces = memory.spaces();
    let Some((space, _)) = spaces.find(|(space, _)| space.range().contains(at)) else {
        return Ok(false);
    };
    match space.first_at_once(memory.platform(), at) {
        Ok(Some(area)) if area.range.contains(at) => of_area(&area, at, out)?,
        Ok(Some(next)) => {
            let ahead = next.range.start().offset_from(at).unwrap_or_default();
            write!(out, "{NO_AREA} The next one ")?;
            write_area(&next, out)?;
            writeln!(out, " begins {ahead} bytes above.")?;
        }
        Ok(None) => writeln!(out, "{NO_AREA}")?,
        Err(IsLocked) => writeln!(out, "It is in a region of areas, which are being changed.")?,
    }
    Ok(true)
}

/// What bytes of a pointer say of who wrote them: `0x6b6b6b6b6b6b6b6b` was read from a freed object. Context: any.
#[must_use]
pub fn pattern(word: u64) -> Option<&'static str> {
    // An offset may have been added to it, and the last byte of an object is another one.
    let [_, bytes @ .., _] = word.to_le_bytes();
    let known = bytes
        .iter()
        .copied()
        .reduce(|a, b| if a == b { a } else { 0 })?;
    match known {
        poison::OBJECT_FREE => Some("what freed objects are filled with: a use after free"),
        poison::PAGE_FREE => Some("what free pages are filled with: a use after free"),
        poison::OBJECT_PADDING => Some("what nobody's bytes between objects are filled with"),
        poison::RED_FREE => Some("what lies around freed objects: a read beyond one"),
        poison::RED_LIVE => Some("what lies around objects: a read beyond one"),
        _ => None,
    }
}

fn of_area(area: &AreaInfo, at: VirtAddr, out: &mut dyn Write) -> fmt::Result {
    let end = area.range.end().checked_sub(PAGE_SIZE);
    let is_guard = end.is_some_and(|end| at >= end);
    match is_guard {
        true => write!(out, "It is the guard page behind ")?,
        false => {
            let inside = at.offset_from(area.range.start()).unwrap_or_default();
            write!(out, "It is byte {inside:#x} of ")?;
        }
    }
    write!(out, "an area ")?;
    write_area(area, out)?;
    match area.state {
        AreaState::Busy => writeln!(out, "."),
        AreaState::Lazy => writeln!(out, "; it was given back, and CPUs may remember it."),
        AreaState::Unused | AreaState::Cached => {
            writeln!(
                out,
                "; it was given back, and is kept ready for the next one."
            )
        }
    }
}

/// `(vmalloc) of 8192 bytes at 0x…, allocated at file:line`.
fn write_area(area: &AreaInfo, out: &mut dyn Write) -> fmt::Result {
    let bytes = area.range.size().saturating_sub(PAGE_SIZE);
    let (kind, start) = (area.kind.name(), area.range.start().as_u64());
    write!(out, "({kind}) of {bytes} bytes at {start:#018x}")?;
    match area.place {
        Some(place) => write!(out, ", allocated at {}:{}", place.file(), place.line()),
        None => Ok(()),
    }
}

fn of_frame<P: Platform>(memory: &Memory<P>, phys: PhysAddr, out: &mut dyn Write) -> fmt::Result {
    let pfn = phys.frame();
    if let Some((core, slab)) = memory
        .core()
        .and_then(|core| Some((core, core.frames.slab_at(pfn)?)))
        && let Some(cache) = core.caches.get(slab.cache)
        && let Some(byte) = phys.offset_from(slab.pfn.addr())
        && let Some(object) = cache.story(&memory.soil(core), slab, byte)
    {
        return of_object(&object, out);
    }
    write!(
        out,
        "It is byte {:#x} of ",
        phys.offset_from(pfn.addr()).unwrap_or_default()
    )?;
    match memory.frames().and_then(|table| table.head(pfn)) {
        Some(head) => write_block(head, out)?,
        None if memory.zone_of(pfn).is_some() => {
            write!(out, "a page without records yet: free, or reserved at boot")?;
        }
        None => write!(out, "RAM that the page allocator was not told of")?,
    }
    write!(out, ", frame {pfn}")?;
    if let Some(zone) = memory.zone_of(pfn) {
        write!(out, " of zone {}, node {}", zone.kind(), zone.id().node)?;
    }
    if let Some(place) = memory.origin(pfn) {
        write!(out, "; allocated last at {place}")?;
    }
    match memory.last_free(pfn) {
        Some(freed) if freed.callers().next().is_some() => {
            writeln!(out, "; freed last {freed}, from")?;
            freed.write_callers(out)
        }
        Some(freed) => writeln!(out, "; freed last {freed}."),
        None => writeln!(out, "."),
    }
}

fn write_block(head: Page<'_>, out: &mut dyn Write) -> fmt::Result {
    let word = head.frame().word();
    let order = word.order();
    match word.state() {
        Some(FrameState::Free) => write!(out, "a free page, in a free block of order {order}"),
        Some(FrameState::Cached) => {
            write!(
                out,
                "a free page, in a block of order {order} on a CPU's list"
            )
        }
        Some(FrameState::Reserved) => write!(out, "a reserved page, never the page allocator's"),
        Some(FrameState::Unique | FrameState::Shared) if word.is_for(Kind::Table) => {
            write!(out, "a page table")
        }
        Some(FrameState::Unique) => {
            write!(
                out,
                "a page in use, in a block of order {order} with one owner"
            )
        }
        Some(FrameState::Shared) => {
            let count = head.count();
            write!(
                out,
                "a page in use, in a block of order {order} with {count} references"
            )
        }
        Some(FrameState::Interior) | None => write!(out, "a page whose record is damaged"),
    }
}

fn of_object(object: &ObjectStory, out: &mut dyn Write) -> fmt::Result {
    let ObjectStory { size, offset, .. } = *object;
    let name = match object.cache.as_str() {
        "" => "that is being renamed",
        name => name,
    };
    let owned = match object.owned {
        Owned::Yes => "an object",
        Owned::No => "a freed object",
        Owned::Unknown => "an object, taken or free,",
    };
    let len = i64::try_from(size).unwrap_or(i64::MAX);
    match offset {
        ..0 => write!(out, "It is {} bytes before ", offset.unsigned_abs())?,
        _ if offset >= len => {
            let behind = offset.saturating_sub(len);
            write!(out, "It is byte {behind} behind the end of ")?;
        }
        _ => write!(out, "It is byte {offset} of ")?,
    }
    write!(out, "{owned} of {size} bytes of cache {name}")?;
    let origins = [("allocated", object.allocated), ("freed", object.freed)];
    for (what, origin) in origins {
        if let Some(ObjectOrigin { place, cpu }) = origin {
            write!(out, "; {what} last at {place} on CPU {}", cpu.0)?;
        }
    }
    writeln!(out, ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_made_of_fill_bytes_are_known() {
        for (word, says) in [
            (0x6b6b_6b6b_6b6b_6b6b, "freed objects are filled"),
            (0x6b6b_6b6b_6b6b_6b9b, "freed objects are filled"),
            (0xa56b_6b6b_6b6b_6b6b, "freed objects are filled"),
            (0xaaaa_aaaa_aaaa_aaaa, "free pages are filled"),
            (0x5a5a_5a5a_5a5a_5a5a, "between objects"),
            (0xbbbb_bbbb_bbbb_bbc3, "around freed objects"),
            (0xcccc_cccc_cccc_cccc, "around objects"),
        ] {
            let told = pattern(word);
            assert!(
                told.is_some_and(|text| text.contains(says)),
                "{word:#x}: {told:?}"
            );
        }
        for word in [0, u64::MAX, 0xffff_8880_6b6b_6b6b, 0x8000_0000_0000_0000] {
            assert_eq!(pattern(word), None, "{word:#x}");
        }
    }
}
