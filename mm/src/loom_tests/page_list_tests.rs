//! M3: what a CPU has of its own, against a drainer, and against going away and coming back.

use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::sync::{OwnerCell, PresenceState as State};

/// A CPU: its list of pages, and whether it is there.
struct Cpu {
    list: OwnerCell<u32>,
    state: State,
}

impl Cpu {
    fn new(pages: u32) -> Self {
        Self {
            list: OwnerCell::new(pages, ()),
            state: State::present(),
        }
    }

    /// Takes a page off the list, as its owner; serves a drain afterwards. Answers how many pages came off.
    fn pop(&self) -> u32 {
        let mut taken = 0;
        // SAFETY: only this CPU's thread calls this, while it is there.
        let mut own = unsafe { self.list.enter() }.expect("nothing nests here");
        let (pages, ()) = own.parts();
        if *pages > 0 {
            *pages -= 1;
            taken += 1;
        }
        drop(own);
        taken + self.serve()
    }

    /// What the handler of a call does, and every leave: drains, if that is wanted.
    fn serve(&self) -> u32 {
        if !self.list.is_drain_wanted() {
            return 0;
        }
        // SAFETY: as in `pop`.
        let mut own = unsafe { self.list.enter() }.expect("nothing nests here");
        let drained = core::mem::take(own.parts().0);
        drop(own);
        self.list.drained();
        drained
    }

    fn return_here(&self) {
        while !self.state.try_return() {
            thread::yield_now();
        }
    }

    /// Drains the list if the CPU is away; otherwise asks it.
    fn drain_remote(&self) -> Option<u32> {
        if !self.state.try_seize() {
            self.list.want_drain();
            return None;
        }
        // SAFETY: the hand-over was won.
        let entered = unsafe { self.list.enter() };
        let drained = entered.map(|mut entered| core::mem::take(entered.parts().0));
        if drained.is_some() {
            self.list.drained();
        }
        self.state.release();
        drained
    }

    /// What is left, once nothing else runs.
    fn left(&self) -> u32 {
        // SAFETY: nothing else runs.
        let mut own = unsafe { self.list.enter() }.unwrap();
        core::mem::take(own.parts().0)
    }
}

/// One CPU takes a page, goes away, comes back and takes another, while a drainer wants all of them.
fn cpu_that_comes_and_goes(cpu: &Cpu) -> u32 {
    let mut got = cpu.pop();
    cpu.state.leave();
    cpu.return_here();
    got += cpu.pop();
    got
}

/// M3: two CPUs and a drainer. No page is had twice or lost, and no two are at a list at once.
#[test]
fn pages_are_popped_and_drained_while_cpus_come_and_go() {
    explore(3, || {
        let cpus = Arc::new([Cpu::new(3), Cpu::new(2)]);
        let first = {
            let cpus = Arc::clone(&cpus);
            thread::spawn(move || cpu_that_comes_and_goes(&cpus[0]))
        };
        let second = {
            let cpus = Arc::clone(&cpus);
            thread::spawn(move || {
                let got = cpus[1].pop();
                cpus[1].state.leave();
                got
            })
        };
        let drained: u32 = cpus.iter().filter_map(Cpu::drain_remote).sum();
        let popped = first.join().unwrap() + second.join().unwrap();
        let left: u32 = cpus.iter().map(Cpu::left).sum();
        assert_eq!(drained + popped + left, 5);
    });
}

/// M3: a CPU that goes down for good: the drainer gets what it has, or has asked before it went, and then
/// gets it when it looks again.
#[test]
fn what_a_cpu_leaves_behind_is_had_by_whoever_looks_again() {
    explore(3, || {
        let cpu = Arc::new(Cpu::new(2));
        let theirs = {
            let cpu = Arc::clone(&cpu);
            thread::spawn(move || {
                let got = cpu.pop();
                cpu.state.leave();
                got
            })
        };
        let early = cpu.drain_remote().unwrap_or(0);
        let got = theirs.join().unwrap();
        let late = cpu.drain_remote().expect("it is away");
        assert_eq!((early + got + late, cpu.left()), (2, 0));
        assert!(!cpu.list.is_drain_wanted());
    });
}

