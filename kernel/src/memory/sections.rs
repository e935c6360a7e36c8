//! `sections`: how much of the machine is populated, and proof that all of it can be.

use super::MEMORY;
use super::ledger::Ledger;
use crate::num::to_usize;
use crate::shell::{CommandError, CommandResult, interrupt};
use crate::{command, kprintln};
use alloc::string::String;
use alloc::vec::Vec;
use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::config::SECTION_FRAMES;
use mm::system::{Memory, PageRun};

command! { "sections", "[take | touch]", "show how many sections are populated; take all blocks of 4 MiB, or one of each section, and give them back", sections }

fn sections(arguments: &[String]) -> CommandResult {
    match arguments {
        [] => {}
        [word] if word == "take" => take_all()?,
        [word] if word == "touch" => touch_each()?,
        _ => return Err(CommandError::usage("expected nothing, take or touch")),
    }
    let (populated, all) = numbers().fold((0_u64, 0_u64), |(populated, all), section| {
        let is_populated = MEMORY.page(frames(section).first()).is_some();
        let populated = populated.saturating_add(u64::from(is_populated));
        (populated, all.saturating_add(1))
    });
    kprintln!("sections: {populated} of {all} are populated");
    Ok(())
}

fn frames(section: u64) -> PfnRange {
    let first = Pfn::new(section.saturating_mul(SECTION_FRAMES));
    PfnRange::from_count(first, SECTION_FRAMES).unwrap_or_default()
}

/// Sections with memory one MiB above their start, as all but odd ones have.
fn numbers() -> impl Iterator<Item = u64> {
    let limit = MEMORY.frames().map_or(0, |frames| frames.limit().section());
    // Not at the very start: what lies there is the BIOS's.
    let has_memory = |pfn| MEMORY.zone_of(pfn).is_some();
    (0..limit).filter(move |&section| has_memory(frames(section).first().saturating_add(1 << 8)))
}

/// Takes every block of the largest order, and gives all back.
fn take_all() -> CommandResult {
    let before = super::free_frames();
    let order = Order::MAX;
    let most = before.wrapping_shr(u32::from(order.as_u8()));
    let mut blocks = Ledger::new(to_usize(most)).map_err(CommandError::failed)?;
    let limit = MEMORY.frames().map_or(0, |frames| frames.limit().section());
    let mut counts: Vec<u8> = alloc::vec![0; to_usize(limit)];
    let gfp = Gfp::KERNEL | Gfp::MOVABLE | Gfp::HIGHMEM | Gfp::MEMALLOC | Gfp::NOWARN;
    while let Ok(pages) = super::Pages::alloc(super::Kernel, gfp, order) {
        interrupt::check()?;
        if let Some(count) = counts.get_mut(to_usize(pages.pfn().section())) {
            *count = count.saturating_add(1);
        }
        if blocks.push(pages, 0).is_err() {
            return Err(CommandError::failed("more blocks than there can be"));
        }
    }
    let taken = blocks.len();
    let without = numbers().filter(|&section| counts.get(to_usize(section)) == Some(&0));
    let without = without.count();
    drop(blocks);
    kprintln!("sections: {taken} blocks of 4 MiB taken, from all but {without} sections");
    nothing_is_lost(before)
}

/// Takes a block of 4 MiB of each section, and gives all back.
fn touch_each() -> CommandResult {
    let before = super::free_frames();
    let mut runs: Vec<PageRun<&Memory<super::KernelPlatform>>> = Vec::new();
    let mut without: u64 = 0;
    for section in numbers() {
        interrupt::check()?;
        let mut blocks = frames(section).blocks(Order::MAX);
        let run = blocks.find_map(|(pfn, order)| {
            let block = PfnRange::block(pfn, order);
            MEMORY.alloc_contig_range(block, Gfp::KERNEL).ok()
        });
        match run {
            Some(run) => runs.push(run),
            None => without = without.saturating_add(1),
        }
    }
    let taken = runs.len();
    drop(runs);
    kprintln!("sections: {taken} blocks of 4 MiB taken, from all but {without} sections");
    nothing_is_lost(before)
}

fn nothing_is_lost(before: u64) -> CommandResult {
    let after = super::free_frames();
    if after != before {
        return Err(CommandError::failed(format_args!(
            "{before} pages were free before, {after} are now"
        )));
    }
    Ok(())
}
