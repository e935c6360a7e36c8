//! Objects, one instruction at a time.
//!
//! Objects are taken and given back with the trap flag set. At every instruction boundary where an interrupt
//! could come, the handler of #DB gives back an object and takes another, of the same cache. Whoever has an object
//! fills it with its mark, and looks for it before giving the object back, so an object that is had twice is found out;
//! afterwards every slab is recounted, and none of them is left.
#![expect(
    unsafe_code,
    reason = "steps through code, and gives objects back by address"
)]

use crate::arch::pin::Pin;
use crate::arch::step::single_step;
use crate::arch::trap::{Handled, TrapFrame};
use crate::ktest::Failure;
use crate::memory::{KernelPlatform, MEMORY};
use crate::{ktest, ktest_assert, ktest_eq};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use mm::buddy::Gfp;
use mm::platform::Platform;

/// Interrupts are on, in the flags.
const INTERRUPTS_ON: u64 = 1 << 9;
/// Objects that the handler holds at a time.
const HELD: usize = 16;
/// Boundaries from one to the next where the handler does something, when it comes seldom.
const SELDOM: u64 = 31;
/// Bytes of an object, …
const SIZE: usize = 192;
/// … which are so many words.
const WORDS: usize = 24;

static OBJECTS: [AtomicPtr<[u64; WORDS]>; HELD] = [const { AtomicPtr::new(null_mut()) }; HELD];
/// The handler does something at one of so many boundaries, …
static EVERY: AtomicU64 = AtomicU64::new(1);
/// … this one.
static PHASE: AtomicU64 = AtomicU64::new(0);
static BOUNDARIES: AtomicU64 = AtomicU64::new(0);
static SERVED: AtomicU64 = AtomicU64::new(0);
/// Boundaries with interrupts off.
static CLOSED: AtomicU64 = AtomicU64::new(0);
/// Objects that were somebody else's too, could not be had or could not be given back.
static WRONG: AtomicU64 = AtomicU64::new(0);

const THEIRS: u64 = 0xdb00_0000_0000_0000;
const OURS: u64 = 0x0b00_0000_0000_0000;
const GFP: Gfp = Gfp::NOWAIT.union(Gfp::NOWARN);

fn add(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

type Words = NonNull<[u64; WORDS]>;

/// An object, filled with a mark.
fn take(mark: u64) -> Option<Words> {
    let object = MEMORY.kmalloc(SIZE, GFP).ok()?.cast();
    // SAFETY: allocated just now, that large.
    unsafe { object.write([mark; WORDS]) };
    Some(object)
}

/// Gives an object back that should be full of a mark.
fn give(object: Words, mark: u64) {
    // SAFETY: the caller took it, which filled it.
    let words = unsafe { object.read() };
    // SAFETY: the caller forgets it.
    let given = unsafe { MEMORY.kfree(object.cast()) };
    if given.is_err() || words != [mark; WORDS] {
        add(&WRONG);
    }
}

/// What comes between two instructions.
fn boundary(frame: &mut TrapFrame) -> Handled {
    let number = add(&BOUNDARIES);
    let every = EVERY.load(Ordering::Relaxed).max(1);
    if number.checked_rem(every) != Some(PHASE.load(Ordering::Relaxed)) {
        return Handled::Yes;
    }
    let number = number.checked_div(every).unwrap_or(0);
    if frame.rflags & INTERRUPTS_ON == 0 {
        add(&CLOSED);
        return Handled::Yes;
    }
    let place = &OBJECTS[crate::num::to_usize(number) & (HELD - 1)];
    if let Some(held) = NonNull::new(place.swap(null_mut(), Ordering::Relaxed)) {
        give(held, THEIRS);
    }
    // Now and then there is none to be given back, or one more than usual.
    if number.is_multiple_of(7) {
        return Handled::Yes;
    }
    match take(THEIRS) {
        Some(object) => {
            add(&SERVED);
            place.store(object.as_ptr(), Ordering::Relaxed);
        }
        None => drop(add(&WRONG)),
    }
    Handled::Yes
}

/// So many at once, and back: within what is at hand, or beyond it.
fn round<const COUNT: usize>() {
    let mut objects = [None; COUNT];
    for (mark, place) in (OURS..).zip(&mut objects) {
        *place = take(mark);
        if place.is_none() {
            add(&WRONG);
        }
    }
    for (mark, object) in (OURS..).zip(objects) {
        if let Some(object) = object {
            give(object, mark);
        }
    }
}

fn hits() {
    round::<4>();
}

/// As few as make a CPU fetch some, and give some back.
fn few() {
    round::<34>();
    round::<66>();
}

fn refill_and_drain() {
    round::<90>();
}

fn empty() {
    MEMORY.shrink_caches();
}

/// Steps through `body`, and recounts.
fn step_through(name: &str, before: fn(), body: fn()) -> Result<u64, Failure> {
    for counter in [&BOUNDARIES, &SERVED, &CLOSED, &WRONG] {
        counter.store(0, Ordering::Relaxed);
    }
    let before_all = in_use();
    let pin = Pin::new();
    before();
    // SAFETY: the handler takes no lock that the interrupted code may hold: with interrupts off it does
    // nothing, and with interrupts on none is held.
    unsafe { single_step(boundary, body) };
    for place in &OBJECTS {
        if let Some(held) = NonNull::new(place.swap(null_mut(), Ordering::Relaxed)) {
            give(held, THEIRS);
        }
    }
    drop(pin);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (boundaries, served, closed) = (read(&BOUNDARIES), read(&SERVED), read(&CLOSED));
    if PHASE.load(Ordering::Relaxed) == 0 {
        log::info!(
            "single step: {name}: {boundaries} boundaries, {served} objects, {closed} closed"
        );
    }
    ktest_eq!(read(&WRONG), 0);
    ktest_eq!(in_use(), before_all);
    MEMORY.validate_caches().map_err(Failure::new)?;
    ktest_assert!(served > 4, "{name}: {served} objects");
    Ok(boundaries)
}

/// Objects of the cache that have owners.
fn in_use() -> u64 {
    let mut count = 0;
    MEMORY.for_each_cache(|name, stats| {
        if name == "kmalloc-192" {
            count = stats.active_objects;
        }
    });
    count
}

/// A name, what comes before, and what is stepped through.
type Scene = (&'static str, fn(), fn());

ktest! {
    fn an_interrupt_at_every_instruction_of_the_object_paths_gets_objects() {
        let scenes: [Scene; 4] = [
            ("hits", hits, hits),
            ("first use", empty, hits),
            ("refill and drain", empty, refill_and_drain),
            ("shrink", refill_and_drain, empty),
        ];
        let mut boundaries: u64 = 0;
        for (name, before, body) in scenes {
            boundaries = boundaries.saturating_add(step_through(name, before, body)?);
        }
        // Whatever the handler fetches is there for the stepped code too, which then need not fetch anything. So it
        // comes seldom as well, and in the end at each boundary once.
        EVERY.store(SELDOM, Ordering::Relaxed);
        for phase in 0..SELDOM {
            PHASE.store(phase, Ordering::Relaxed);
            boundaries = boundaries.saturating_add(step_through("seldom", empty, few)?);
        }
        EVERY.store(1, Ordering::Relaxed);
        PHASE.store(0, Ordering::Relaxed);
        empty();
        let profile = KernelPlatform::PROFILE.name();
        log::info!("single step: {boundaries} boundaries (objects, profile {profile})");
        ktest_assert!(boundaries > 5_000, "only {boundaries} boundaries");
        Ok(())
    }
}
