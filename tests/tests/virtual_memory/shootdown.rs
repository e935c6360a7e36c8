//! TLB shootdown on a machine whose TLBs never forget: R31 and R41, with page tables made by hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mm::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Level, PageSize};
use mm::platform::{CpuId, Platform};
use mm::proc;
use mm::sync::shootdown::{CEILING, Lazy, TlbStats};
use mm::system::{Block, Memory};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::mmu::{Access, Fault, Registers, bit};
use mm_tests::sim::{Checked, Machine, SimPlatform, Trouble};
use mm_tests::threads::join;

use super::tables::Tables;

const MIB: u64 = 1 << 20;
const KERNEL: u64 = bit::P | bit::RW;
/// Pages that CPUs share.
const PAGES: u64 = 64;

type World = Machine<Checked>;
type Page<'m> = Block<&'m Memory<SimPlatform<Checked>>>;

const fn addr(page: u64) -> VirtAddr {
    VirtAddr::new(0xffff_c900_0000_0000 + page * 4096)
}

fn range(first: u64, pages: u64) -> VirtRange {
    VirtRange::new(addr(first), addr(first + pages)).unwrap()
}

fn machine(cpus: u32) -> World {
    Machine::new().ram(0, 16 * MIB).cpus(cpus).boot()
}

fn page(machine: &World) -> Page<'_> {
    Block::alloc(&**machine, Gfp::KERNEL, Order::ZERO).unwrap()
}

fn paging<'m>(machine: &'m World) -> Tables<'m, Checked> {
    let tables = Tables::new(machine, 4);
    // The tables are there before there are several CPUs.
    (0..PAGES).for_each(|page| tables.set(addr(page), 1, 0));
    let registers = Registers::kernel(tables.root(), 4);
    machine
        .hardware()
        .switch_paging_on(registers, VirtRange::EMPTY);
    tables
}

/// One CPU maps pages elsewhere and frees what was there, again and again; others read, go idle and come back, and
/// one in a while maps as well. Answers how many accesses and flushes there were.
fn churn(cpus: u32, flushes: u64, seed: u64) -> (u64, u64) {
    let machine = machine(cpus + 1);
    let reads = AtomicU64::new(0);
    let left = AtomicU64::new(u64::from(cpus));
    {
        let tables = paging(&machine);
        let entries: Vec<_> = (0..PAGES).map(|page| tables.entry(addr(page), 1)).collect();
        let (machine, entries, reads, left) = (&machine, &entries, &reads, &left);
        machine.idle(Lazy::Offline, || {
            thread::scope(|scope| {
                let run = |cpu| {
                    scope.spawn(move || {
                        let _here = machine.cpu(cpu);
                        let mut random = Random::new(seed ^ u64::from(cpu));
                        // Each CPU maps pages of its own, and reads all.
                        let mine: Vec<_> = (0..PAGES)
                            .filter(|page| page % u64::from(cpus) == u64::from(cpu - 1))
                            .collect();
                        let mut held: Vec<Option<Page<'_>>> = mine.iter().map(|_| None).collect();
                        let mut rest = flushes;
                        while rest > 0 || left.load(Ordering::Acquire) > 0 {
                            match random.below(24) {
                                0 if rest > 0 => {
                                    rest -= 1;
                                    if rest == 0 {
                                        left.fetch_sub(1, Ordering::AcqRel);
                                    }
                                    let place = random.below_index(mine.len());
                                    let new = (random.below(4) > 0).then(|| page(machine));
                                    let entry = new
                                        .as_ref()
                                        .map_or(0, |new| new.pfn().addr().as_u64() | KERNEL);
                                    entries[mine[place] as usize].store(entry, Ordering::Release);
                                    let old = std::mem::replace(&mut held[place], new);
                                    let irq = (random.below(2) == 0)
                                        .then(|| machine.hardware().irq_save());
                                    match random.below(8) {
                                        0 => machine.flush_tlb_all(),
                                        1 => machine.flush_tlb_tables(range(mine[place], 1)),
                                        _ => machine.flush_tlb(range(mine[place], 1)),
                                    }
                                    if let Some(irq) = irq {
                                        machine.hardware().irq_restore(irq);
                                    }
                                    drop(old);
                                }
                                1 => machine.idle(Lazy::Idle, thread::yield_now),
                                _ => {
                                    let access =
                                        [Access::READ, Access::WRITE][random.below_index(2)];
                                    // Interrupts take their time.
                                    if random.below(8) == 0 {
                                        machine.serve_tlb();
                                    }
                                    let page = addr(random.below(PAGES));
                                    match machine.hardware().touch(page, access) {
                                        Ok(_) | Err(Fault::Page(_)) => {
                                            reads.fetch_add(1, Ordering::Relaxed)
                                        }
                                        Err(fault) => panic!("{fault:?}"),
                                    };
                                }
                            }
                        }
                        // What is left is unmapped by all.
                        mine.iter()
                            .for_each(|page| entries[*page as usize].store(0, Ordering::Release));
                        machine.flush_tlb(range(0, PAGES));
                        drop(held);
                    })
                };
                join((1..=cpus).map(run));
            });
        });
        machine.flush_tlb_tables(range(0, PAGES));
    }
    let flushes = machine.tlb_generation();
    machine.finish();
    (reads.into_inner(), flushes)
}

