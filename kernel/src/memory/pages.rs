//! Shell commands for pages: `alloc`, `free`, `explain`.

use super::{Kernel, MEMORY, Pages};
use crate::arch::lock::IrqLock;
use crate::shell::{CommandError, CommandResult};
use crate::{command, kprintln};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use mm::addr::Order;
use mm::buddy::{Gfp, Step};

command! { "alloc", "ORDER [GFP]", "allocate 2^ORDER pages and keep them, e.g. `alloc 3 KERNEL|ZERO`", alloc_command }
command! { "free", "ID|all", "free what `alloc` keeps", free_command }
command! { "explain", "alloc ORDER [GFP]", "allocate once and tell every step", explain_command }

static KEPT: IrqLock<Kept> = IrqLock::new(Kept {
    next: 1,
    blocks: BTreeMap::new(),
});

/// What `alloc` keeps until `free`.
struct Kept {
    next: u64,
    blocks: BTreeMap<u64, Pages>,
}

/// An order and flags, as commands take them.
pub(super) fn request(arguments: &[String]) -> Result<(Gfp, Order), CommandError> {
    let (order, flags) = match arguments {
        [order] => (order, "KERNEL"),
        [order, flags] => (order, flags.as_str()),
        _ => return Err(CommandError::usage("expected an order and, perhaps, flags")),
    };
    let number = order.parse::<u8>().ok().and_then(Order::new);
    let order = number.ok_or_else(|| {
        CommandError::usage(format_args!(
            "`{order}` is not an order from 0 to {}",
            Order::MAX
        ))
    })?;
    let gfp = flags.parse::<Gfp>().map_err(CommandError::usage)?;
    Ok((gfp, order))
}

fn alloc_command(arguments: &[String]) -> CommandResult {
    let (gfp, order) = request(arguments)?;
    let pages = MEMORY
        .alloc_block_in(Kernel, gfp, order)
        .map_err(CommandError::failed)?;
    let range = pages.frames().addrs();
    let zone = MEMORY
        .zone_of(pages.pfn())
        .map_or("?", |zone| zone.kind().name());
    let pfn = pages.pfn();

    let mut kept = KEPT.lock();
    let id = kept.next;
    kept.next = id.saturating_add(1);
    kept.blocks.insert(id, pages);
    drop(kept);
    kprintln!("id {id}: frame {pfn}, order {order}, zone {zone}, {range}");
    Ok(())
}

fn free_command(arguments: &[String]) -> CommandResult {
    let [id] = arguments else {
        return Err(CommandError::usage(
            "expected the id that `alloc` printed, or `all`",
        ));
    };
    if id == "all" {
        let blocks = core::mem::take(&mut KEPT.lock().blocks);
        kprintln!("freed {} blocks", blocks.len());
        return Ok(());
    }
    let number: u64 = id
        .parse()
        .map_err(|_| CommandError::usage(format_args!("`{id}` is not an id")))?;
    let pages = KEPT.lock().blocks.remove(&number);
    let pages =
        pages.ok_or_else(|| CommandError::failed(format_args!("nothing has id {number}")))?;
    kprintln!(
        "freed id {number}: frame {}, order {}",
        pages.pfn(),
        pages.order()
    );
    Ok(())
}

fn explain_command(arguments: &[String]) -> CommandResult {
    let Some(("alloc", rest)) = arguments
        .split_first()
        .map(|(what, rest)| (what.as_str(), rest))
    else {
        return Err(CommandError::usage("only `explain alloc` is known"));
    };
    let (gfp, order) = request(rest)?;
    let (steps, outcome) = traced(gfp, order);
    for (number, step) in (1_u32..).zip(&steps) {
        kprintln!("{number:>3}. {step:?}");
    }
    let pages = outcome.map_err(CommandError::failed)?;
    kprintln!(
        "     → frame {}, order {}; freed again",
        pages.pfn(),
        pages.order()
    );
    Ok(())
}

/// Allocates once, taking note of every step.
pub(super) fn traced(gfp: Gfp, order: Order) -> (Vec<Step>, Result<Pages, mm::system::AllocError>) {
    // Steps come with a zone's lock held, where the heap must not grow: room comes first.
    let mut steps = Vec::with_capacity(MAX_STEPS);
    let mut trace = |step| {
        if steps.len() < steps.capacity() {
            steps.push(step);
        }
    };
    let outcome = MEMORY.alloc_block_in_traced(Kernel, gfp, order, &mut trace);
    (steps, outcome)
}

/// More steps than an allocation can take: each zone, a claim or a steal, a split per order.
const MAX_STEPS: usize = 64;
