//! Shell commands for page tables: `ptdump`, `vtop`; the check at boot.

use super::MEMORY;
use crate::shell::interrupt::Output;
use crate::shell::parse::number;
use crate::shell::{CommandError, CommandResult};
use crate::{command, kprint};
use alloc::string::String;
use mm::addr::{VirtAddr, VirtRange};
use mm::proc::{self, TextbookWalk};
use mm::system::KernelSpace;

command! { "ptdump", "[START [END] | REGION]", "what the kernel's page tables map, e.g. `ptdump vmalloc`; and a recount of them", ptdump, "START is where to begin; without END, the one page there. REGION is one of
  direct map, vmalloc, vmemmap, percpu, fixmap, kernel image
A line is a run of pages of one size with the same rights: from, to, size, then
  USR         user code may use them
  RW, ro      they may be written to, or only read
  UC, WC, ... how the CPU's caches treat them, where it is not write-back
  PSE         large pages
  GLB         global: known in all address spaces
  x, NX       they may be executed, or not
  pte, pmd, pud   the level that maps them: pages of 4 KiB, 2 MiB, 1 GiB" }
command! { "vtop", "ADDRESS | textbook ADDRESS", "the walk for an address, level by level; or on the 14-bit machine of the textbooks", vtop, "Each line is a step of the CPU's walk: the level, where its table lies in RAM,
which of the 512 entries the address chooses, the entry, and its bits in words.
The kernel's code begins at 0xffffffff80200000. Levels by their names in Linux
and at Intel:
  PGD  PML5   256 TiB for an entry; with five levels only
  P4D  PML4   512 GiB: the top with four levels (where Linux calls it PGD)
  PUD  PDPT   1 GiB, which may be a page
  PMD  PD     2 MiB, which may be a page
  PTE  PT     4 KiB pages
`vtop textbook 0x03d4` is the machine of Bryant and O'Hallaron, section 9.6.4:
14-bit addresses, pages of 64 bytes, a TLB of 4 sets, one level of page tables,
a cache of 16 lines." }

/// The kernel's half.
const HALF: u64 = 1 << 63;

fn space() -> Result<&'static KernelSpace, CommandError> {
    let space = MEMORY.kernel_space();
    space.ok_or_else(|| CommandError::failed("there are no page tables of the kernel's own"))
}

fn address(text: &str) -> Result<u64, CommandError> {
    number(text).ok_or_else(|| CommandError::usage(format_args!("`{text}` is not an address")))
}

/// The range that arguments name.
fn range(space: &KernelSpace, arguments: &[String]) -> Result<VirtRange, CommandError> {
    if let Some(range) = region(space, &arguments.join(" ")) {
        return Ok(range);
    }
    let bound = |text: &String| {
        number(text).ok_or_else(|| {
            let names = space.layout.regions().map(|(name, _)| name).join(", ");
            CommandError::usage(format_args!(
                "`{text}` is neither an address nor a region: there are {names}"
            ))
        })
    };
    let (start, end) = match arguments {
        [] => (HALF, u64::MAX),
        [start] => {
            let start = bound(start)?;
            (start, start.saturating_add(1))
        }
        [start, end] => (bound(start)?, bound(end)?),
        _ => return Err(CommandError::usage("expected two addresses at most")),
    };
    VirtRange::new(VirtAddr::new(start), VirtAddr::new(end))
        .ok_or_else(|| CommandError::usage("the end lies before the start"))
}

/// The region of a name, which may be shortened to its first or last word.
fn region(space: &KernelSpace, name: &str) -> Option<VirtRange> {
    let is_it = |full: &str| full == name || full.split(' ').any(|word| word == name);
    let mut regions = space.layout.regions().into_iter();
    regions.find_map(|(full, range)| is_it(full).then_some(range))
}

fn ptdump(arguments: &[String]) -> CommandResult {
    let space = space()?;
    let range = range(space, arguments)?;
    let first = MEMORY.next_span(&space.tables, range.start());
    if first.is_none_or(|span| span.range.start() >= range.end()) {
        kprint!("nothing is mapped there\n");
    }
    proc::ptdump(&MEMORY, space, range, &mut Output).map_err(CommandError::failed)?;
    let found = proc::check_wx(&MEMORY, space);
    let tables = MEMORY.validate_page_table(&space.tables);
    let tables = tables.map_err(CommandError::failed)?;
    kprint!(
        "{tables} tables, recounted; {} W+X pages, {} of user code\n",
        found.write_execute,
        found.user
    );
    if found.first.is_some() {
        return Err(CommandError::failed("pages break the rules"));
    }
    Ok(())
}

fn vtop(arguments: &[String]) -> CommandResult {
    match arguments {
        [kind, text] if kind == "textbook" => {
            let virt = u16::try_from(address(text)?).ok();
            let walk = virt.and_then(TextbookWalk::new);
            let walk = walk.ok_or_else(|| CommandError::usage("addresses have 14 bits there"))?;
            kprint!("{walk}");
            Ok(())
        }
        [text] => {
            let at = VirtAddr::new(address(text)?);
            proc::vtop(&MEMORY, space()?, at, &mut Output).map_err(CommandError::failed)
        }
        _ => Err(CommandError::usage("expected an address")),
    }
}

/// Looks for pages that can be both written and executed, and says so as Linux does.
pub(super) fn check_at_boot() {
    let Some(space) = MEMORY.kernel_space() else {
        return;
    };
    let found = proc::check_wx(&MEMORY, space);
    match found.first {
        None => log::info!("x86/mm: Checked W+X mappings: passed, no W+X pages found."),
        Some(first) => log::error!(
            "x86/mm: Checked W+X mappings: FAILED, {} W+X pages found, {} of user code, the first at {first:?}.",
            found.write_execute,
            found.user
        ),
    }
}
