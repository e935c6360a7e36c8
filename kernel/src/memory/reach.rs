//! One CPU gets every free page, whatever the lists of others hold and whatever those are doing.
//!
//! Others are idle, spin with interrupts off, have left for a while (parked), or are offline: each state
//! alone, then a mix. In each of the rounds, CPUs have random numbers of pages at hand and
//! CPU 0 takes pages until it is told that there are none; there must be none then, in zones or on lists.
//! The rounds follow from a seed, which is printed, and is `seed=` of the kernel's command line if that is set.

use super::ledger::Ledger;
use super::random::Random;
use super::workload::{lower_marks, restore_marks};
use super::{Kernel, MEMORY, Pages, free_or_table_frames, settle_areas, stress};
use crate::arch::irq::IrqGuard;
use crate::arch::local::{self, CpuLocal};
use crate::arch::{pin, smp, time};
use crate::ktest::Failure;
use crate::num::to_u64;
use crate::sched::team::scoped_on;
use crate::sched::thread::Affinity;
use crate::sched::{self, hotplug};
use crate::{kprint, kprintln, ktest, ktest_assert, ktest_eq};
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::system::AllocError;

/// Random states of each row.
const ROUNDS: u32 = 100;
/// Pages that the rounds are about; all others are taken before.
const PAGES: u64 = 1_024;
/// CPUs that take part: spinning ones are a burden to an emulator.
const CPUS: u32 = 4;
/// How long a CPU spins with interrupts off at a time.
const SPIN_NS: u64 = 1_000_000;
/// How long anything may take before the test gives up.
const PATIENCE_NS: u64 = 10_000_000_000;
/// All of memory, the reserves too.
const ANY: Gfp = Gfp::HIGHUSER_MOVABLE
    .union(Gfp::MEMALLOC)
    .union(Gfp::NOWARN);

/// What a CPU does while CPU 0 wants its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    /// It has no thread to run.
    Idle,
    /// A thread on it has interrupts off for 1 ms, again and again.
    Spins,
    /// It has marked itself as away, with interrupts off: it answers nobody.
    Parked,
    /// It is offline.
    Offline,
}

impl Doing {
    const ALL: [Self; 4] = [Self::Idle, Self::Spins, Self::Parked, Self::Offline];
}

/// One random state.
struct State {
    /// CPUs but for the first, with what they do and how many pages they touch before.
    others: Vec<(u32, Doing, u64)>,
    /// How CPU 0 asks.
    gfp: Gfp,
}

impl State {
    /// All do `row`, or what chance gives them.
    fn choose(random: &mut Random, row: Option<Doing>) -> Self {
        let others = 1..smp::count().min(CPUS);
        let others: Vec<_> = others
            .map(|cpu| {
                let any = Doing::ALL[crate::num::to_usize(random.below(4))];
                (cpu, row.unwrap_or(any), random.below(200).saturating_add(1))
            })
            .collect();
        let waits = !others.iter().all(|&(_, doing, _)| doing == Doing::Parked);
        // Who may not wait reaches those that are away. An idle CPU may have something to do, and one that
        // is offline answers interrupts that were sent before.
        let gfp = match waits || random.below(2) == 0 {
            true => ANY,
            false => ANY.difference(Gfp::DIRECT_RECLAIM),
        };
        Self { others, gfp }
    }

    fn of(&self, wanted: Doing) -> impl Iterator<Item = u32> {
        let which = self
            .others
            .iter()
            .filter(move |(_, doing, _)| *doing == wanted);
        which.map(|(cpu, _, _)| *cpu)
    }

    fn doing(&self, here: u32) -> Option<Doing> {
        let mut others = self.others.iter();
        others
            .find(|(cpu, _, _)| *cpu == here)
            .map(|(_, doing, _)| *doing)
    }
}

/// Waits until something is so.
fn soon(is_so: impl Fn() -> bool) -> bool {
    let start = time::now_ns();
    while !is_so() {
        if time::now_ns().saturating_sub(start) > PATIENCE_NS || sched::sleep_ms(1).is_err() {
            return is_so();
        }
    }
    true
}

