//! TLB shootdown (M8): a page is mapped elsewhere, all CPUs flush, its old frame is freed; no CPU reads that.
//!
//! What a CPU has in its TLB is that CPU's alone, and stays there until it is flushed. Page tables and interrupts are
//! `Relaxed`: the protocol orders what has to be.

use loom::cell::{Cell, UnsafeCell};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use super::explore;
use crate::addr::{VirtAddr, VirtRange};
use crate::platform::TlbFlush;
use crate::sync::shootdown::{Generation, Lazy, Need, Reach, Requests, Seat, to_forget};

const PAGE: u64 = 4096;
const PAGES: usize = 3;

/// A CPU: its part in shootdowns, what it has in its TLB, and whether an interrupt has come.
struct Cpu {
    seat: Seat,
    tlb: [Cell<Option<usize>>; PAGES],
    interrupt: AtomicBool,
}

// SAFETY: loom runs one thread at a time; each TLB is used by one of them.
unsafe impl Sync for Cpu {}
// SAFETY: as above.
unsafe impl Send for Cpu {}

/// Two CPUs; for each page the frame that it is mapped to: the old one, or the new one.
struct World {
    requests: Requests,
    cpus: [Cpu; 2],
    table: [AtomicUsize; PAGES],
    old: [UnsafeCell<u32>; PAGES],
}

impl World {
    fn new() -> Arc<Self> {
        let requests = Requests::new();
        let cpu = |_| Cpu {
            seat: Seat::running(&requests),
            tlb: core::array::from_fn(|_| Cell::new(None)),
            interrupt: AtomicBool::new(false),
        };
        let cpus = [cpu(0), cpu(1)];
        Arc::new(Self {
            requests,
            cpus,
            table: core::array::from_fn(|_| AtomicUsize::new(0)),
            old: core::array::from_fn(|_| UnsafeCell::new(1)),
        })
    }

    fn flush(&self, cpu: usize) -> impl FnMut(TlbFlush) {
        let tlb = &self.cpus[cpu].tlb;
        move |what| match what {
            TlbFlush::All => tlb.iter().for_each(|entry| entry.set(None)),
            TlbFlush::Pages(range) => {
                let first = (range.start().as_u64() / PAGE) as usize;
                let last = first + range.pages() as usize;
                tlb[first..last].iter().for_each(|entry| entry.set(None));
            }
        }
    }

    fn catch_up(&self, cpu: usize) {
        let seat = &self.cpus[cpu].seat;
        seat.catch_up(&self.requests, &mut self.flush(cpu));
    }

    /// An interrupt that has come is served.
    fn serve(&self, cpu: usize) {
        if self.cpus[cpu].interrupt.swap(false, Ordering::Relaxed) {
            self.catch_up(cpu);
        }
    }

    /// A CPU reads a page by what it has in its TLB, or else by the page table.
    fn read(&self, cpu: usize, page: usize) {
        let entry = &self.cpus[cpu].tlb[page];
        let frame = entry.get().unwrap_or_else(|| {
            let frame = self.table[page].load(Ordering::Relaxed);
            entry.set(Some(frame));
            frame
        });
        if frame == 0 {
            // SAFETY: loom fails the model if it is freed meanwhile.
            let found = self.old[page].with(|frame| unsafe { *frame });
            assert_eq!(found, 1, "a CPU reads what was freed");
        }
    }

    /// Maps a page elsewhere, and asks for a flush.
    fn remap(&self, page: usize) -> Generation {
        self.table[page].store(1, Ordering::Relaxed);
        let range = VirtRange::from_size(VirtAddr::new(page as u64 * PAGE), PAGE).unwrap();
        self.requests.raise(to_forget(range).unwrap())
    }

    fn interrupt(&self, cpu: usize) {
        self.cpus[cpu].interrupt.store(true, Ordering::Relaxed);
    }

    /// One CPU maps a page elsewhere and, if the other has flushed at one of a few looks, frees the old frame.
    fn replace(&self, cpu: usize, page: usize, looks: u32) -> bool {
        let other = 1 - cpu;
        let generation = self.remap(page);
        self.catch_up(cpu);
        if self.cpus[other].seat.ask(generation, Reach::Pages) == Need::Interrupt {
            self.interrupt(other);
        }
        for _ in 0..looks {
            if self.cpus[other].seat.has_flushed(generation, Reach::Pages) {
                // SAFETY: loom fails the model if anybody reads it.
                self.old[page].with_mut(|frame| unsafe { *frame = 0 });
                return true;
            }
            self.serve(cpu);
            thread::yield_now();
        }
        false
    }
}

