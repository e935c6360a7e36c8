//! Kernel threads: what there is of one, and where it stands.
//!
//! A thread is a stack, a saved stack pointer, and a few words that say where it stands. It is
//! kept by references: whoever can wake it has one, the CPU that runs it has one, the queue it is
//! ready in has one. Its stack goes back when it has been left for the last time: by whoever
//! joins it, or by an idle CPU where nobody will.

use super::Atomic;
use super::hotplug::Visit;
use super::list::Link;
use super::policy::{self, OwnPolicy};
use super::wait::WaitQueue;
use crate::arch::lock::IrqLock;
use crate::arch::stack::StackExtent;
use crate::arch::{smp, time};
use crate::memory::stacks::{self, Stack};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use mm::system::VmallocError;

/// All threads that have not ended.
static THREADS: IrqLock<Vec<Arc<Thread>>> = IrqLock::new(Vec::new());
/// The number of the next thread.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// Which CPUs a thread may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// All of them.
    Any,
    /// This one only; it cannot be taken offline until the thread has ended.
    Cpu(u32),
}

impl Affinity {
    /// Whether a thread may run on a CPU.
    #[must_use]
    pub fn allows(self, cpu: u32) -> bool {
        self == Self::Any || self == Self::Cpu(cpu)
    }
}

/// What a thread is for the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An ordinary thread.
    Normal,
    /// Serves work that is meant for its CPU; stays behind when that goes offline.
    Worker,
    /// Runs when nothing else does.
    Idle,
}

/// Where a thread stands, for `ps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits for a CPU.
    Ready,
    /// It runs.
    Running,
    /// It waits for an event or a time.
    Sleeping,
    /// It has ended.
    Ended,
}

impl Status {
    const ALL: [Self; 4] = [Self::Ready, Self::Running, Self::Sleeping, Self::Ended];

    const fn code(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Running => 1,
            Self::Sleeping => 2,
            Self::Ended => 3,
        }
    }
}

/// Word `parking`: it runs, is ready to, or will be soon.
const AWAKE: u32 = 0;
/// It has announced that it will leave its CPU until somebody wakes it.
const PARKING: u32 = 1;
/// It has left.
const PARKED: u32 = 2;

/// Bits of `life`: it was left for the last time; …
const ENDED: u32 = 1;
/// … nobody waits for that.
const DETACHED: u32 = 2;

pub(super) type Body = Box<dyn FnOnce() + Send>;

/// A kernel thread.
pub struct Thread {
    id: u32,
    name: String,
    affinity: Affinity,
    role: Role,
    extent: StackExtent,
    /// The stack, where it is not a CPU's own; gone once it was given back.
    stack: IrqLock<Option<Stack>>,
    body: IrqLock<Option<Body>>,
    /// Keeps its CPU online, where it is bound to one.
    visit: IrqLock<Option<Visit>>,
    /// Saved stack pointer while it does not run.
    sp: AtomicU64,
    parking: AtomicU32,
    life: AtomicU32,
    status: AtomicU8,
    /// The CPU it runs on, or ran on last.
    cpu: AtomicU32,
    /// How often it was given a CPU, and how often another one than before.
    switches: AtomicU64,
    migrations: AtomicU64,
    /// How often it lost its CPU without asking.
    preemptions: AtomicU64,
    /// It reclaims memory (Linux: `PF_MEMALLOC`).
    reclaims: AtomicBool,
    policy: OwnPolicy,
    pub(super) run_link: Link,
    pub(super) wait_link: Link,
    pub(super) time_link: Link,
    /// When it is to be woken, by which CPU, and whether it is on that list.
    pub(super) deadline: AtomicU64,
    pub(super) timer_cpu: AtomicU32,
    pub(super) is_timed: AtomicBool,
    /// Who waits for its end.
    joiners: WaitQueue,
}

/// Why there is no thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// No memory for its stack, or for the note of it.
    OutOfMemory,
    /// No addresses for its stack.
    NoRoom,
    /// The CPU it is for does not take part, or is offline.
    NoSuchCpu(u32),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("no memory for another thread"),
            Self::NoRoom => f.write_str("no addresses for another thread's stack"),
            Self::NoSuchCpu(cpu) => smp::NoSuchCpu(*cpu).fmt(f),
        }
    }
}

impl From<VmallocError> for SpawnError {
    fn from(error: VmallocError) -> Self {
        match error {
            VmallocError::NoSpace => Self::NoRoom,
            _ => Self::OutOfMemory,
        }
    }
}

/// What it takes to make a thread.
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) affinity: Affinity,
    pub(super) role: Role,
    pub(super) extent: StackExtent,
    pub(super) stack: Option<Stack>,
    pub(super) body: Option<Body>,
    pub(super) visit: Option<Visit>,
    pub(super) sp: u64,
    pub(super) cpu: u32,
}

