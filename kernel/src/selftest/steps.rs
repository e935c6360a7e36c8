//! The page allocator, one instruction at a time.
//!
//! Pages are taken and given back with the trap flag set. At every instruction boundary the handler of #DB
//! gives back a page and takes another: as an interrupt would, or, where the interrupted code keeps
//! those off, as an NMI would ([`Nested::Interrupt`]); or as an NMI everywhere ([`Nested::Nmi`]). Whoever
//! has a page writes its mark into it, and looks for it before giving the page back, so a page that is
//! had twice is found out; afterwards every frame is recounted.
#![expect(
    unsafe_code,
    reason = "steps through code, and gives pages back by number"
)]

use crate::arch::pin::Pin;
use crate::arch::step::single_step;
use crate::arch::trap::{Handled, TrapFrame};
use crate::ktest::Failure;
use crate::memory::{Kernel, KernelPlatform, MEMORY, Pages, free_frames};
use crate::{ktest, ktest_assert, ktest_eq};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::platform::Platform;

/// Interrupts are on, in the flags.
const INTERRUPTS_ON: u64 = 1 << 9;
/// Pages that the handler holds at a time.
const HELD: usize = 8;

/// What the handler stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nested {
    Interrupt,
    Nmi,
}

static IS_NMI: AtomicBool = AtomicBool::new(false);
/// Frame numbers plus one.
static PAGES: [AtomicU64; HELD] = [const { AtomicU64::new(0) }; HELD];
static BOUNDARIES: AtomicU64 = AtomicU64::new(0);
static SERVED: AtomicU64 = AtomicU64::new(0);
static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Pages that were somebody else's too, or could not be given back.
static WRONG: AtomicU64 = AtomicU64::new(0);

