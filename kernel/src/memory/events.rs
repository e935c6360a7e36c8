//! What happens to memory, for viewers: recorded by a kernel that was built with `MM_EVENTS=on`, as `cargo run -- --events`
//! does.

use super::MEMORY;
use crate::arch::smp::MAX_CPUS;
use crate::arch::{local, time};
use crate::num::to_usize;
use crate::shell::parse::number;
use crate::{kernel_param, params};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use mm::inspect::{EventCell, EventRing};
use mm::platform::{CpuId, Platform};
use mm::report::Event;
use spin::Once;

/// Whether this kernel records.
pub(super) const ARE_ON: bool = option_env!("MM_EVENTS").is_some();

/// Events of a CPU that are kept: 1 MiB. Time travel in a viewer goes back as far.
const KEPT: u64 = 1 << 16;

/// One for each CPU there may be, in a kernel that records.
const RING_COUNT: usize = if ARE_ON { MAX_CPUS } else { 0 };
static RINGS: [Once<EventRing>; RING_COUNT] = [const { Once::new() }; RING_COUNT];

kernel_param!(
    "events",
    "NUMBER",
    "with `--events`: how many events of each CPU are kept, rounded down to a power of two; 65536 unless said"
);

/// Records something on this CPU, once there is a ring for it.
///
/// # Context
/// Any.
#[inline]
pub(super) fn record(event: Event) {
    let ring = RINGS.get(to_usize(u64::from(local::current_id())));
    if let Some(ring) = ring.and_then(Once::get) {
        ring.record(time::tsc(), event);
    }
}

/// Begins to record, on all CPUs, and shows it to viewers.
///
/// # Context
/// Boot, memory up and published.
pub(super) fn begin() {
    if !ARE_ON {
        if params::get("events").is_some() {
            log::warn!("events: this kernel records none; that takes `--events`");
        }
        return;
    }
    // Whoever reads parameters has said already what is wrong with this one.
    let kept = params::get("events").and_then(number);
    let kept = kept.unwrap_or(KEPT);
    let cpus = MEMORY.platform().cpus();
    for (cpu, place) in (0..cpus).zip(&RINGS) {
        let Some(cells) = cells(kept) else {
            log::warn!(
                "events: no memory for {kept} of each CPU; CPU {cpu} and what is behind it record none"
            );
            return;
        };
        let ring = place.call_once(|| EventRing::new(cells));
        let rate = time::rate().unwrap_or(0);
        if let Err(error) = MEMORY.publish_events(CpuId(cpu), ring, rate) {
            log::warn!("events: viewers do not see those of CPU {cpu}: {error}");
        }
    }
    log::info!("events: {kept} of each CPU are kept for viewers");
}

/// Room for so many events, for good.
fn cells(count: u64) -> Option<&'static [EventCell]> {
    let mut cells: Vec<EventCell> = Vec::new();
    cells.try_reserve_exact(to_usize(count)).ok()?;
    cells.resize_with(to_usize(count), || [const { AtomicU64::new(0) }; 2]);
    Some(Box::leak(cells.into_boxed_slice()))
}
