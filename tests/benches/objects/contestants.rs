//! The allocators that are compared, behind one interface.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;

use mimalloc::MiMalloc;
use snmalloc_rs::SnMalloc;
use spin::Mutex;
use tikv_jemallocator::Jemalloc;

use crate::crates::{AxSlab, Buddy, Dlmalloc, LinkedList, Talc, Tlsf};
use crate::memory::{self, Share};
use crate::ours::{Hardened, Ours, Plain};
use crate::race::{Effort, Entrant, Runner};
use crate::workloads::Work;
use mm_tests::traces::Trace;

/// One CPU's way to an allocator.
///
/// The workloads give back what they got, once, as they asked for it, and do not use it afterwards: implementors build
/// on that.
pub(crate) trait Ops {
    /// Takes an object.
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>>;
    /// Gives back what `alloc` gave.
    fn free(&mut self, object: NonNull<u8>, layout: Layout);

    /// Changes an object's size; what is in both stays. On failure the object is as before.
    fn resize(&mut self, object: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let moved = self.alloc(Layout::from_size_align(size, layout.align()).ok()?)?;
        // SAFETY: both are that large, and different objects.
        unsafe { moved.copy_from_nonoverlapping(object, size.min(layout.size())) };
        self.free(object, layout);
        Some(moved)
    }

    /// Gives back what it keeps for later, where it can.
    fn shrink(&mut self) {}
}

/// What sort of allocator it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// This library.
    Ours,
    /// A crate for kernels and other programs without a system: it has one arena.
    NoStd,
    /// An allocator of programs: it takes from the system what it needs.
    Hosted,
}

/// An allocator in the race.
pub(crate) trait Contestant: Ops + Sized + 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// Its sort.
    const KIND: Kind;
    /// How a CPU uses it while another one does too.
    type Cpu: Ops + Send + 'static;
    /// One that has so many bytes to give, if it has an arena.
    fn new(bytes: usize) -> Self;
    /// Two CPUs' ways to it.
    fn on_two_cpus(self) -> [Self::Cpu; 2];
}

/// A contestant before it is known what it is to do.
#[derive(Clone, Copy)]
pub(crate) struct Talent {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Gets it on its marks.
    pub(crate) enter: fn(&'static [Trace], Effort) -> Box<dyn Runner>,
    /// A share of memory, in this process.
    pub(crate) share: fn(Share, Effort) -> Option<f64>,
    /// Runs a workload so many times.
    pub(crate) count: fn(Work, usize),
}

impl Talent {
    pub(crate) fn of<C: Contestant>() -> Self {
        Self {
            name: C::NAME,
            kind: C::KIND,
            enter: Entrant::<C>::boxed,
            share: memory::share::<C>,
            count: crate::counting::count::<C>,
        }
    }
}

/// All contestants: ours first, then the crates for kernels, then those of programs.
pub(crate) fn all() -> Vec<Talent> {
    vec![
        Talent::of::<Ours<Plain>>(),
        Talent::of::<Ours<Hardened>>(),
        Talent::of::<LinkedList>(),
        Talent::of::<Talc>(),
        Talent::of::<Buddy>(),
        Talent::of::<Tlsf>(),
        Talent::of::<Dlmalloc>(),
        Talent::of::<AxSlab>(),
        Talent::of::<Program<MiMalloc>>(),
        Talent::of::<Program<SnMalloc>>(),
        Talent::of::<Program<Jemalloc>>(),
        Talent::of::<Program<System>>(),
    ]
}

/// An allocator of programs: all its values are one.
pub(crate) struct Program<G>(G);

/// What such an allocator is.
pub(crate) trait Named: GlobalAlloc + Send + 'static {
    const NAME: &'static str;
    const THE: Self;
}

impl Named for MiMalloc {
    const NAME: &'static str = "mimalloc";
    const THE: Self = Self;
}

impl Named for SnMalloc {
    const NAME: &'static str = "snmalloc";
    const THE: Self = Self;
}

impl Named for Jemalloc {
    const NAME: &'static str = "jemalloc";
    const THE: Self = Self;
}

impl Named for System {
    const NAME: &'static str = "glibc";
    const THE: Self = Self;
}

impl<G: Named> Ops for Program<G> {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no size of a workload is 0.
        NonNull::new(unsafe { self.0.alloc(layout) })
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: what the workloads promise.
        unsafe { self.0.dealloc(object.as_ptr(), layout) };
    }

    #[inline]
    fn resize(&mut self, object: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        NonNull::new(unsafe { self.0.realloc(object.as_ptr(), layout, size) })
    }
}

impl<G: Named> Contestant for Program<G> {
    const NAME: &'static str = G::NAME;
    const KIND: Kind = Kind::Hosted;
    type Cpu = Self;

    fn new(_: usize) -> Self {
        Self(G::THE)
    }

    fn on_two_cpus(self) -> [Self; 2] {
        [self, Self(G::THE)]
    }
}

/// An allocator that two CPUs share as people do it: under one spin lock.
pub(crate) struct Locked<C: 'static>(&'static Mutex<C>);

impl<C> Locked<C> {
    pub(crate) fn twice(inner: C) -> [Self; 2] {
        let lock = Box::leak(Box::new(Mutex::new(inner)));
        [Self(lock), Self(lock)]
    }
}

impl<C: Ops> Ops for Locked<C> {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.lock().alloc(layout)
    }

    #[inline]
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        self.0.lock().free(object, layout);
    }
}