#[test]
fn no_cpu_uses_a_page_that_was_freed_after_a_flush() {
    let seed = seed("shootdown");
    for (round, cpus) in [(1, 2), (2, 4), (3, 3)] {
        let (reads, flushes) = churn(cpus, 400, seed.wrapping_add(round));
        println!("{cpus} CPUs: {reads} accesses, {flushes} flushes");
        assert!(flushes >= 400 * u64::from(cpus) && reads > flushes);
    }
}

/// R31, as far as there is to it without an address space: eight CPUs, 16 seeds. `MM_CASES` sets how many pages each CPU
/// maps elsewhere: 5,200 for a million operations with each seed.
#[test]
fn eight_cpus_use_no_page_that_was_freed_after_a_flush() {
    let (seed, cases) = (seed("shootdown_8"), cases(40));
    let mut sum = (0, 0);
    for round in 0..16 {
        let (reads, flushes) = churn(8, cases, seed.wrapping_add(round));
        assert!(flushes >= cases * 8 && reads > flushes);
        sum = (sum.0 + reads, sum.1 + flushes);
    }
    println!("{} accesses, {} flushes", sum.0, sum.1);
}

#[test]
fn counters_tell_who_was_interrupted_and_what_was_forgotten() {
    let machine = machine(3);
    let tables = paging(&machine);
    let vmstat = |machine: &World| {
        let mut text = String::new();
        proc::vmstat(&**machine, &mut text).unwrap();
        [
            "remote_flush ",
            "remote_flush_received ",
            "local_flush_all ",
            "local_flush_one ",
        ]
        .map(|name| {
            let rest = text.split(&format!("\nnr_tlb_{name}")).nth(1).unwrap();
            rest.lines().next().unwrap().parse::<u64>().unwrap()
        })
    };
    assert_eq!(vmstat(&machine), [0; 4]);
    // The others were not started: nobody is asked.
    machine.flush_tlb(range(1, 3));
    assert_eq!(vmstat(&machine), [0, 0, 0, 3]);
    machine.flush_tlb(range(0, CEILING + 1));
    assert_eq!(vmstat(&machine), [0, 0, 1, 3]);
    machine.flush_tlb(VirtRange::EMPTY);
    let (asked, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            asked.store(true, Ordering::Release);
            while !is_done.load(Ordering::Acquire) {
                machine.serve_tlb();
                thread::yield_now();
            }
        });
        while !asked.load(Ordering::Acquire) {
            thread::yield_now();
        }
        // CPU 1 has caught up with both requests, by everything, when it came.
        assert_eq!(vmstat(&machine), [0, 0, 2, 3]);
        machine.flush_tlb(range(1, 2));
        assert_eq!(vmstat(&machine), [1, 1, 2, 7]);
        machine.flush_tlb_on(range(1, 1), |cpu| cpu == CpuId(0));
        assert_eq!(vmstat(&machine), [1, 1, 2, 8]);
        assert_eq!(machine.tlb_of(CpuId(1)).unwrap().behind, 1);
        is_done.store(true, Ordering::Release);
        join([other]);
    });
    assert_eq!(machine.hardware().tlb_kicks(), 1);
    let first = machine.tlb_of(CpuId(0)).unwrap();
    let expected = TlbStats {
        remote_flush: 1,
        remote_flush_received: 0,
        local_flush_all: 1,
        local_flush_one: 6,
    };
    assert_eq!((first.stats, first.is_lazy), (expected, false));
    assert!(machine.tlb_of(CpuId(2)).unwrap().is_lazy);
    assert_eq!(machine.tlb_of(CpuId(3)), None);
    assert_eq!(machine.tlb_generation(), 4);
    drop(tables);
    machine.finish();
}

/// Waits until a step of a test is reached.
fn wait_for(step: &AtomicU64, wanted: u64) {
    while step.load(Ordering::Acquire) < wanted {
        thread::yield_now();
    }
}

