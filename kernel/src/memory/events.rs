//! What happens to memory, for viewers: recorded by a kernel that was built with `MM_EVENTS=on`, as `cargo run -- --events`
//! does.

use super::MEMORY;
use crate::arch::local::{self, CpuLocal};
use crate::arch::recorder::{self, KEPT, Ring};
use crate::arch::smp::MAX_CPUS;
use crate::arch::time;
use crate::num::to_usize;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use mm::inspect::{EventCell, EventRing};
use mm::platform::{CpuId, Platform};
use mm::report::Event;
use spin::Once;

/// Whether this kernel records.
pub(super) const ARE_ON: bool = option_env!("MM_EVENTS").is_some();

/// One for each CPU there may be, in a kernel that records.
const RING_COUNT: usize = if ARE_ON { MAX_CPUS } else { 0 };
static RINGS: [Once<Ring>; RING_COUNT] = [const { Once::new() }; RING_COUNT];

/// Records something on this CPU, once there is a ring for it.
///
/// # Context
/// Any.
#[inline(always)]
pub(super) fn record(event: Event) {
    if let Some(ring) = recorder::current() {
        ring.record(time::tsc(), event);
    }
}

/// Has a CPU record, if there is a ring for it.
///
/// # Context
/// Before the CPU runs, or on the boot CPU.
pub(crate) fn begin_on(cpu: &CpuLocal) {
    let ring = RINGS.get(to_usize(u64::from(cpu.id())));
    if let Some(ring) = ring.and_then(Once::get) {
        recorder::set(cpu, ring);
    }
}

/// Begins to record, on all CPUs, and shows it to viewers.
///
/// # Context
/// Boot, memory up and published, before other CPUs are started.
pub(super) fn begin() {
    if !ARE_ON {
        return;
    }
    let cpus = MEMORY.platform().cpus();
    for (cpu, place) in (0..cpus).zip(&RINGS) {
        let Some(cells) = cells() else {
            log::warn!(
                "events: no memory for {KEPT} of each CPU; CPU {cpu} and what is behind it record none"
            );
            break;
        };
        let ring = place.call_once(|| EventRing::new(cells));
        let rate = time::rate().unwrap_or(0);
        if let Err(error) = MEMORY.publish_events(CpuId(cpu), ring, rate) {
            log::warn!("events: viewers do not see those of CPU {cpu}: {error}");
        }
    }
    begin_on(local::boot_cpu());
    log::info!("events: {KEPT} of each CPU are kept for viewers");
}

/// Room for the events of a CPU, for good.
fn cells() -> Option<&'static [EventCell; KEPT]> {
    let mut cells: Vec<EventCell> = Vec::new();
    cells.try_reserve_exact(KEPT).ok()?;
    cells.resize_with(KEPT, || [const { AtomicU64::new(0) }; 2]);
    let cells = Box::<[EventCell; KEPT]>::try_from(cells).ok()?;
    Some(Box::leak(cells))
}
