//! TLB shootdown on this machine: nobody reads what was mapped before a flush, however CPUs are busy.
#![expect(
    unsafe_code,
    reason = "reads a page that is mapped elsewhere meanwhile; handles NMIs"
)]

use super::stacks::{self, Stack};
use super::{Kernel, MEMORY, Pages};
use crate::arch::apic::vector;
use crate::arch::irq::IrqGuard;
use crate::arch::trap::{self, Handled, TrapFrame};
use crate::arch::{local, smp};
use crate::ktest::Failure;
use crate::num::{to_u64, to_usize};
use crate::sched;
use crate::sched::team::scoped_on;
use crate::sched::thread::Affinity;
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mm::addr::{Order, PhysRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::platform::{CpuId, Platform};

/// In a page that was given back.
const GONE: u64 = u64::MAX;
/// The part of an entry that says where the page is.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A page of addresses whose frame changes: that of a stack which nobody runs on.
struct Window {
    stack: Stack,
    entry: &'static AtomicU64,
    first: u64,
    page: Pages,
}

impl Window {
    /// The number in the page is 0.
    fn new() -> Result<Self, Failure> {
        let stack = Stack::new(PAGE_SIZE).map_err(Failure::new)?;
        let entry = entry_of(VirtAddr::new(stack.extent().bottom)).ok_or("not mapped")?;
        let first = entry.load(Ordering::Relaxed);
        let mut window = Self {
            stack,
            entry,
            first,
            page: numbered(0)?,
        };
        window.remap(0)?;
        Ok(window)
    }

    fn range(&self) -> VirtRange {
        let extent = self.stack.extent();
        VirtRange::new(VirtAddr::new(extent.bottom), VirtAddr::new(extent.top)).unwrap_or_default()
    }

    fn at(&self) -> u64 {
        self.stack.extent().bottom
    }

    fn map(&self, entry: u64) {
        self.entry.store(entry, Ordering::Release);
        MEMORY.flush_tlb(self.range());
    }

    /// Maps a page with a number in it; the one before says that it has gone, and is given back.
    fn remap(&mut self, number: u64) -> Result<(), Failure> {
        let page = numbered(number)?;
        let address = page.pfn().checked_addr().ok_or("no address")?;
        self.map((self.first & !ADDRESS) | address.as_u64());
        let mut old = core::mem::replace(&mut self.page, page);
        write(&mut old, GONE);
        Ok(())
    }

    /// Gives all back.
    fn close(self) {
        self.map(self.first);
        drop(self.page);
        stacks::free([self.stack]);
    }
}

/// The entry of the lowest table that an address is found by. Nobody else changes it while the page is a window's.
fn entry_of(at: VirtAddr) -> Option<&'static AtomicU64> {
    let step = MEMORY.walk(&MEMORY.kernel_space()?.tables, at).last()?;
    let table = step.table.checked_addr()?;
    let offset = to_u64(step.index).wrapping_mul(8);
    let entry = PhysRange::from_size(table.checked_add(offset)?, 8);
    let place = MEMORY.platform().direct_map(entry)?.cast::<u64>();
    // SAFETY: eight bytes of a page table, which the library too reads and writes as atomics; the table lives as long as the stack,
    // which the window has.
    Some(unsafe { AtomicU64::from_ptr(place.as_ptr()) })
}

fn write(page: &mut Pages, number: u64) {
    if let Some(word) = page.bytes_mut().first_chunk_mut() {
        *word = number.to_le_bytes();
    }
}

fn numbered(number: u64) -> Result<Pages, Failure> {
    let mut page = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
    write(&mut page, number);
    Ok(page)
}

/// The number at an address of a window.
fn read(at: u64) -> u64 {
    let place = core::ptr::with_exposed_provenance::<u64>(to_usize(at));
    // SAFETY: a window's address, which always leads to a page; written to only before it does, or after it does no
    // more, and that is what is looked at.
    unsafe { place.read_volatile() }
}

