//! `pcp`: the pages that each CPU keeps at hand (Linux: `/proc/zoneinfo`, `pagesets`), drawn.

use super::MEMORY;
use crate::shell::{CommandResult, no_arguments};
use crate::{command, kprintln};
use alloc::string::String;
use mm::buddy::pageset::PageSetStats;
use mm::zone::Zone;

command! { "pcp", "[drain]", "draw the pages that each CPU keeps at hand, zone by zone, or give all back first", pcp }

/// Places of a bar.
const WIDTH: u64 = 24;

fn pcp(arguments: &[String]) -> CommandResult {
    match arguments {
        [word] if word == "drain" => {
            let before = at_hand();
            MEMORY.drain_all_pages();
            let given = before.saturating_sub(at_hand());
            kprintln!("{given} pages went back to their zones");
        }
        arguments => no_arguments(arguments)?,
    }
    if MEMORY.zones().all(|zone| zone.pagesets().next().is_none()) {
        kprintln!("no CPU keeps pages at hand (percpu_pagelists=off)");
        return Ok(());
    }
    kprintln!(
        "node zone     cpu  at hand, up to `high`      count   high  handed out  refills  drains"
    );
    for zone in MEMORY.zones() {
        for (cpu, (set, cold)) in (0_u32..).zip(zone.pagesets_with_cold()) {
            print(zone, cpu, &set, "");
            if let Some(cold) = cold {
                print(zone, cpu, &cold, "  (cold)");
            }
        }
    }
    Ok(())
}

/// Pages that all CPUs have at hand.
fn at_hand() -> u64 {
    let sets = MEMORY.zones().flat_map(Zone::pagesets_with_cold);
    let counts = sets.map(|(set, cold)| {
        let cold = cold.map_or(0, |cold| cold.count);
        set.count.saturating_add(cold)
    });
    counts.fold(0, u64::saturating_add)
}

fn print(zone: &Zone, cpu: u32, set: &PageSetStats, what: &str) {
    kprintln!(
        "{:>4} {:<8} {cpu:>3}  {} {:>6} {:>6} {:>11} {:>8} {:>7}{what}",
        zone.id().node,
        zone.kind().name(),
        bar(set),
        set.count,
        set.high,
        set.allocated,
        set.refills,
        set.drains
    );
}

/// How full the lists are; a CPU that never used them has no `high` yet.
fn bar(set: &PageSetStats) -> String {
    let filled = set.count.saturating_mul(WIDTH);
    let filled = filled.div_ceil(set.high.max(set.count).max(1));
    (0..WIDTH)
        .map(|place| if place < filled { '#' } else { '.' })
        .collect()
}
