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

command! { "ptdump", "[START [END] | REGION]", "what the kernel's page tables map, e.g. `ptdump vmalloc`; and a recount of them", ptdump }
command! { "vtop", "ADDRESS | textbook ADDRESS", "the walk for an address, level by level; or on the 14-bit machine of the textbooks", vtop }

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
    let (start, end) = match arguments {
        [] => (HALF, u64::MAX),
        [name] => {
            let regions = space.layout.regions();
            let named = regions.iter().find(|(region, _)| region == name);
            if let Some(&(_, range)) = named {
                return Ok(range);
            }
            let start = address(name)?;
            (start, start.saturating_add(1))
        }
        [start, end] => (address(start)?, address(end)?),
        _ => return Err(CommandError::usage("expected two addresses at most")),
    };
    VirtRange::new(VirtAddr::new(start), VirtAddr::new(end))
        .ok_or_else(|| CommandError::usage("the end lies before the start"))
}

fn ptdump(arguments: &[String]) -> CommandResult {
    let space = space()?;
    let range = range(space, arguments)?;
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
