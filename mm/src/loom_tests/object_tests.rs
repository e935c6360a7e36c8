//! M4: objects that a CPU has at hand, against frees from another CPU, and against whoever wants them back in
//! their slab.
//!
//! Each object has a cell of loom's: two who use it at a time, or one who does not see what its last owner
//! did, fail the model. So does a list of a slab that two are at.

use core::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::platform::{CpuId, IrqState, Platform};
use crate::report::Corruption;
use crate::sync::{OwnerCell, PerCpu, Pin, PresenceState as State, SpinLock, rank};

/// Objects of the slab.
const OBJECTS: usize = 3;

/// The machine, as one CPU sees it.
struct On(u32);

// SAFETY: there is no memory, and each CPU is a thread of its own.
unsafe impl Platform for On {
    fn direct_map(&self, _: PhysRange) -> Option<NonNull<u8>> {
        None
    }

    fn virt_to_phys(&self, _: VirtAddr) -> Option<PhysAddr> {
        None
    }

    fn current_cpu(&self) -> CpuId {
        CpuId(self.0)
    }

    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn corruption(&self, report: &Corruption) {
        panic!("{report}");
    }
}

/// What CPUs have at hand of a cache, and its slab.
struct Cache {
    cells: PerCpu<Vec<usize>>,
    states: [State; 2],
    /// Numbers of free objects.
    slab: SpinLock<UnsafeCell<Vec<usize>>>,
    contents: [UnsafeCell<u32>; OBJECTS],
}

impl Cache {
    /// The first CPU has `at_hand`; the slab has `free`.
    fn new(at_hand: &[usize], free: &[usize]) -> Arc<Self> {
        let cells = [at_hand, &[]].map(|objects| OwnerCell::new(objects.to_vec(), ()));
        Arc::new(Self {
            cells: PerCpu::of_a_model(cells.into()),
            states: [State::present(), State::present()],
            slab: SpinLock::new(rank::SLAB, UnsafeCell::new(free.to_vec())),
            contents: [0; OBJECTS].map(UnsafeCell::new),
        })
    }

    /// Writes to an object, as its owner.
    fn write(&self, object: usize, value: u32) {
        // SAFETY: loom fails the model if anybody else is at it.
        self.contents[object].with_mut(|contents| unsafe { *contents = value });
    }

    /// Does something with the slab's list.
    fn with_slab<R>(&self, on: &On, body: impl FnOnce(&mut Vec<usize>) -> R) -> R {
        let slab = self.slab.lock(on);
        // SAFETY: as in `write`.
        slab.with_mut(|free| body(unsafe { &mut *free }))
    }

    /// As `Cache::give_back`: free objects are written to.
    fn give_back(&self, on: &On, objects: &mut Vec<usize>) {
        self.with_slab(on, |free| {
            for object in objects.drain(..) {
                self.write(object, 0);
                free.push(object);
            }
        });
    }

    /// As `Cache::serve`.
    fn serve(&self, on: &On) {
        let pin = Pin::new(on);
        self.cells
            .serve(&pin, |objects, ()| self.give_back(on, objects));
    }

    /// Takes an object at hand, or one of the slab.
    fn alloc(&self, on: &On) -> Option<usize> {
        let pin = Pin::new(on);
        let mut own = self.cells.enter(&pin).expect("nothing nests here");
        let (objects, ()) = own.parts();
        let found = objects
            .pop()
            .or_else(|| self.with_slab(on, |free| free.pop()));
        if own.leave() {
            self.serve(on);
        }
        found
    }

    /// Puts an object to those at hand.
    fn free(&self, on: &On, object: usize) {
        let pin = Pin::new(on);
        let mut own = self.cells.enter(&pin).expect("nothing nests here");
        own.parts().0.push(object);
        if own.leave() {
            self.serve(on);
        }
    }

    /// Takes an object, uses it, and gives it back.
    fn use_one(&self, on: &On) {
        if let Some(object) = self.alloc(on) {
            self.write(object, 7);
            self.free(on, object);
        }
    }

    /// Gets what the first CPU has back into the slab: in its place if it is away, or by asking it.
    fn flush(&self, on: &On) -> bool {
        let Some(cell) = self.cells.cell(CpuId(0)) else {
            return false;
        };
        if !self.states[0].try_seize() {
            cell.want_drain();
            return false;
        }
        // SAFETY: the hand-over was won.
        let mut entered = unsafe { cell.enter() }.expect("the CPU left in the midst of it");
        self.give_back(on, entered.parts().0);
        drop(entered);
        cell.drained();
        self.states[0].release();
        true
    }

    /// Everything in the slab, used by its next owner without a lock.
    fn ended(&self, on: &On) -> Vec<usize> {
        let mut free = self.with_slab(on, core::mem::take);
        for &object in &free {
            self.write(object, 9);
        }
        free.sort_unstable();
        free
    }
}

/// M4: a CPU takes and puts an object that it has at hand, another one frees one of the same slab, and a
/// third wants all in the slab. Each object is in one place, and in the slab when the flush is done.
#[test]
fn objects_at_hand_frees_from_elsewhere_and_a_flush_lose_nothing() {
    explore(3, || {
        let cache = Cache::new(&[0, 1], &[]);
        let here = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || cache.use_one(&On(0)))
        };
        let elsewhere = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                cache.write(2, 8);
                cache.give_back(&On(1), &mut vec![2]);
            })
        };
        let is_done = cache.flush(&On(1));
        here.join().unwrap();
        elsewhere.join().unwrap();
        assert!(!is_done, "the CPU was there");
        // The handler of the call comes at last, if nothing was served before.
        cache.serve(&On(0));
        assert!(cache.cells.cell(CpuId(0)).unwrap().is_drained());
        cache.states[0].leave();
        assert!(cache.flush(&On(1)), "it is away");
        assert_eq!(cache.ended(&On(1)), [0, 1, 2]);
    });
}

/// M4: the CPU goes away meanwhile, and comes back for more; whoever flushed has what it had, or asked.
#[test]
fn objects_are_flushed_while_their_cpu_comes_and_goes() {
    explore(3, || {
        let cache = Cache::new(&[0, 1], &[2]);
        let here = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                let on = On(0);
                cache.use_one(&on);
                cache.states[0].leave();
                while !cache.states[0].try_return() {
                    thread::yield_now();
                }
                cache.use_one(&on);
                cache.states[0].leave();
            })
        };
        let _ = cache.flush(&On(1));
        here.join().unwrap();
        assert!(cache.flush(&On(1)), "it is away");
        assert_eq!(cache.ended(&On(1)), [0, 1, 2]);
    });
}

/// M4: who asked and sees that it was done finds in the slab all that was at hand then, without a lock of the
/// CPU's; what the CPU uses meanwhile comes to those at hand later.
#[test]
fn a_flush_that_is_said_to_be_done_left_nothing_at_hand() {
    explore(3, || {
        let cache = Cache::new(&[0, 1], &[2]);
        let here = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                while !cache.cells.cell(CpuId(0)).unwrap().is_drain_wanted() {
                    thread::yield_now();
                }
                cache.use_one(&On(0));
            })
        };
        let cell = cache.cells.cell(CpuId(0)).unwrap();
        cell.want_drain();
        while !cell.is_drained() {
            thread::yield_now();
        }
        assert_eq!(cache.ended(&On(1)), [0, 2]);
        here.join().unwrap();
        cache.states[0].leave();
        assert!(cache.flush(&On(1)), "it is away");
        assert_eq!(cache.ended(&On(1)), [1]);
    });
}
