//! The CMA area: what the boot says about it, and `cmatest`.

use super::MEMORY;
use crate::shell::{CommandError, CommandResult, no_arguments};
use crate::{command, kernel_param, kprintln};
use alloc::string::String;
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::memblock::params::Params;
use mm::system::{CmaError, Summary};

kernel_param!(
    "cma",
    "SIZE",
    "memory that devices can have in one piece, lent to movable pages"
);

command! { "cmatest", "", "take all of the CMA area in one piece, borrow from it, give all back", cmatest }

/// As Linux: `cma: Reserved 64 MiB at 0x…`.
pub(super) fn log(params: &Params, summary: &Summary) {
    let wanted = params.cma.unwrap_or(0);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if summary.cma > 0 {
        let area = MEMORY.cma_stats().frames.addrs();
        log::info!(
            "cma: Reserved {} MiB at {:#018x}",
            mib(area.size()),
            area.start().as_u64()
        );
    } else if wanted > 0 {
        log::error!("cma: Failed to reserve {} MiB", mib(wanted));
    }
}

fn cmatest(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let area = MEMORY.cma_stats().frames;
    let count = area.frames();
    let failed = |error: CmaError| CommandError::failed(error);
    let run = MEMORY
        .cma_alloc(count.max(1), Order::ZERO)
        .map_err(failed)?;
    if run.frames() != area {
        return Err(CommandError::failed("other frames than those of the area"));
    }
    match MEMORY.cma_alloc(1, Order::ZERO) {
        Err(CmaError::NoRoom) => {}
        Err(error) => return Err(CommandError::failed(error)),
        Ok(_) => return Err(CommandError::failed("a frame was given out twice")),
    }
    MEMORY.cma_release(run);
    kprintln!("all {count} frames of the area were had in one piece");

    // Movable pages borrow; the first one of the area that does is in the way.
    let mut pages = [const { None }; 64];
    let gfp = Gfp::HIGHUSER_MOVABLE;
    for place in &mut pages {
        *place = Some(
            MEMORY
                .alloc_block(gfp, Order::ZERO)
                .map_err(CommandError::failed)?,
        );
    }
    let borrowed = pages
        .iter()
        .flatten()
        .filter(|page| area.contains(page.pfn()))
        .count();
    match (borrowed, MEMORY.cma_alloc(count, Order::ZERO)) {
        (0, Ok(_)) => {
            kprintln!("no movable page borrowed from it: there is enough elsewhere");
            if let Some(mib) = borrowed_from() {
                kprintln!("of an area of {mib} MiB (cma={mib}M) they would borrow");
            }
        }
        (1.., Err(CmaError::Busy { pfn })) => {
            kprintln!("{borrowed} movable pages borrowed from it; frame {pfn} is in use");
        }
        (_, outcome) => {
            let outcome = outcome.map(|run| run.frames());
            return Err(CommandError::failed(format_args!(
                "{borrowed} borrowed: {outcome:?}"
            )));
        }
    }
    drop(pages);
    drop(MEMORY.cma_alloc(count, Order::ZERO).map_err(failed)?);
    MEMORY.validate().map_err(CommandError::failed)?;
    kprintln!("all of it was had again");
    Ok(())
}

/// How many MiB the area would have to have for movable pages to borrow from it: more than half of
/// what is free in its zone, with a little for what is taken meanwhile.
fn borrowed_from() -> Option<u64> {
    let zone = MEMORY.zone_of(MEMORY.cma_stats().frames.first())?;
    Some((zone.free_frames() >> 1 >> 8).saturating_add(4))
}
