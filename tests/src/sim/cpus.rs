//! CPUs: tokens that host threads hold, interrupt masking, and locks taken.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use mm::platform::{CpuId, IrqState, LockClass};

/// Something wrong with CPUs, interrupts or locks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Interrupts were left masked.
    IrqsMasked {
        /// On which CPU.
        cpu: u32,
        /// So many times.
        depth: u32,
    },
    /// Interrupts were unmasked more often than masked, or in the wrong order.
    IrqsUnbalanced {
        /// On which CPU.
        cpu: u32,
    },
    /// A lock was left taken, or let go without being held.
    LockHeld {
        /// On which CPU.
        cpu: u32,
        /// The lock.
        lock: &'static str,
    },
    /// A lock was taken while one that does not stand above it was held.
    Inversion {
        /// The lock held.
        held: &'static str,
        /// The lock taken.
        taken: &'static str,
    },
    /// Locks were seen taken in a circle.
    Cycle(Vec<&'static str>),
}

/// One CPU.
#[derive(Debug, Default)]
struct Cpu {
    irq_depth: AtomicU32,
    /// Locks held; only tracked where the library reports them.
    locks: Mutex<Vec<LockClass>>,
}

/// The CPUs of a machine.
#[derive(Debug)]
pub(super) struct Cpus {
    machine: u64,
    cpus: Vec<Cpu>,
    /// Which tokens are out, and to whom.
    /// Locked by `spin`, so that ThreadSanitizer sees who had a CPU before.
    taken: spin::Mutex<Vec<Option<ThreadId>>>,
    /// `(held, taken)` pairs ever seen.
    edges: Mutex<BTreeSet<(&'static str, &'static str)>>,
    troubles: Mutex<Vec<Trouble>>,
    /// Locks taken so far, on all CPUs.
    taken_locks: AtomicU64,
}

thread_local! {
    /// Which CPU of which machine this thread runs on, innermost last.
    static RUNNING: RefCell<Vec<(u64, u32)>> = const { RefCell::new(Vec::new()) };
}