#[test]
fn an_idle_cpu_is_asked_only_where_tables_go_and_catches_up_when_it_is_back() {
    let machine = machine(2);
    let tables = paging(&machine);
    let old = page(&machine);
    tables.set(addr(5), 1, old.pfn().addr().as_u64() | KERNEL);
    let step = AtomicU64::new(0);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _here = machine.cpu(1);
            assert!(machine.touch(addr(5), Access::READ).is_ok());
            // SAFETY: nothing is touched until it is left.
            unsafe { machine.tlb_lazy_enter(Lazy::Idle) };
            step.store(1, Ordering::Release);
            wait_for(&step, 2);
            assert!(
                machine.hardware().with_tlb(|_, tlb| tlb.len() == 1),
                "left alone"
            );
            assert_eq!(machine.tlb_lazy_leave(), Some(Lazy::Idle));
            assert_eq!(machine.touch(addr(5), Access::READ), Err(Fault::Page(0)));
            // SAFETY: as above.
            unsafe { machine.tlb_lazy_enter(Lazy::Idle) };
            step.store(3, Ordering::Release);
            while !machine.hardware().is_tlb_kicked() {
                thread::yield_now();
            }
            // As a handler does.
            assert_eq!(machine.tlb_lazy_leave(), Some(Lazy::Idle));
        });
        wait_for(&step, 1);
        tables.set(addr(5), 1, 0);
        machine.flush_tlb(range(5, 1));
        assert_eq!(machine.hardware().tlb_kicks(), 0);
        drop(old);
        step.store(2, Ordering::Release);
        wait_for(&step, 3);
        machine.flush_tlb_tables(range(5, 1));
        assert_eq!(machine.hardware().tlb_kicks(), 1);
        join([other]);
    });
    drop(tables);
    machine.finish();
}

/// A handler that cannot be masked comes at every point of a flush, and catches up.
#[test]
fn an_nmi_in_the_midst_of_a_flush_may_catch_up() {
    let machine = machine(2);
    let tables = paging(&machine);
    let (asked, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let handler = || {
        machine.tlb_catch_up();
        if machine.tlb_generation() > asked.load(Ordering::Relaxed) {
            // The page is unmapped, and the flush was asked for: it is over, or this has done it.
            let found = machine.hardware().touch(addr(5), Access::READ);
            assert_eq!(found, Err(Fault::Page(0)));
            seen.fetch_add(1, Ordering::Relaxed);
        }
    };
    for round in 0..200 {
        let old = page(&machine);
        tables.set(addr(5), 1, old.pfn().addr().as_u64() | KERNEL);
        assert!(machine.touch(addr(5), Access::READ).is_ok());
        tables.set(addr(5), 1, 0);
        asked.store(machine.tlb_generation(), Ordering::Relaxed);
        let nmis = machine.hardware().with_nmis(handler, || match round % 3 {
            0 => machine.flush_tlb_all(),
            _ => machine.flush_tlb(range(5, 1 + round % 3)),
        });
        assert!(nmis >= 3);
        drop(old);
        assert_eq!(machine.touch(addr(5), Access::READ), Err(Fault::Page(0)));
        assert_eq!(machine.tlb_of(CpuId(0)).unwrap().behind, 0);
    }
    assert!(seen.into_inner() > 0);
    drop(tables);
    machine.finish();
}

#[test]
fn a_flush_with_a_lock_held_is_reported() {
    let machine = machine(1);
    let mut reported = Vec::new();
    let mut trace = |_: mm::buddy::Step| {
        machine.flush_tlb_all();
        reported = machine.hardware().take_troubles();
    };
    drop(Block::alloc_traced(&*machine, Gfp::KERNEL, Order::ZERO, &mut trace).unwrap());
    let expected = |trouble: &Trouble| {
        matches!(
            trouble,
            Trouble::Inversion {
                held: "zone",
                taken: "tlb"
            }
        )
    };
    assert!(reported.iter().any(expected), "{reported:?}");
    machine.abandon();
}

/// Whoever waits for the lock of a table serves no flush: so nobody flushes with one, be it where pages are shown that are unmapped.
#[test]
fn a_flush_with_a_table_locked_is_reported() {
    let machine = machine(1);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let (at, frames) = (
        VirtAddr::new(0x40_0000),
        PfnRange::from_count(Pfn::new(512), 1).unwrap(),
    );
    let how = Attributes::KERNEL;
    // SAFETY: nobody runs through these tables; also below.
    unsafe { machine.map_pages(&tables, (at, frames), how, PageSize::Size4K) }.unwrap();
    let range = VirtRange::from_size(at, 4096).unwrap();
    let sink = |_, _| machine.flush_tlb_all();
    // SAFETY: as above.
    unsafe { machine.unmap_pages(&tables, range, sink) }
        .unwrap()
        .complete();
    let reported = machine.hardware().take_troubles();
    let expected = Trouble::Inversion {
        held: "page table",
        taken: "tlb",
    };
    assert!(reported.contains(&expected), "{reported:?}");
    // SAFETY: as above.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}