/// Takes pages of several orders and gives them back: some stay at hand.
fn leave_some(pages: u64) {
    let mut taken: Vec<Pages> = Vec::new();
    for page in 0..pages {
        let order = if page % 8 == 7 { page / 8 % 4 } else { 0 };
        let order = Order::new(crate::num::low_byte(order)).unwrap_or_default();
        match Pages::alloc(Kernel, ANY, order) {
            Ok(page) if taken.try_reserve(1).is_ok() => taken.push(page),
            _ => break,
        }
    }
}

/// Frames on all lists.
fn on_lists() -> u64 {
    let sets = MEMORY
        .zones()
        .flat_map(|zone| zone.pagesets().chain(zone.cold_pagesets()));
    sets.map(|set| set.count).fold(0, u64::saturating_add)
}

/// Takes all pages; answers how many there were.
fn take_all(gfp: Gfp, ledger: &mut Ledger) -> Result<u64, Failure> {
    loop {
        match Pages::alloc(Kernel, gfp, Order::ZERO) {
            Ok(page) => ledger
                .push(page, 0)
                .map_err(|_| "more pages than there were")?,
            Err(AllocError::OutOfMemory) => return Ok(to_u64(ledger.len())),
            Err(error) => return Err(Failure::new(error)),
        }
    }
}

/// What a thread does on a CPU that is kept busy.
fn be(doing: Option<Doing>, ready: &AtomicU32, stop: &AtomicBool) {
    let start = time::now_ns();
    let goes_on = || {
        let is_late = time::now_ns().saturating_sub(start) > PATIENCE_NS;
        !stop.load(Ordering::Acquire) && !is_late
    };
    if doing == Some(Doing::Parked) {
        let _pin = pin::Pin::new();
        let _irq = IrqGuard::new();
        let presence = &local::current().presence;
        presence.enter();
        ready.fetch_add(1, Ordering::Release);
        while goes_on() {
            spin_loop();
        }
        presence.leave();
        return;
    }
    let mut is_first = true;
    while goes_on() {
        let _irq = IrqGuard::new();
        if is_first {
            ready.fetch_add(1, Ordering::Release);
            is_first = false;
        }
        let since = time::now_ns();
        while time::now_ns().saturating_sub(since) < SPIN_NS {
            spin_loop();
        }
    }
}

