//! R30: pages taken and given back by NMI handlers, at every point of what they interrupt.

use std::cell::{Cell, RefCell};

use mm::addr::{Order, Pfn};
use mm::buddy::{Gfp, Step};
use mm::frame::FreeError;
use mm::system::{AllocError, Block, Memory};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Listed, Machine, Plain, SimConfig, SimPlatform, Usual, Vmemmap};

const MIB: u64 = 1 << 20;

type Handle<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

fn machine<C: SimConfig>(mib: u64, cpus: u32) -> Machine<C> {
    Machine::new().ram(0, mib * MIB).cpus(cpus).boot()
}

/// What an NMI handler does: it takes a block or gives one back.
struct Handler<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    held: RefCell<Vec<(Pfn, Order)>>,
    random: RefCell<Random>,
    served: Cell<u64>,
    blocked: Cell<u64>,
}

impl<C: SimConfig> Handler<'_, C> {
    fn run(&self) {
        let mut random = self.random.borrow_mut();
        let order = Order::new([0, 0, 0, 1, 3, 5][random.below_index(6)]).unwrap();
        let mut held = self.held.borrow_mut();
        if random.below(2) == 0 || held.len() > 40 {
            if held.is_empty() {
                return;
            }
            let place = random.below_index(held.len());
            let (pfn, order) = held.swap_remove(place);
            // SAFETY: allocated by this handler, and not given back yet.
            unsafe { self.machine.free_pages_nolock(pfn, order) }.unwrap();
            return;
        }
        match self.machine.alloc_pages_nolock(Gfp::KERNEL, order) {
            Ok(pfn) => {
                assert!(held.iter().all(|&(other, _)| other != pfn), "{pfn} twice");
                self.served.set(self.served.get() + 1);
                held.push((pfn, order));
            }
            Err(AllocError::WouldBlock) => self.blocked.set(self.blocked.get() + 1),
            Err(AllocError::OutOfMemory) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn churn<C: SimConfig>(machine: &Machine<C>, random: &mut Random, operations: u64) {
    let mut live: Vec<Handle<'_, C>> = Vec::new();
    // Tracers are called with locks held and lists in use.
    let mut trace = |_: Step| machine.hardware().nmi_point();
    for _ in 0..operations {
        let order = Order::new([0, 0, 0, 1, 2, 3, 9, 4][random.below_index(8)]).unwrap();
        match random.below(16) {
            0..=8 => live.extend(Block::alloc_traced(
                &**machine,
                Gfp::KERNEL | Gfp::NOWARN,
                order,
                &mut trace,
            )),
            9..=14 if !live.is_empty() => {
                let block = live.swap_remove(random.below_index(live.len()));
                let order = block.order();
                let pfn = block.into_raw();
                // SAFETY: given up for its number just now.
                unsafe { machine.free_pages_traced(pfn, order, &mut trace) }.unwrap();
            }
            15 if random.below(8) == 0 => {
                machine.drain_all_pages();
            }
            _ => {
                machine.grace().quiescent();
            }
        }
    }
}

fn interrupted<C: SimConfig>(operations: u64) -> (u64, u64, u64) {
    // One zone: there is no other one to go to where it is locked.
    let machine = machine::<C>(14, 2);
    let seed = seed("nmi");
    let handler = Handler {
        machine: &machine,
        held: RefCell::default(),
        random: RefCell::new(Random::new(!seed)),
        served: Cell::new(0),
        blocked: Cell::new(0),
    };
    let mut random = Random::new(seed);
    let nmis = machine.hardware().with_nmis(
        || handler.run(),
        || churn(&machine, &mut random, operations),
    );
    machine.check();
    for (pfn, order) in handler.held.take() {
        // SAFETY: allocated by the handler.
        unsafe { machine.free_pages(pfn, order) }.unwrap();
    }
    let counts = (nmis, handler.served.get(), handler.blocked.get());
    machine.grace().barrier().unwrap();
    machine.finish();
    counts
}

#[test]
fn an_nmi_at_any_point_gets_a_page_or_is_told_that_it_would_block() {
    for (nmis, served, blocked) in [
        interrupted::<Listed<Usual>>(2_000),
        interrupted::<Listed<(Plain, Vmemmap)>>(2_000),
        interrupted::<Listed<Checked>>(150),
        interrupted::<Checked>(150),
    ] {
        println!("{nmis} NMIs: {served} served, {blocked} would have blocked");
        assert!(nmis > 1_000 && served > 500 && blocked > 10);
    }
}

#[test]
fn what_is_freed_where_nobody_may_wait_comes_back_before_a_request_fails() {
    let machine = machine::<Listed<Usual>>(14, 2);
    let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut got: Vec<_> =
        std::iter::from_fn(|| machine.alloc_block(gfp, Order::ZERO).ok()).collect();
    let late: Vec<_> = got.split_off(got.len() - 300);
    let late: Vec<Pfn> = late.into_iter().map(Block::into_raw).collect();
    drop(got.pop());
    assert!(machine.drain_all_pages());
    // On another CPU, which has no pages left on its lists afterwards.
    let here = machine.cpu(1);
    // The list is being filled: it is in use, and its zone is locked.
    let mut freed = false;
    let mut trace = |step: Step| {
        if matches!(step, Step::Found { .. }) && !std::mem::replace(&mut freed, true) {
            for &pfn in &late {
                // SAFETY: given up for its number above.
                unsafe { machine.free_pages_nolock(pfn, Order::ZERO) }.unwrap();
            }
        }
    };
    got.push(Block::alloc_traced(&*machine, gfp, Order::ZERO, &mut trace).unwrap());
    drop(here);
    assert!(freed);
    assert_eq!(machine.grace().pending(), 300);
    machine.check();
    // SAFETY: deliberately none: the call must refuse.
    let again = unsafe { machine.free_pages_nolock(late[0], Order::ZERO) };
    assert_eq!(again, Err(FreeError::AlreadyFree));
    got.extend(std::iter::from_fn(|| machine.alloc_block(gfp, Order::ZERO).ok()).take(301));
    assert_eq!(machine.grace().pending(), 0);
    assert_eq!(machine.free_frames(), 0);
    drop(got);
    machine.finish();
}

#[test]
fn whoever_must_not_wait_does_without_lists_on_a_cpu_that_is_away() {
    let machine = machine::<Listed<Usual>>(24, 1);
    drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
    let listed = |machine: &Machine<_>| {
        let sets = machine.zones().flat_map(|zone| zone.pagesets());
        sets.map(|set| set.count).sum::<u64>()
    };
    let before = listed(&machine);
    // SAFETY: nothing is used until the CPU returns but what may be.
    unsafe { machine.leave_cpu() };
    let pfn = machine
        .alloc_pages_nolock(Gfp::KERNEL, Order::ZERO)
        .unwrap();
    // SAFETY: allocated just now.
    unsafe { machine.free_pages_nolock(pfn, Order::ZERO) }.unwrap();
    assert_eq!(listed(&machine), before);
    assert_eq!(machine.grace().pending(), 0);
    machine.return_cpu();
    machine.finish();
}