/// Enqueue, dispatch, acknowledge, free.
#[test]
fn what_is_freed_after_a_shootdown_is_read_by_no_cpu() {
    explore(3, || {
        let world = World::new();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read(1, 0);
                world.serve(1);
                world.read(1, 0);
            })
        };
        let _ = world.replace(0, 0, 2);
        reader.join().unwrap();
    });
}

/// The CPU goes idle, and is back, before it is asked, while it is, or afterwards.
#[test]
fn a_lazy_cpu_flushes_before_it_reads_again() {
    explore(3, || {
        let world = World::new();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read(1, 0);
                world.cpus[1].seat.enter_lazy(Lazy::Idle);
                let seat = &world.cpus[1].seat;
                let was = seat.leave_lazy(&world.requests, &mut world.flush(1));
                assert_eq!(was, Some(Lazy::Idle));
                world.read(1, 0);
            })
        };
        let _ = world.replace(0, 0, 2);
        reader.join().unwrap();
    });
}

/// Both CPUs remap a page, and read the other's; neither takes interrupts but while it waits.
#[test]
fn two_cpus_that_ask_at_once_serve_each_other() {
    explore(2, || {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read(1, 0);
                let _ = world.replace(1, 1, 2);
                world.serve(1);
                world.read(1, 0);
            })
        };
        world.read(0, 1);
        let _ = world.replace(0, 0, 2);
        world.serve(0);
        world.read(0, 1);
        other.join().unwrap();
    });
}

/// Two ask the same CPU, which takes the interrupts that were sent, whenever they come.
#[test]
fn who_is_told_that_an_interrupt_is_under_way_is_served_by_it() {
    explore(3, || {
        let world = World::new();
        let ask = |world: &World, page| {
            let generation = world.remap(page);
            if world.cpus[1].seat.ask(generation, Reach::Pages) == Need::Interrupt {
                world.interrupt(1);
            }
            generation
        };
        let first = ask(&world, 0);
        let cpu = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.serve(1))
        };
        let second = ask(&world, 1);
        cpu.join().unwrap();
        world.serve(1);
        let seat = &world.cpus[1].seat;
        assert!(seat.has_flushed(first, Reach::Pages) && seat.has_flushed(second, Reach::Pages));
    });
}

/// More requests than places, from two CPUs, while a third one catches up.
#[test]
fn a_cpu_that_catches_up_in_the_midst_of_requests_forgets_what_it_says() {
    explore(2, || {
        let world = World::new();
        for page in 0..PAGES {
            world.read(1, page);
        }
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || (world.remap(0), world.remap(1)))
        };
        let third = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.remap(2))
        };
        world.catch_up(1);
        let flushed = world.cpus[1].seat.flushed();
        let is_known = |page: usize| world.cpus[1].tlb[page].get().is_some();
        let known: Vec<_> = (0..PAGES).map(is_known).collect();
        let (first, second) = other.join().unwrap();
        let third = third.join().unwrap();
        for (generation, known) in [first, second, third].into_iter().zip(known) {
            assert!(
                generation.is_after(flushed) || !known,
                "a page is said to be forgotten"
            );
        }
    });
}

/// An idle CPU where page tables go: interrupted like any other.
#[test]
fn tables_are_freed_when_idle_cpus_have_flushed_too() {
    explore(3, || {
        let world = World::new();
        let cpu = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.read(1, 0);
                world.cpus[1].seat.enter_lazy(Lazy::Idle);
                // A walk of its own, whose result is not used.
                world.read(1, 0);
                if world.cpus[1].interrupt.load(Ordering::Relaxed) {
                    let seat = &world.cpus[1].seat;
                    seat.leave_lazy(&world.requests, &mut world.flush(1));
                    world.serve(1);
                }
                world.read(1, 0);
            })
        };
        let generation = world.remap(0);
        let seat = &world.cpus[1].seat;
        if seat.ask(generation, Reach::Tables) == Need::Interrupt {
            world.interrupt(1);
        }
        for _ in 0..2 {
            if seat.has_flushed(generation, Reach::Tables) {
                // SAFETY: loom fails the model if anybody reads it.
                world.old[0].with_mut(|frame| unsafe { *frame = 0 });
                break;
            }
            thread::yield_now();
        }
        cpu.join().unwrap();
    });
}

/// The models can succeed: a shootdown does end.
#[test]
fn a_shootdown_ends_when_every_cpu_has_flushed() {
    explore(3, || {
        let world = World::new();
        world.read(1, 0);
        let generation = world.remap(0);
        let seat = &world.cpus[1].seat;
        assert_eq!(seat.ask(generation, Reach::Pages), Need::Interrupt);
        world.interrupt(1);
        let cpu = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.serve(1))
        };
        cpu.join().unwrap();
        assert!(seat.has_flushed(generation, Reach::Pages));
    });
}
