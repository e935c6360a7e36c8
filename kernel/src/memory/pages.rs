//! Shell commands for pages: `alloc`, `free`, `page`, `explain`.

use super::{Kernel, MEMORY, Pages, fault_story, holder, objects, vmalloc};
use crate::arch::lock::IrqLock;
use crate::shell::interrupt::Output;
use crate::shell::{self, CommandError, CommandResult};
use crate::{command, kprint, kprintln};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::proc::Recording;

command! { "alloc", "ORDER [GFP]", "allocate 2^ORDER pages and keep them, e.g. `alloc 3 KERNEL|ZERO`", alloc_command }
command! { "free", "ID|all", "free what `alloc` keeps", free_command }
command! { "page", "PFN", "everything about one page frame, e.g. `page 0x1000`", page_command }
command! { "explain", "alloc ORDER [GFP] | kmalloc SIZE [GFP] | vmalloc SIZE | fault ADDRESS", "allocate once and tell every step, or tell what an address is", explain_command, "  alloc, kmalloc  where the block came from, step by step: from this CPU's
                  lists, or from a zone
  vmalloc         where the addresses came from, and in which pages they are
                  mapped
  fault           what an access to an address would meet, and what lies there:
                  a stack or its guard page, an area, a frame and its owner, a
                  part of the image
SIZE may end in K, M or G. What is allocated is free again at the end." }

static KEPT: IrqLock<Kept> = IrqLock::new(Kept {
    next: 1,
    blocks: BTreeMap::new(),
});

/// What `alloc` keeps until `free`.
struct Kept {
    next: u64,
    blocks: BTreeMap<u64, Pages>,
}

/// The blocks that `alloc` keeps, in words.
struct KeptIds;

impl fmt::Display for KeptIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = KEPT.lock().blocks.keys().map(u64::to_string).collect();
        match ids.as_slice() {
            [] => f.write_str("nothing is kept"),
            ids => write!(f, "kept: {}", ids.join(", ")),
        }
    }
}

/// An order and flags, as commands take them.
pub(super) fn request(arguments: &[String]) -> Result<(Gfp, Order), CommandError> {
    let (order, flags) = match arguments {
        [order] => (order, "KERNEL"),
        [order, flags] => (order, flags.as_str()),
        _ => {
            return Err(CommandError::usage(format_args!(
                "expected an order and, perhaps, flags; {KeptIds}"
            )));
        }
    };
    let number = order.parse::<u8>().ok().and_then(Order::new);
    let order = number.ok_or_else(|| {
        CommandError::usage(format_args!(
            "`{order}` is not an order from 0 to {}",
            Order::MAX
        ))
    })?;
    Ok((self::flags(flags)?, order))
}

/// Flags, as commands take them: `KERNEL|ZERO`.
pub(super) fn flags(words: &str) -> Result<Gfp, CommandError> {
    let mut gfp = Gfp::empty();
    for word in words.split('|') {
        gfp |= word
            .parse::<Gfp>()
            .map_err(|unknown| CommandError::usage(format_args!("`{word}`: {unknown}")))?;
    }
    Ok(gfp)
}

fn alloc_command(arguments: &[String]) -> CommandResult {
    let (gfp, order) = request(arguments)?;
    let pages = Pages::alloc(Kernel, gfp, order).map_err(CommandError::failed)?;
    let range = pages.frames().addrs();
    let zone = MEMORY.zone_of(pages.pfn());
    let node = zone.map(|zone| zone.id().node).unwrap_or_default();
    let zone = zone.map_or("?", |zone| zone.kind().name());
    let pfn = pages.pfn();

    let mut kept = KEPT.lock();
    let id = kept.next;
    kept.next = id.saturating_add(1);
    kept.blocks.insert(id, pages);
    drop(kept);
    kprintln!("id {id}: frame {pfn}, order {order}, node {node}, zone {zone}, {range}");
    Ok(())
}

fn free_command(arguments: &[String]) -> CommandResult {
    let [id] = arguments else {
        return Err(CommandError::usage(format_args!(
            "expected the id that `alloc` printed, or `all`; {KeptIds}"
        )));
    };
    if id == "all" {
        let blocks = core::mem::take(&mut KEPT.lock().blocks);
        kprintln!("freed {} blocks", blocks.len());
        return Ok(());
    }
    let number: u64 = id
        .parse()
        .map_err(|_| CommandError::usage(format_args!("`{id}` is not an id; {KeptIds}")))?;
    let pages = KEPT.lock().blocks.remove(&number);
    let pages = pages
        .ok_or_else(|| CommandError::failed(format_args!("nothing has id {number}; {KeptIds}")))?;
    kprintln!(
        "freed id {number}: frame {}, order {}",
        pages.pfn(),
        pages.order()
    );
    Ok(())
}

fn explain_command(arguments: &[String]) -> CommandResult {
    let what = arguments
        .split_first()
        .map(|(what, rest)| (what.as_str(), rest));
    let mut steps = match MEMORY.nodes().len() {
        1 => Recording::new(),
        _ => Recording::new().naming_nodes(),
    };
    let rest = match what {
        Some(("alloc", rest)) => rest,
        Some(("kmalloc", rest)) => return objects::explain(rest, steps),
        Some(("vmalloc", rest)) => return vmalloc::explain(rest),
        Some(("fault", rest)) => return fault_story::explain(rest),
        _ => {
            return Err(CommandError::usage(
                "expected `explain alloc`, `kmalloc`, `vmalloc` or `fault`",
            ));
        }
    };
    let (gfp, order) = request(rest)?;
    let outcome = Pages::alloc_traced(Kernel, gfp, order, &mut steps);
    kprint!("{steps}");
    let pages = outcome.map_err(CommandError::failed)?;
    let pfn = pages.pfn();
    match MEMORY.zone_of(pfn).map(|zone| zone.id().node) {
        Some(node) if MEMORY.nodes().len() > 1 => {
            kprintln!("The block is at frame {pfn} of node {node}; it is free again now.");
        }
        _ => kprintln!("The block is at frame {pfn}; it is free again now."),
    }
    Ok(())
}

fn page_command(arguments: &[String]) -> CommandResult {
    let [number] = arguments else {
        return Err(CommandError::usage("expected a frame number, e.g. 0x1000"));
    };
    let pfn = Pfn::new(shell::number(number)?);
    mm::proc::page(&MEMORY, pfn, &mut Output)?;
    if let Some(holder) = holder::of(pfn) {
        // Aligned with the lines before.
        kprintln!("  {:<11}{holder}", "held by");
    }
    Ok(())
}