/// A request for a drain is served by the next leave, or stays open: who sees it closed sees the drain done.
#[test]
fn a_drain_that_is_said_to_be_done_is_done() {
    explore(3, || {
        let cpu = Arc::new(Cpu::new(2));
        let drained = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let theirs = {
            let (cpu, drained) = (Arc::clone(&cpu), Arc::clone(&drained));
            thread::spawn(move || {
                while !cpu.list.is_drain_wanted() {
                    thread::yield_now();
                }
                // SAFETY: this thread is the CPU.
                let mut own = unsafe { cpu.list.enter() }.unwrap();
                let pages = core::mem::take(own.parts().0);
                drop(own);
                // SAFETY: nobody reads it before the request is closed, or loom fails the model.
                drained.with_mut(|drained| unsafe { *drained = pages });
                cpu.list.drained();
            })
        };
        cpu.list.want_drain();
        while !cpu.list.is_drained() {
            thread::yield_now();
        }
        // SAFETY: as above.
        assert_eq!(drained.with(|drained| unsafe { *drained }), 2);
        theirs.join().unwrap();
    });
}

/// Two who want the place of a CPU do not both get it, and the CPU does not come back meanwhile.
#[test]
fn only_one_acts_for_a_cpu() {
    explore(3, || {
        let cpu = Arc::new(Cpu::new(4));
        cpu.state.leave();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let cpu = Arc::clone(&cpu);
                thread::spawn(move || {
                    let mut drained = 0;
                    if cpu.state.try_seize() {
                        // SAFETY: the hand-over was won.
                        let mut own = unsafe { cpu.list.enter() }.expect("another one is at it");
                        drained = core::mem::take(own.parts().0);
                        drop(own);
                        cpu.state.release();
                    }
                    drained
                })
            })
            .collect();
        cpu.return_here();
        let mut pages = cpu.left();
        for other in others {
            pages += other.join().unwrap();
        }
        assert_eq!(pages, 4);
    });
}

/// Lists are closed, and then drained by a call that is waited for: nothing is on them then, also if the
/// CPU has just served another request.
#[test]
fn a_closed_list_that_is_drained_is_empty() {
    use crate::sync::atomic::{AtomicU64, Ordering};
    /// Off the limit for who closes the lists, as in `Gauges`.
    const PAUSED: u64 = 1 << 34;
    // As `PerCpu::serve`: done while the cell is still entered.
    fn serve(cpu: &Cpu) {
        if cpu.list.is_drain_wanted() {
            // SAFETY: the CPU itself, or its handler.
            let mut own = unsafe { cpu.list.enter() }.unwrap();
            *own.parts().0 = 0;
            cpu.list.drained();
            drop(own);
        }
    }
    explore(3, || {
        let cpu = Arc::new(Cpu::new(0));
        let limit = Arc::new(AtomicU64::new(2));
        // Somebody else's request is open.
        cpu.list.want_drain();
        let theirs = {
            let (cpu, limit) = (Arc::clone(&cpu), Arc::clone(&limit));
            thread::spawn(move || {
                serve(&cpu);
                // As `Here::put`.
                // SAFETY: this thread is the CPU.
                let mut own = unsafe { cpu.list.enter() }.unwrap();
                let (pages, ()) = own.parts();
                let with_it = *pages + 1;
                if i64::from(with_it) <= limit.load(Ordering::Relaxed).cast_signed() {
                    *pages = with_it;
                }
                drop(own);
                serve(&cpu);
            })
        };
        limit.fetch_sub(PAUSED, Ordering::SeqCst);
        cpu.list.want_drain();
        // The handler of the call comes after all that the CPU did.
        theirs.join().unwrap();
        serve(&cpu);
        assert!(cpu.list.is_drained());
        assert_eq!(
            cpu.left(),
            0,
            "a page came onto a closed list, and the drain missed it"
        );
    });
}