fn add(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// Writes a mark to a page that the caller has by number, or looks for it. Answers whether it stands there.
fn mark(pfn: Pfn, mark: u64, is_new: bool) -> bool {
    // SAFETY: the caller has the page by number, and has it again below.
    let page = unsafe { Pages::from_raw(Kernel, pfn, Order::ZERO) };
    let Ok(mut page) = page else { return false };
    let word = mark.wrapping_add(pfn.as_u64()).to_ne_bytes();
    let bytes = page.bytes_mut();
    let mut is_there = false;
    if let Some(start) = bytes.first_chunk_mut::<8>() {
        if is_new {
            *start = word;
        }
        is_there = *start == word;
    }
    let _ = page.into_raw();
    is_there
}

const THEIRS: u64 = 0xdb00_0000_0000_0000;
const OURS: u64 = 0x0b00_0000_0000_0000;

fn give_back(pfn: Pfn, nmi: bool) {
    let given = match nmi {
        // SAFETY: the handler took it, and forgets it.
        true => unsafe { MEMORY.free_pages_nolock(pfn, Order::ZERO) },
        // SAFETY: as above.
        false => unsafe { MEMORY.free_pages(pfn, Order::ZERO) },
    };
    if given.is_err() {
        add(&WRONG);
    }
}

/// What comes between two instructions.
fn boundary(frame: &mut TrapFrame) -> Handled {
    let number = add(&BOUNDARIES);
    let nmi = IS_NMI.load(Ordering::Relaxed) || frame.rflags & INTERRUPTS_ON == 0;
    let place = &PAGES[crate::num::to_usize(number) & (HELD - 1)];
    let held = place.swap(0, Ordering::Relaxed);
    if held != 0 {
        let pfn = Pfn::new(held.wrapping_sub(1));
        if !mark(pfn, THEIRS, false) {
            add(&WRONG);
        }
        give_back(pfn, nmi);
    }
    let gfp = Gfp::NOWAIT.union(Gfp::NOWARN);
    let page = match nmi {
        true => MEMORY.alloc_pages_nolock(gfp, Order::ZERO),
        false => MEMORY.alloc_pages(gfp, Order::ZERO),
    };
    match page {
        Ok(pfn) => {
            add(&SERVED);
            mark(pfn, THEIRS, true);
            place.store(pfn.as_u64().wrapping_add(1), Ordering::Relaxed);
        }
        Err(_) => drop(add(&BLOCKED)),
    }
    // What another CPU's call does that wants all pages back.
    if !nmi && number & 255 == 255 {
        MEMORY.drain_local_pages();
    }
    Handled::Yes
}

/// Takes a block, marks its first page, and gives it back.
fn pair(gfp: Gfp, order: Order) {
    let Ok(pfn) = MEMORY.alloc_pages(gfp, order) else {
        add(&WRONG);
        return;
    };
    if order == Order::ZERO {
        mark(pfn, OURS, true);
        if !mark(pfn, OURS, false) {
            add(&WRONG);
        }
    }
    // SAFETY: allocated just now.
    if unsafe { MEMORY.free_pages(pfn, order) }.is_err() {
        add(&WRONG);
    }
}

fn order(number: u8) -> Order {
    Order::new(number).unwrap_or_default()
}

/// What the handler does not ask for: its lists are filled by the stepped code only.
const APART: Gfp = Gfp::NOWAIT.union(Gfp::NOWARN).union(Gfp::MOVABLE);
/// What the handler asks for too.
const SAME: Gfp = Gfp::NOWAIT.union(Gfp::NOWARN);

/// From the list and back to it.
fn hits() {
    for _ in 0..4 {
        pair(SAME, Order::ZERO);
    }
    pair(SAME, order(1));
    pair(APART, order(3));
}

/// From an empty list.
fn refill() {
    pair(APART, Order::ZERO);
    pair(APART, order(2));
}

/// All lists are given back.
fn drain() {
    MEMORY.drain_local_pages();
}

/// Puts something on the lists, for [`drain`].
fn fill() {
    for gfp in [SAME, APART] {
        pair(gfp, Order::ZERO);
        pair(gfp, order(2));
    }
}

/// Sizes without a list.
fn zone() {
    pair(SAME, order(4));
    pair(APART, order(5));
}

/// Many at once.
fn bulk() {
    let mut pages = [None; 12];
    if MEMORY.alloc_pages_bulk(SAME, &mut pages) != Ok(12) {
        add(&WRONG);
    }
    for pfn in pages.into_iter().flatten() {
        mark(pfn, OURS, true);
    }
    if !pages
        .into_iter()
        .flatten()
        .all(|pfn| mark(pfn, OURS, false))
    {
        add(&WRONG);
    }
    // SAFETY: allocated just now.
    if unsafe { MEMORY.free_pages_bulk(&mut pages) }.is_err() {
        add(&WRONG);
    }
}

/// A name, what comes before, and what is stepped through.
type Scene = (&'static str, fn(), fn());

/// Steps through `body`, and recounts. Answers how many boundaries there were.
fn step_through(name: &str, nested: Nested, before: fn(), body: fn()) -> Result<u64, Failure> {
    let free = free_frames();
    for counter in [&BOUNDARIES, &SERVED, &BLOCKED, &WRONG] {
        counter.store(0, Ordering::Relaxed);
    }
    IS_NMI.store(nested == Nested::Nmi, Ordering::Relaxed);
    let pin = Pin::new();
    before();
    // SAFETY: the handler takes no lock that the interrupted code may hold: with interrupts on it holds
    // none, otherwise the handler only tries.
    unsafe { single_step(boundary, body) };
    for place in &PAGES {
        let held = place.swap(0, Ordering::Relaxed);
        if held != 0 {
            give_back(Pfn::new(held.wrapping_sub(1)), false);
        }
    }
    drop(pin);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (boundaries, served, blocked) = (read(&BOUNDARIES), read(&SERVED), read(&BLOCKED));
    log::info!(
        "single step: {name}, {nested:?}: {boundaries} boundaries, {served} pages, {blocked} without"
    );
    ktest_eq!(read(&WRONG), 0);
    ktest_eq!(free_frames(), free);
    MEMORY.validate().map_err(Failure::new)?;
    ktest_assert!(
        served > blocked,
        "{name}: {served} pages, {blocked} times none"
    );
    Ok(boundaries)
}

fn all(nested: Nested) -> Result<(), Failure> {
    let bodies: [Scene; 5] = [
        ("hits", drain, hits),
        ("refill", drain, refill),
        ("drain", fill, drain),
        ("zone", drain, zone),
        ("bulk", drain, bulk),
    ];
    let mut boundaries: u64 = 0;
    // Poison is written and checked byte by byte: with it each page would take a hundred times as long.
    let poisons = MEMORY.options().is_some_and(|options| options.page_poison);
    let bodies = bodies
        .into_iter()
        .filter(|(name, ..)| !poisons || *name == "drain");
    for (name, before, body) in bodies {
        boundaries = boundaries.saturating_add(step_through(name, nested, before, body)?);
    }
    let profile = KernelPlatform::PROFILE.name();
    log::info!("single step: {boundaries} boundaries ({nested:?}, profile {profile})");
    let least = if poisons { 1_000 } else { 2_000 };
    ktest_assert!(boundaries > least, "only {boundaries} boundaries");
    Ok(())
}

ktest! {
    fn an_interrupt_at_every_instruction_of_the_page_paths_gets_pages() {
        all(Nested::Interrupt)
    }

    fn an_nmi_at_every_instruction_of_the_page_paths_gets_pages() {
        all(Nested::Nmi)
    }
}