/// Has CPUs do what the state says, and takes every page; answers how many lay on lists.
fn take_from(state: &State, ledger: &mut Ledger) -> Result<u64, Failure> {
    let busy: Vec<u32> = state
        .of(Doing::Spins)
        .chain(state.of(Doing::Parked))
        .collect();
    let (ready, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let wanted = to_u64(busy.len());
    let is_away = |cpu: &CpuLocal| !cpu.presence.is_running();
    let act = |_| be(state.doing(local::current_id()), &ready, &stop);
    let places = busy.iter().map(|&cpu| Affinity::Cpu(cpu));
    scoped_on("reach", places, &act, || {
        let all_are = || {
            let mut idle = state.of(Doing::Idle).filter_map(smp::cpu);
            u64::from(ready.load(Ordering::Acquire)) == wanted && idle.all(is_away)
        };
        let outcome = if soon(all_are) {
            // Stacks of the round before are areas that wait for a flush: kswapd, which the requests wake, would
            // give their pages back after a request has failed for want of them.
            settle_areas();
            let hidden = on_lists();
            take_all(state.gfp, ledger).map(|got| (got, hidden, on_lists(), MEMORY.free_frames()))
        } else {
            Err("CPUs do not do what they should".into())
        };
        while ledger.swap_remove(0).is_some() {}
        stop.store(true, Ordering::Release);
        let (got, hidden, listed, free) = outcome?;
        ktest_assert!(
            got >= hidden && free == 0 && listed == 0,
            "{got} pages, of which {hidden} were on lists; {free} are left in zones and {listed} on lists"
        );
        Ok(hidden)
    })
    .map_err(Failure::new)?
}

/// One round: the state is made, used, and undone.
fn play(state: &State, ledger: &mut Ledger) -> Result<u64, Failure> {
    for &(cpu, _, pages) in &state.others {
        smp::run_on(cpu, || leave_some(pages)).map_err(Failure::new)?;
    }
    let offline: Vec<u32> = state.of(Doing::Offline).collect();
    for &cpu in &offline {
        hotplug::offline(cpu).map_err(Failure::new)?;
    }
    let outcome = take_from(state, ledger);
    for &cpu in &offline {
        hotplug::online(cpu).map_err(Failure::new)?;
    }
    outcome
}

/// All rounds of a row.
fn play_row(row: Option<Doing>, seed: u64, ledger: &mut Ledger) -> Result<(), Failure> {
    let (start, mut hidden) = (time::now_ns(), 0_u64);
    for round in 0..ROUNDS {
        let mut random = Random::new(seed ^ (u64::from(round) << 8));
        let state = State::choose(&mut random, row);
        let found = play(&state, ledger).map_err(|failure| {
            let State { others, gfp } = &state;
            Failure::new(format_args!(
                "seed={seed:#x}: {row:?}, round {round}: {others:?}, {gfp:?}: {failure}"
            ))
        })?;
        hidden = hidden.saturating_add(found);
    }
    let ms = time::now_ns().saturating_sub(start) / 1_000_000;
    match row {
        Some(doing) => kprint!("reach: {doing:?}"),
        None => kprint!("reach: mixed"),
    }
    kprintln!(": {ROUNDS} of {ROUNDS} states, {hidden} pages on lists, {ms} ms, seed={seed:#x}");
    ktest_assert!(hidden > 0, "nothing was on any list");
    Ok(())
}

/// Takes all but some of memory, in large blocks.
fn take_most() -> Result<Vec<Pages>, Failure> {
    let mut kept = Vec::new();
    let blocks = MEMORY.managed_frames() >> Order::MAX.as_u8();
    let room = crate::num::to_usize(blocks.saturating_add(PAGES));
    kept.try_reserve(room).map_err(Failure::new)?;
    let limit = MEMORY.frames().map_or(Pfn::ZERO, |frames| frames.limit());
    MEMORY.populate(PfnRange::new(Pfn::ZERO, limit).unwrap_or_default());
    for order in Order::all().rev() {
        while MEMORY.free_frames() >= PAGES.saturating_add(order.frames()) {
            match Pages::alloc(Kernel, ANY, order) {
                Ok(pages) if kept.try_reserve(1).is_ok() => kept.push(pages),
                Err(AllocError::OutOfMemory) => break,
                Ok(_) => return Err("no room for a list of blocks".into()),
                Err(error) => return Err(Failure::new(error)),
            }
        }
    }
    Ok(kept)
}

/// Areas for stacks of hundreds of threads.
const AREAS: u32 = 1024;

ktest! {
    fn one_cpu_gets_every_free_page_whatever_the_others_do() {
        if smp::count() < 2 {
            return Ok(());
        }
        let seed = stress::seed_from_boot().map_err(Failure::new)?;
        let before = free_or_table_frames(AREAS).map_err(Failure::new)?;
        let mut ledger = Ledger::new(crate::num::to_usize(PAGES.saturating_mul(2))).map_err(Failure::new)?;
        let kept = take_most()?;
        let marks = lower_marks().map_err(Failure::new)?;
        let mut rows = Doing::ALL.into_iter().map(Some).chain([None]);
        let outcome = rows.try_for_each(|row| play_row(row, seed, &mut ledger));
        restore_marks(&marks).map_err(Failure::new)?;
        drop((ledger, kept));
        outcome?;
        ktest_eq!(free_or_table_frames(AREAS), Ok(before));
        MEMORY.validate().map_err(Failure::new)?;
        Ok(())
    }
}
