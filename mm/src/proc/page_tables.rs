//! What page tables map, and the walk for an address, in words.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::addr::{VirtAddr, VirtRange};
use crate::config::PAGE_SIZE;
use crate::pagetable::{
    Attributes, Cache, Decoded, Entry, PageSize, Protection, SoftBits, Span, Step,
};
use crate::platform::Platform;
use crate::system::{KernelSpace, Memory};

/// Writes what the kernel's tables map in `range`, as Linux does in `/sys/kernel/debug/page_tables/kernel`, but for what is not
/// mapped: runs of pages with the same size and rights, under the names of their regions. Context: task.
///
/// # Errors
/// Those of `out`.
pub fn ptdump<P: Platform>(
    memory: &Memory<P>,
    space: &KernelSpace,
    range: VirtRange,
    out: &mut dyn Write,
) -> fmt::Result {
    let mut region = None;
    let mut dump = |span: &Span| {
        let found = space.layout.region_of(span.range.start());
        let name = found.map_or("elsewhere", |(name, _)| name);
        if region != Some(name) {
            region = Some(name);
            writeln!(out, "---[ {name} ]---")?;
        }
        write_span(out, span)
    };
    each_run(memory, space, range, &mut dump)
}

/// Shows what the kernel's tables map in `range`: runs of pages with the same size and rights, put together across tables, lowest
/// first. `range` is rounded to pages of 4 KiB, and of a run only what lies in it is shown. A run's frames need not be in a row.
/// Context: task; `show` runs without locks.
///
/// # Errors
/// Those of `show`.
pub fn each_run<P: Platform>(
    memory: &Memory<P>,
    space: &KernelSpace,
    range: VirtRange,
    show: &mut dyn FnMut(&Span) -> fmt::Result,
) -> fmt::Result {
    let mut run: Option<Span> = None;
    let mut at = range.start().align_down(PAGE_SIZE);
    // The last page of the space has no end.
    let end = range.end().align_up(PAGE_SIZE);
    while let Some(mut span) = memory.next_span(&space.tables, at) {
        if span.range.start() >= range.end() {
            break;
        }
        let next = span.range.end();
        if let Some(cut) = end.filter(|&end| end < next) {
            span.range = VirtRange::new(span.range.start(), cut).unwrap_or(span.range);
        }
        run = Some(match run {
            Some(run) if continues(&run, &span) => Span {
                range: run.range.hull(span.range),
                ..run
            },
            Some(done) => {
                show(&done)?;
                span
            }
            None => span,
        });
        // The last page of the space.
        if next <= at {
            break;
        }
        at = next;
    }
    run.iter().try_for_each(show)
}

fn continues(run: &Span, span: &Span) -> bool {
    let kind = |span: &Span| (span.first.size, span.first.attributes);
    run.range.end() == span.range.start() && kind(run) == kind(span)
}

/// As Linux: addresses, bytes, rights, and the level that maps.
fn write_span(out: &mut dyn Write, span: &Span) -> fmt::Result {
    let (start, end) = (span.range.start().as_u64(), span.range.end().as_u64());
    write!(
        out,
        "0x{start:016x}-0x{end:016x} {}   ",
        Bytes(span.range.size())
    )?;
    write_rights(out, span.first.size, span.first.attributes)?;
    let level = match span.first.size {
        PageSize::Size4K => "pte",
        PageSize::Size2M => "pmd",
        PageSize::Size1G => "pud",
    };
    writeln!(out, " {level}")
}

fn write_rights(out: &mut dyn Write, size: PageSize, attributes: Attributes) -> fmt::Result {
    let has = |flag| attributes.protection.contains(flag);
    let word = |is_set, text| if is_set { text } else { "" };
    let cache = match attributes.cache {
        Cache::WriteBack => "",
        Cache::WriteCombining => "WC",
        Cache::UncachedMinus => "UC-",
        Cache::Uncached => "UC",
        Cache::WriteProtect => "WP",
        Cache::WriteThrough => "WT",
    };
    write!(
        out,
        "{:<3} {:<2} {cache:<3} {:<3} {:<3} {:<2}",
        word(has(Protection::USER), "USR"),
        if has(Protection::WRITE) { "RW" } else { "ro" },
        word(size != PageSize::Size4K, "PSE"),
        word(has(Protection::GLOBAL), "GLB"),
        if has(Protection::EXECUTE) { "x" } else { "NX" },
    )
}

/// Bytes in the largest unit that divides them, as Linux prints them, eleven places wide.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0 >> 10, 0_usize);
        while number & 0x3ff == 0 && number != 0 && unit < 4 {
            number >>= 10;
            unit = unit.saturating_add(1);
        }
        let unit = ["K", "M", "G", "T", "P"].get(unit).unwrap_or(&"K");
        write!(f, "{number:>10}{unit}")
    }
}

/// Pages that break the rules of a kernel's half.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Violations {
    /// Pages that can be written and executed.
    pub write_execute: u64,
    /// Pages that user code has.
    pub user: u64,
    /// Where the first of them is.
    pub first: Option<VirtAddr>,
}