impl Thread {
    /// Makes a thread and notes it.
    pub(super) fn new(recipe: Recipe) -> Result<Arc<Self>, SpawnError> {
        let inherited = match recipe.role {
            Role::Normal => policy::current(),
            // These work for everybody.
            Role::Worker | Role::Idle => None,
        };
        let thread = Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: recipe.name,
            affinity: recipe.affinity,
            role: recipe.role,
            extent: recipe.extent,
            stack: IrqLock::new(recipe.stack),
            body: IrqLock::new(recipe.body),
            visit: IrqLock::new(recipe.visit),
            sp: AtomicU64::new(recipe.sp),
            parking: AtomicU32::new(AWAKE),
            life: AtomicU32::new(0),
            status: AtomicU8::new(Status::Ready.code()),
            cpu: AtomicU32::new(recipe.cpu),
            switches: AtomicU64::new(0),
            migrations: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            reclaims: AtomicBool::new(false),
            policy: OwnPolicy::new(inherited),
            run_link: Link::new(),
            wait_link: Link::new(),
            time_link: Link::new(),
            deadline: AtomicU64::new(0),
            timer_cpu: AtomicU32::new(0),
            is_timed: AtomicBool::new(false),
            joiners: WaitQueue::new(),
        });
        let mut threads = THREADS.lock();
        if threads.try_reserve(1).is_err() {
            drop(threads);
            thread.give_stack_back();
            return Err(SpawnError::OutOfMemory);
        }
        threads.push(Arc::clone(&thread));
        Ok(thread)
    }

    /// Its number: threads are numbered in the order in which they were made.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it may run.
    #[must_use]
    pub const fn affinity(&self) -> Affinity {
        self.affinity
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// Where its stack lies.
    #[must_use]
    pub const fn stack(&self) -> StackExtent {
        self.extent
    }

    /// The CPU it runs on, or ran on last.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu.load(Ordering::Relaxed)
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let code = usize::from(self.status.load(Ordering::Relaxed));
        Status::ALL.get(code).copied().unwrap_or(Status::Ended)
    }

    /// How often it was given a CPU.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    /// How often it was given another CPU than before.
    #[must_use]
    pub fn migrations(&self) -> u64 {
        self.migrations.load(Ordering::Relaxed)
    }

    /// How often it lost its CPU without asking.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        self.preemptions.load(Ordering::Relaxed)
    }

    /// Marks it as one that reclaims memory, or not; answers what it was.
    pub(crate) fn set_reclaiming(&self, on: bool) -> bool {
        self.reclaims.swap(on, Ordering::Relaxed)
    }

    pub(crate) fn is_reclaiming(&self) -> bool {
        self.reclaims.load(Ordering::Relaxed)
    }

    /// Which nodes' memory it wants.
    pub(crate) const fn policy(&self) -> &OwnPolicy {
        &self.policy
    }

    pub(super) fn count_preemption(&self) {
        self.preemptions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_status(&self, status: Status) {
        self.status.store(status.code(), Ordering::Relaxed);
    }

    /// Notes that it is given a CPU.
    pub(super) fn note_running(&self, cpu: u32) {
        self.set_status(Status::Running);
        self.switches.fetch_add(1, Ordering::Relaxed);
        if self.cpu.swap(cpu, Ordering::Relaxed) != cpu {
            self.migrations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The saved stack pointer, and where the next one goes.
    pub(super) const fn sp(&self) -> &AtomicU64 {
        &self.sp
    }

    /// Announces that it will leave its CPU. Whoever wakes it from here on is not missed.
    pub(super) fn announce_parking(&self) {
        // Sequentially consistent: what it waits for is looked at after this.
        self.parking.store(PARKING, Ordering::SeqCst);
    }

    /// It stays after all.
    pub(super) fn stay(&self) {
        self.parking.store(AWAKE, Ordering::SeqCst);
    }

    /// Notes that it has left; answers false where somebody has woken it since it announced that.
    pub(super) fn has_parked(&self) -> bool {
        self.set_status(Status::Sleeping);
        self.parking
            .compare_exchange(PARKING, PARKED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Wakes it: it runs, or will, and looks again at what it waits for.
    ///
    /// # Context
    /// Any but NMI.
    pub fn wake(self: &Arc<Self>) {
        if self.parking.swap(AWAKE, Ordering::SeqCst) == PARKED {
            super::queue::place(Arc::clone(self));
        }
    }

    /// Notes that it was left for the last time, and wakes who waits for that. Answers whether its stack is
    /// left to be cleared away.
    pub(super) fn has_ended(&self) -> bool {
        self.set_status(Status::Ended);
        let mut threads = THREADS.lock();
        if let Some(index) = threads
            .iter()
            .position(|other| core::ptr::eq(&**other, self))
        {
            drop(threads.swap_remove(index));
        }
        drop(threads);
        drop(self.visit.lock().take());
        let before = self.life.fetch_or(ENDED, Ordering::AcqRel);
        self.joiners.wake_all();
        before & DETACHED != 0
    }

    /// Whether it was left for the last time.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.life.load(Ordering::Acquire) & ENDED != 0
    }

    pub(super) fn take_stack(&self) -> Option<Stack> {
        self.stack.lock().take()
    }

    /// What it is to run; once.
    pub(super) fn take_body(&self) -> Option<Body> {
        self.body.lock().take()
    }

    /// Sleeps until it was left for the last time.
    #[track_caller]
    pub(super) fn wait_for_end(&self) -> Result<(), Atomic> {
        self.joiners.wait_until(|| self.is_ended())
    }

    /// Notes that nobody waits for its end. Answers whether it has come, and its stack is left to be
    /// cleared away.
    pub(super) fn detach(&self) -> bool {
        let before = self.life.fetch_or(DETACHED, Ordering::AcqRel);
        before & ENDED != 0 && self.stack.lock().is_some()
    }

    pub(super) fn give_stack_back(&self) {
        stacks::free(self.take_stack());
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// All threads that have not ended.
#[must_use]
pub fn all() -> Vec<Arc<Thread>> {
    THREADS.lock().clone()
}

/// The first thread that a question is about, unless somebody is changing the list of them.
///
/// # Context
/// Any.
pub(crate) fn find_at_once(mut is_it: impl FnMut(&Thread) -> bool) -> Option<Arc<Thread>> {
    let threads = THREADS.try_lock()?;
    threads.iter().find(|thread| is_it(thread)).cloned()
}

/// Nanoseconds on the clock, for deadlines.
pub(super) fn deadline_in(ns: u64) -> u64 {
    time::now_ns().saturating_add(ns)
}
