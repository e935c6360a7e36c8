//! What a hit of the page lists, or of objects at hand, does not do: the contract of the hot paths, instruction by instruction.
//!
//! Pages are taken and given back with the trap flag set; the handler of #DB looks at the instruction
//! that comes next. One that locks the bus (a `lock` prefix, or `xchg` with memory) is an atomic
//! read-modify-write that other CPUs feel; `cli` and `popf` mask interrupts.
#![expect(
    unsafe_code,
    reason = "steps through code, reads it, and gives pages and objects back by hand"
)]

use crate::arch::pin::Pin;
use crate::arch::step::single_step;
use crate::arch::trap::{Handled, TrapFrame};
use crate::memory::{KernelPlatform, MEMORY};
use crate::{ktest, ktest_assert, ktest_eq};
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::platform::Platform;

static STEPS: AtomicU64 = AtomicU64::new(0);
static LOCKED: AtomicU64 = AtomicU64::new(0);
static MASKING: AtomicU64 = AtomicU64::new(0);

/// What stepped code did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    steps: u64,
    locked: u64,
    masking: u64,
}

const LOCK: u8 = 0xf0;
/// Operand and address size, repetition, segments.
const PREFIXES: [u8; 10] = [0x66, 0x67, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const CLI: u8 = 0xfa;
const POPF: u8 = 0x9d;

/// Whether the instruction that begins with these bytes locks the bus, and whether it may mask
/// interrupts (Intel SDM volume 2, 2.1 and the pages of the instructions).
fn judge(bytes: &[u8]) -> (bool, bool) {
    let mut rest = bytes;
    let mut locked = false;
    while let [first, after @ ..] = rest {
        let is_rex = first & 0xf0 == 0x40;
        locked |= *first == LOCK;
        if *first != LOCK && !is_rex && !PREFIXES.contains(first) {
            break;
        }
        rest = after;
    }
    match rest {
        // `xchg` locks whenever one side is memory.
        [0x86 | 0x87, modrm, ..] if modrm >> 6 != 3 => (true, false),
        [CLI | POPF, ..] => (locked, true),
        _ => (locked, false),
    }
}

fn look(frame: &mut TrapFrame) -> Handled {
    let mut bytes = [0; 8];
    for (at, byte) in (frame.rip..).zip(&mut bytes) {
        // SAFETY: what runs next is mapped, and the kernel's text is followed by its data.
        *byte =
            unsafe { core::ptr::with_exposed_provenance::<u8>(crate::num::to_usize(at)).read() };
    }
    let (locked, masking) = judge(&bytes);
    STEPS.fetch_add(1, Ordering::Relaxed);
    LOCKED.fetch_add(u64::from(locked), Ordering::Relaxed);
    MASKING.fetch_add(u64::from(masking), Ordering::Relaxed);
    Handled::Yes
}

/// Steps through `body`, and takes off what stepping itself does.
fn seen(body: impl FnOnce()) -> Seen {
    let idle = step_through(|| ());
    let all = step_through(body);
    Seen {
        steps: all.steps.saturating_sub(idle.steps),
        locked: all.locked.saturating_sub(idle.locked),
        masking: all.masking.saturating_sub(idle.masking),
    }
}

fn step_through(body: impl FnOnce()) -> Seen {
    for counter in [&STEPS, &LOCKED, &MASKING] {
        counter.store(0, Ordering::Relaxed);
    }
    let pin = Pin::new();
    // SAFETY: the handler reads and counts.
    unsafe { single_step(look, body) };
    drop(pin);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Seen {
        steps: read(&STEPS),
        locked: read(&LOCKED),
        masking: read(&MASKING),
    }
}

fn pair(gfp: Gfp, order: Order) -> bool {
    let pages = MEMORY.alloc_pages(gfp, order);
    // SAFETY: allocated just now.
    pages.is_ok_and(|pfn| unsafe { MEMORY.free_pages(pfn, order) }.is_ok())
}

fn object_pair(size: usize) -> bool {
    let object = MEMORY.kmalloc(size, Gfp::KERNEL);
    // SAFETY: allocated just now.
    object.is_ok_and(|object| unsafe { MEMORY.kfree(object) }.is_ok())
}

ktest! {
    fn locked_and_masking_instructions_are_known() {
        let known: [(&[u8], (bool, bool)); 9] = [
            (&[0xf0, 0x48, 0x0f, 0xc1, 0x07], (true, false)),
            (&[0x65, 0xf0, 0xff, 0x00], (true, false)),
            (&[0x48, 0x87, 0x07], (true, false)),
            (&[0x86, 0x07], (true, false)),
            (&[0x48, 0x87, 0xc7], (false, false)),
            (&[0xfa, 0x90], (false, true)),
            (&[0x9d], (false, true)),
            (&[0x65, 0xff, 0x04, 0x25], (false, false)),
            (&[0x88, 0x07, 0xf0], (false, false)),
        ];
        for (bytes, expected) in known {
            ktest_eq!((bytes, judge(bytes)), (bytes, expected));
        }
        Ok(())
    }

    fn a_hit_has_no_locked_instruction_and_masks_nothing() {
        let lists = MEMORY.options().is_some_and(|options| options.page_lists.are_on());
        // Pages that come and go in the map of memory are no hits.
        let plain = lists && !MEMORY.hides_free_pages();
        if !plain || KernelPlatform::PROFILE.is_debug() {
            return Ok(());
        }
        let mut steps: u64 = 0;
        for gfp in [Gfp::KERNEL, Gfp::ATOMIC, Gfp::HIGHUSER_MOVABLE] {
            for order in [0, 1, 2, 3].map(|order| Order::new(order).unwrap_or_default()) {
                // What is filled on first use is full then.
                ktest_assert!(pair(gfp, order) && pair(gfp, order));
                let mut is_served = false;
                let hit = seen(|| is_served = pair(gfp, order));
                ktest_assert!(is_served && hit.steps > 20, "{hit:?}");
                ktest_eq!((gfp, order, hit.locked, hit.masking), (gfp, order, 0, 0));
                steps = steps.saturating_add(hit.steps);
            }
        }
        // Whoever asks the zone takes its lock.
        let mut is_served = false;
        let zone = seen(|| is_served = pair(Gfp::KERNEL, Order::MAX));
        ktest_assert!(is_served && zone.locked >= 2 && zone.masking >= 2, "{zone:?}");
        log::info!("hits: {steps} instructions, none locked, none masking; 4 MiB pair: {zone:?}");
        Ok(())
    }
    fn a_hit_of_objects_has_no_locked_instruction_and_masks_nothing() {
        // With that profile objects are looked at one by one, behind a lock.
        if KernelPlatform::PROFILE.is_debug() {
            return Ok(());
        }
        let mut steps: u64 = 0;
        for size in [8, 64, 192, 1024, 8192] {
            ktest_assert!(object_pair(size) && object_pair(size));
            let mut is_served = false;
            let hit = seen(|| is_served = object_pair(size));
            ktest_assert!(is_served && hit.steps > 20, "{hit:?}");
            ktest_eq!((size, hit.locked, hit.masking), (size, 0, 0));
            steps = steps.saturating_add(hit.steps);
        }
        log::info!("hits: {steps} instructions for five pairs of objects, none locked, none masking");
        Ok(())
    }
}