/// Counts pages of the kernel's half that can be both written and executed, or that user code has (Linux:
/// `ptdump_check_wx`). Context: task.
#[must_use]
pub fn check_wx<P: Platform>(memory: &Memory<P>, space: &KernelSpace) -> Violations {
    let mut found = Violations::default();
    let half = VirtAddr::new(1 << 63);
    let range = VirtRange::new(half, VirtAddr::new(u64::MAX)).unwrap_or_default();
    let mut look = |span: &Span| {
        let pages = span.range.pages();
        let attributes = span.first.attributes;
        let is_wx = attributes.is_write_execute();
        let is_user = attributes.protection.contains(Protection::USER);
        if is_wx || is_user {
            let first = found.first.unwrap_or(span.range.start());
            found.first = Some(first);
            found.write_execute = found
                .write_execute
                .saturating_add(if is_wx { pages } else { 0 });
            found.user = found.user.saturating_add(if is_user { pages } else { 0 });
        }
        Ok(())
    };
    // Nothing is written.
    let _ = each_run(memory, space, range, &mut look);
    found
}

/// Writes the walk that the CPU makes for an address, level by level, with the bits of each entry explained. Context: task.
///
/// # Errors
/// Those of `out`.
pub fn vtop<P: Platform>(
    memory: &Memory<P>,
    space: &KernelSpace,
    at: VirtAddr,
    out: &mut dyn Write,
) -> fmt::Result {
    let levels = space.tables.levels();
    write!(out, "virtual {:#018x}", at.as_u64())?;
    if let Some((name, _)) = space.layout.region_of(at) {
        write!(out, ", {name}")?;
    }
    writeln!(out)?;
    if !at.is_canonical(levels) {
        return writeln!(
            out,
            "  not canonical with {levels} levels: any access is a general protection fault"
        );
    }
    let walk = memory.walk(&space.tables, at);
    for step in walk.steps() {
        write_step(out, &step)?;
    }
    match walk.phys(at) {
        Some(phys) => writeln!(
            out,
            "physical {:#018x}, frame {}",
            phys.as_u64(),
            phys.frame()
        ),
        None => {
            writeln!(out, "  not mapped: any access is a page fault")?;
            write_next(memory, space, at, out)
        }
    }
}

/// Where in its region something is mapped behind an address that is not.
fn write_next<P: Platform>(
    memory: &Memory<P>,
    space: &KernelSpace,
    at: VirtAddr,
    out: &mut dyn Write,
) -> fmt::Result {
    let Some((name, region)) = space.layout.region_of(at) else {
        return writeln!(out, "  no region of the kernel's half holds it");
    };
    let next = memory.next_span(&space.tables, at);
    match next.filter(|span| span.range.start() < region.end()) {
        Some(span) => writeln!(
            out,
            "  the next page of the {name} region is at {:#018x}",
            span.range.start().as_u64()
        ),
        None => writeln!(out, "  nothing of the {name} region is behind it"),
    }
}

fn write_step(out: &mut dyn Write, step: &Step) -> fmt::Result {
    let Step {
        level,
        table,
        index,
        entry,
    } = step;
    let name = level.name();
    write!(
        out,
        "  {name}  table {:#x}, entry {index:>3} = {:#018x}  ",
        table.addr().as_u64(),
        entry.bits()
    )?;
    match entry.decode(*level) {
        Decoded::None => writeln!(out, "nothing"),
        Decoded::Table(next) => writeln!(
            out,
            "table at {:#x}: {}",
            next.addr().as_u64(),
            Bits(*entry, None)
        ),
        Decoded::Leaf(leaf) => {
            let size = leaf.size;
            writeln!(
                out,
                "{size} page at {:#x}: {}",
                leaf.phys().as_u64(),
                Bits(*entry, Some(leaf.attributes))
            )
        }
        Decoded::NotPresent if entry.is_protnone() => {
            writeln!(out, "a page out of everybody's reach")
        }
        Decoded::NotPresent => writeln!(out, "not present"),
        Decoded::Bad => writeln!(out, "no page can be of that size"),
    }
}

/// The bits of an entry in words; those of a page with its attributes.
struct Bits(Entry, Option<Attributes>);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(entry, attributes) = *self;
        f.write_str("present")?;
        f.write_str(if entry.is_writable() {
            ", write"
        } else {
            ", read only"
        })?;
        if entry.is_user() {
            f.write_str(", user")?;
        }
        if let Some(attributes) = attributes {
            let may = |flag| attributes.protection.contains(flag);
            f.write_str(if may(Protection::EXECUTE) {
                ", execute"
            } else {
                ", no execute"
            })?;
            if may(Protection::GLOBAL) {
                f.write_str(", global")?;
            }
            write!(f, ", {}", attributes.cache)?;
        }
        if entry.is_young() {
            f.write_str(", accessed")?;
        }
        if attributes.is_some() && entry.is_dirty() {
            f.write_str(", dirty")?;
        }
        if entry.soft().contains(SoftBits::SPECIAL) {
            f.write_str(", special")?;
        }
        Ok(())
    }
}
