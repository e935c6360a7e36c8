//! Everything that is known about one frame.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::addr::Order;
use crate::addr::{Pfn, PfnRange};
use crate::buddy::MigrateType;
use crate::frame::{FrameState, Page, PageFlags, Word};
use crate::platform::Platform;
use crate::system::Memory;
use crate::zone::Zone;

/// Describes a frame in several lines: what it is, the block it belongs to, where it lies, and
/// what its block's record says. Any number will do. Context: task; what it shows may change
/// while it is shown.
///
/// # Errors
/// Those of `out`.
pub fn page<P: Platform>(memory: &Memory<P>, pfn: Pfn, out: &mut dyn Write) -> fmt::Result {
    write!(out, "frame {pfn}")?;
    match pfn.checked_addr() {
        Some(addr) => writeln!(out, ", physical address {addr:?}")?,
        None => writeln!(out, ", beyond 64 bits of physical address")?,
    }
    let section = pfn.section();
    if memory.page(pfn).is_none() && memory.zone_of(pfn).is_some() {
        let text = match memory.is_latent(pfn) {
            true => "latent: free, in a section without records yet",
            false => "reserved, in a section without records yet",
        };
        line(out, "state", format_args!("{text}"))?;
        return write_place(memory, pfn, out);
    }
    if memory.page(pfn).is_none() {
        return line(
            out,
            "state",
            format_args!("no such frame: section {section} has no records"),
        );
    }
    let head = memory.frames().and_then(|table| table.head(pfn));
    match head {
        Some(head) => write_block(out, pfn, head)?,
        None => line(out, "state", format_args!("hole: no block holds it"))?,
    }
    write_place(memory, pfn, out)?;
    match head {
        Some(head) => write_record(out, head)?,
        None => return Ok(()),
    }
    write_owners(memory, pfn, out)?;
    super::slabs::write_slab(memory, pfn, out)
}

/// Who allocated the frame last, and who gave it back, where that is kept.
fn write_owners<P: Platform>(memory: &Memory<P>, pfn: Pfn, out: &mut dyn Write) -> fmt::Result {
    if let Some(place) = memory.origin(pfn) {
        line(out, "allocated", format_args!("last at {place}"))?;
    }
    match memory.last_free(pfn) {
        Some(freed) => {
            line(out, "freed", format_args!("last {freed}"))?;
            freed.write_callers(out)
        }
        None => Ok(()),
    }
}

fn line(out: &mut dyn Write, name: &str, text: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(out, "  {name:<11}{text}")
}

/// The state, and the frame's place in its block.
fn write_block(out: &mut dyn Write, pfn: Pfn, head: Page<'_>) -> fmt::Result {
    let word = head.frame().word();
    let Some(state) = word.state() else {
        let bits = word.bits();
        return line(
            out,
            "state",
            format_args!("damaged: its state word is {bits:#018x}"),
        );
    };
    line(out, "state", format_args!("{}", in_words(state)))?;
    let block = PfnRange::block(head.pfn(), word.order());
    let (first, end, order) = (block.first(), block.end(), word.order());
    match pfn.offset_from(first) {
        None | Some(0) => line(out, "block", format_args!("{first}..{end}, order {order}")),
        Some(offset) => line(
            out,
            "block",
            format_args!("{first}..{end}, order {order}; frame {offset} of it"),
        ),
    }
}

/// Where the frame lies.
fn write_place<P: Platform>(memory: &Memory<P>, pfn: Pfn, out: &mut dyn Write) -> fmt::Result {
    let offset = pfn.section_offset();
    line(
        out,
        "section",
        format_args!("{}, frame {offset} of it", pfn.section()),
    )?;
    let Some(zone) = zone_around(memory, pfn) else {
        return line(out, "zone", format_args!("none"));
    };
    line(out, "node", format_args!("{}", zone.id().node))?;
    line(out, "zone", format_args!("{}", zone.kind()))?;
    let Some(kind) = zone.pageblock_type(memory.platform(), pfn) else {
        return Ok(());
    };
    let first = pfn.align_down(Order::PAGEBLOCK);
    line(
        out,
        "pageblock",
        format_args!("at {first}, {}", kind.name()),
    )
}

/// The zone that a frame belongs to; for a hole, the one that spans it.
fn zone_around<P: Platform>(memory: &Memory<P>, pfn: Pfn) -> Option<&Zone> {
    memory
        .zone_of(pfn)
        .or_else(|| memory.zones().find(|zone| zone.span().contains(pfn)))
}

/// What the block's record says beside its state.
fn write_record(out: &mut dyn Write, head: Page<'_>) -> fmt::Result {
    let word = head.frame().word();
    if !word.state().is_some_and(FrameState::is_live) {
        return Ok(());
    }
    let asked = MigrateType::from_bits(word.mobility()).name();
    line(out, "asked for", format_args!("{asked}{}", compound(word)))?;
    line(out, "flags", format_args!("{}", FlagNames(word.flags())))?;
    line(out, "references", format_args!("{}", head.count()))?;
    line(
        out,
        "private",
        format_args!("{:#x}", head.frame().private()),
    )
}

const fn compound(word: Word) -> &'static str {
    if word.is_compound() { ", compound" } else { "" }
}

const fn in_words(state: FrameState) -> &'static str {
    match state {
        FrameState::Interior => "inside a block",
        FrameState::Free => "free",
        FrameState::Reserved => "reserved: present, but never handed to the allocator",
        FrameState::Unique => "in use, one owner",
        FrameState::Shared => "in use, reference-counted",
        FrameState::Cached => "free, on a CPU's own list",
    }
}

/// Flags as Linux dumps them: `locked|dirty`.
struct FlagNames(PageFlags);

impl fmt::Display for FlagNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (name, _) in self.0.iter_names() {
            f.write_str(separator)?;
            name.chars()
                .try_for_each(|letter| f.write_char(letter.to_ascii_lowercase()))?;
            separator = "|";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_in_lower_case() {
        let flags = PageFlags::LOCKED | PageFlags::SWAPCACHE;
        assert_eq!(FlagNames(flags).to_string(), "locked|swapcache");
        assert_eq!(FlagNames(PageFlags::empty()).to_string(), "none");
    }
}