impl Cpus {
    pub(super) fn new(count: u32) -> Self {
        static MACHINES: AtomicU64 = AtomicU64::new(0);
        Self {
            machine: MACHINES.fetch_add(1, Ordering::Relaxed),
            cpus: (0..count).map(|_| Cpu::default()).collect(),
            taken: spin::Mutex::new(vec![None; count as usize]),
            edges: Mutex::default(),
            troubles: Mutex::default(),
            taken_locks: AtomicU64::new(0),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// The CPU of this thread. A thread without one takes CPU 0 for good, if that is free: so a
    /// test with one thread need not think about CPUs.
    pub(super) fn current(&self) -> CpuId {
        let running = RUNNING.with_borrow(|running| {
            let mut found = running.iter().rev();
            found.find(|(machine, _)| *machine == self.machine).copied()
        });
        let cpu = running.map_or_else(
            || {
                self.take(0);
                RUNNING.with_borrow_mut(|running| running.push((self.machine, 0)));
                0
            },
            |(_, cpu)| cpu,
        );
        CpuId(cpu)
    }

    /// Puts this thread on a CPU.
    pub(super) fn enter(&self, cpu: u32) -> OnCpu<'_> {
        self.take(cpu);
        RUNNING.with_borrow_mut(|running| running.push((self.machine, cpu)));
        OnCpu {
            cpus: self,
            cpu,
            thread: PhantomData,
        }
    }

    fn take(&self, cpu: u32) {
        let mut taken = self.taken.lock();
        let token = taken
            .get_mut(cpu as usize)
            .unwrap_or_else(|| panic!("the machine has no CPU {cpu}"));
        assert!(token.is_none(), "another thread runs on CPU {cpu}");
        *token = Some(thread::current().id());
    }

    /// Whether other threads run on CPUs.
    pub(super) fn has_others(&self) -> bool {
        let (taken, own) = (self.taken.lock(), thread::current().id());
        taken.iter().flatten().any(|thread| *thread != own)
    }

    fn here(&self) -> (u32, &Cpu) {
        let CpuId(cpu) = self.current();
        (cpu, &self.cpus[cpu as usize])
    }

    /// Whether this thread's CPU takes interrupts.
    pub(super) fn irqs_are_on(&self) -> bool {
        self.here().1.irq_depth.load(Ordering::Relaxed) == 0
    }

    pub(super) fn irq_save(&self) -> IrqState {
        let (cpu, here) = self.here();
        let depth = here.irq_depth.fetch_add(1, Ordering::Relaxed);
        IrqState::new(u64::from(cpu) << 32 | u64::from(depth))
    }

    /// Unmasks interrupts if they were unmasked before; answers whether they are now.
    pub(super) fn irq_restore(&self, state: IrqState) -> bool {
        let (cpu, here) = self.here();
        let depth = here.irq_depth.load(Ordering::Relaxed);
        let before = depth.wrapping_sub(1);
        if depth == 0 || state.flags() != u64::from(cpu) << 32 | u64::from(before) {
            self.note(Trouble::IrqsUnbalanced { cpu });
            return false;
        }
        here.irq_depth.store(before, Ordering::Relaxed);
        before == 0
    }

    pub(super) fn lock_acquired(&self, class: LockClass) {
        let (_, here) = self.here();
        self.taken_locks.fetch_add(1, Ordering::Relaxed);
        let mut held = here.locks.lock().unwrap();
        for above in held.iter() {
            self.edges.lock().unwrap().insert((above.name, class.name));
            if above.rank >= class.rank {
                self.note(Trouble::Inversion {
                    held: above.name,
                    taken: class.name,
                });
            }
        }
        held.push(class);
    }

    pub(super) fn lock_tried(&self, class: LockClass) {
        let (_, here) = self.here();
        self.taken_locks.fetch_add(1, Ordering::Relaxed);
        here.locks.lock().unwrap().push(class);
    }

    pub(super) fn lock_released(&self, class: LockClass) {
        let (cpu, here) = self.here();
        let mut held = here.locks.lock().unwrap();
        match held.iter().rposition(|one| *one == class) {
            Some(place) => drop(held.remove(place)),
            None => self.note(Trouble::LockHeld {
                cpu,
                lock: class.name,
            }),
        }
    }

    /// How many locks were taken so far, of those that the library reports.
    pub(super) fn taken_locks(&self) -> u64 {
        self.taken_locks.load(Ordering::Relaxed)
    }

    fn note(&self, trouble: Trouble) {
        self.troubles.lock().unwrap().push(trouble);
    }

    /// Everything found so far, and what a quiet machine must not show (oracle O10).
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = std::mem::take(&mut *self.troubles.lock().unwrap());
        for (cpu, state) in (0..).zip(&self.cpus) {
            let depth = state.irq_depth.load(Ordering::Relaxed);
            if depth != 0 {
                troubles.push(Trouble::IrqsMasked { cpu, depth });
            }
            let locks = state.locks.lock().unwrap();
            troubles.extend(locks.iter().map(|lock| Trouble::LockHeld {
                cpu,
                lock: lock.name,
            }));
        }
        troubles.extend(cycle(&self.edges.lock().unwrap()).map(Trouble::Cycle));
        troubles
    }
}

/// A circle in the graph of locks, if there is one.
fn cycle(edges: &BTreeSet<(&'static str, &'static str)>) -> Option<Vec<&'static str>> {
    fn follow(
        edges: &BTreeSet<(&'static str, &'static str)>,
        path: &mut Vec<&'static str>,
    ) -> bool {
        let last = *path.last().unwrap();
        for &(_, to) in edges.iter().filter(|(from, _)| *from == last) {
            if path.contains(&to) {
                path.push(to);
                return true;
            }
            path.push(to);
            if follow(edges, path) {
                return true;
            }
            path.pop();
        }
        false
    }
    edges.iter().find_map(|&(from, _)| {
        let mut path = vec![from];
        follow(edges, &mut path).then_some(path)
    })
}

/// This thread runs on a CPU until the value is dropped.
#[derive(Debug)]
#[must_use = "the thread leaves the CPU when this is dropped"]
pub struct OnCpu<'a> {
    cpus: &'a Cpus,
    cpu: u32,
    /// The token stays on its thread.
    thread: PhantomData<*const ()>,
}

impl OnCpu<'_> {
    /// Which CPU.
    #[must_use]
    pub const fn id(&self) -> CpuId {
        CpuId(self.cpu)
    }
}

impl Drop for OnCpu<'_> {
    fn drop(&mut self) {
        let here = (self.cpus.machine, self.cpu);
        RUNNING.with_borrow_mut(|running| {
            let place = running.iter().rposition(|one| *one == here);
            running.remove(place.expect("this thread is on the CPU"));
        });
        self.cpus.taken.lock()[self.cpu as usize] = None;
    }
}