/// Each CPU but this thread's, at most so many.
fn others(most: u32) -> Vec<Affinity> {
    let me = local::current_id();
    let ids = smp::cpus().map(local::CpuLocal::id).filter(|&id| id != me);
    ids.take(to_usize(u64::from(most)))
        .map(Affinity::Cpu)
        .collect()
}

/// Remaps a window again and again while other CPUs read it. Answers how often one read what had gone, or an older number than
/// was there before it looked.
fn remap_under_readers(rounds: u64) -> Result<(u64, u64), Failure> {
    let mut window = Window::new()?;
    let at = window.at();
    let (now, stale, reads) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let body = |_: u32| {
        while !stop.load(Ordering::Relaxed) {
            let least = now.load(Ordering::Acquire);
            let found = read(at);
            let is_stale = found < least || found == GONE;
            stale.fetch_add(u64::from(is_stale), Ordering::Relaxed);
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let outcome = scoped_on("reader", others(3).into_iter(), &body, || {
        let mut run = || -> Result<(), Failure> {
            // Where the host is busy, others may take their time to begin.
            while smp::count() > 1 && reads.load(Ordering::Relaxed) == 0 {
                let _ = sched::yield_now();
            }
            for number in 1..=rounds {
                window.remap(number)?;
                now.store(number, Ordering::Release);
            }
            Ok(())
        };
        let outcome = run();
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    window.close();
    outcome.map_err(Failure::new)??;
    Ok((stale.into_inner(), reads.into_inner()))
}

/// NMIs that came, and those whose handlers could have gone by what was old.
static NMIS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

fn on_nmi(_: &mut TrapFrame) -> Handled {
    NMIS.fetch_add(1, Ordering::Relaxed);
    let before = MEMORY.tlb_generation();
    super::tlb::catch_up();
    let of_cpu = MEMORY.tlb_of(CpuId(local::current_id()));
    let since = MEMORY.tlb_generation().wrapping_sub(before);
    // Behind what came since, at most; and others wait for it, whatever it was before.
    let is_wrong = of_cpu.is_none_or(|cpu| cpu.behind > since || cpu.is_lazy);
    WRONG.fetch_add(u64::from(is_wrong), Ordering::Relaxed);
    Handled::Yes
}

ktest! {
    fn a_page_is_never_read_after_a_flush_that_forgot_it() {
        let (stale, reads) = remap_under_readers(150)?;
        log::info!("{reads} reads by other CPUs while a page was mapped 150 times");
        ktest_eq!(stale, 0);
        ktest_assert!(smp::count() < 2 || reads > 0);
        Ok(())
    }

    fn two_cpus_that_flush_at_once_with_interrupts_off_do_not_block() {
        const TIMES: u64 = 10_000;
        let places = smp::cpus().map(|cpu| Affinity::Cpu(cpu.id())).take(2);
        let before = MEMORY.tlb_generation();
        let window = Window::new()?;
        let range = window.range();
        let body = |_: u32| {
            for _ in 0..TIMES {
                let _irq = IrqGuard::new();
                MEMORY.flush_tlb(range);
            }
        };
        let cpus = u64::from(smp::count().min(2));
        scoped_on("flusher", places, &body, || ()).map_err(Failure::new)?;
        window.close();
        let asked = MEMORY.tlb_generation().wrapping_sub(before);
        ktest_assert!(asked >= TIMES.wrapping_mul(cpus), "{asked} flushes");
        Ok(())
    }

    fn who_flushes_and_who_calls_with_interrupts_off_do_not_wait_for_each_other() {
        const TIMES: u32 = 1_000;
        if smp::count() < 2 {
            return Ok(());
        }
        let window = Window::new()?;
        let range = window.range();
        let answers = AtomicU64::new(0);
        let body = |number: u32| {
            for _ in 0..TIMES {
                let _irq = IrqGuard::new();
                if number == 0 {
                    MEMORY.flush_tlb(range);
                } else {
                    let answer = smp::call_on(0, local::current_id);
                    answers.fetch_add(u64::from(answer == Ok(0)), Ordering::Relaxed);
                }
            }
        };
        let places = [Affinity::Cpu(0), Affinity::Cpu(1)];
        scoped_on("waiter", places.into_iter(), &body, || ()).map_err(Failure::new)?;
        window.close();
        ktest_eq!(answers.load(Ordering::Relaxed), u64::from(TIMES));
        Ok(())
    }

    fn an_idle_cpu_is_left_alone_and_flushes_when_it_wakes() {
        let Some(id) = smp::count().checked_sub(1).filter(|&last| last > 0) else {
            return Ok(());
        };
        let cpu = smp::cpu(id).ok_or("no such CPU")?;
        let mut window = Window::new()?;
        let at = window.at();
        let is_lazy = || MEMORY.tlb_of(CpuId(id)).is_some_and(|cpu| cpu.is_lazy);
        let (mut left_alone, mut wrong) = (0_u32, 0_u32);
        for number in 1..=200 {
            // It knows the page, and then has nothing to do.
            let before = smp::call_on(id, || read(at)).map_err(Failure::new)?;
            wrong = wrong.saturating_add(u32::from(before.wrapping_add(1) != number));
            for _ in 0..20 {
                if is_lazy() {
                    break;
                }
                let _ = sched::sleep_ms(1);
            }
            let interrupts = cpu.count(vector::TLB);
            window.remap(number)?;
            let is_alone = is_lazy() && cpu.count(vector::TLB) == interrupts;
            left_alone = left_alone.saturating_add(u32::from(is_alone));
            let after = smp::call_on(id, || read(at)).map_err(Failure::new)?;
            wrong = wrong.saturating_add(u32::from(after != number));
        }
        window.close();
        ktest_eq!(wrong, 0);
        ktest_assert!(left_alone > 0, "an idle CPU was interrupted each time");
        Ok(())
    }

    fn nmis_in_the_midst_of_flushes_do_no_harm() {
        if smp::count() < 2 {
            return Ok(());
        }
        NMIS.store(0, Ordering::Relaxed);
        WRONG.store(0, Ordering::Relaxed);
        // SAFETY: (1) it takes no lock; (2) it leaves the frame as it is.
        unsafe { trap::set_handler(trap::vector::NMI, Some(on_nmi)) };
        let mut sent = 0;
        let stop = AtomicBool::new(false);
        let sender = others(1);
        let counter = AtomicU64::new(0);
        let outcome = scoped_on("sender", sender.into_iter(), &|_| {
            while !stop.load(Ordering::Relaxed) {
                for cpu in smp::cpus() {
                    counter.fetch_add(u64::from(smp::send_nmi(cpu)), Ordering::Relaxed);
                }
                (0..10_000).for_each(|_| spin_loop());
            }
        }, || {
            // The sender may have to wait for its turn.
            for _ in 0..1_000 {
                if NMIS.load(Ordering::Relaxed) > 0 || sched::sleep_ms(1).is_err() {
                    break;
                }
            }
            let outcome = remap_under_readers(60);
            sent = counter.load(Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
            outcome
        });
        // What is under way comes before a call does.
        smp::call_on_all(&|_| ());
        // SAFETY: none is sent any more.
        unsafe { trap::set_handler(trap::vector::NMI, None) };
        let (stale, _) = outcome.map_err(Failure::new)??;
        let (nmis, wrong) = (NMIS.load(Ordering::Relaxed), WRONG.load(Ordering::Relaxed));
        log::info!("{sent} NMIs sent, {nmis} came in the midst of 60 flushes");
        ktest_eq!((stale, wrong), (0, 0));
        ktest_assert!(nmis > 0);
        Ok(())
    }

    fn a_cpu_that_was_offline_forgets_what_it_missed() {
        use crate::sched::hotplug;
        let Some(id) = smp::count().checked_sub(1).filter(|&last| last > 0) else {
            return Ok(());
        };
        let mut window = Window::new()?;
        let at = window.at();
        ktest_eq!(smp::call_on(id, || read(at)), Ok(0));
        hotplug::offline(id).map_err(Failure::new)?;
        let outcome = window.remap(1);
        hotplug::online(id).map_err(Failure::new)?;
        let found = smp::call_on(id, || read(at));
        window.close();
        outcome?;
        ktest_eq!(found, Ok(1));
        Ok(())
    }
}
