//! Interrupts that cannot be masked: a function that a thread calls at many points of what it does.
//!
//! The points are the library's calls of its platform. The function runs between them as an NMI handler
//! would: on the same CPU, to its end, whatever is locked or in use.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr::null_mut;

use super::{SimConfig, SimPlatform};

type Handler = *const dyn Fn();

thread_local! {
    static HANDLER: Cell<Option<Handler>> = const { Cell::new(None) };
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

/// Calls of a place that tell it from others.
const CALLS: usize = 4;

/// A point, by where the code is: which instruction called the platform, and which three called that. The same in one
/// run of a program only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The instruction.
    pub at: usize,
    /// All four.
    pub chain: u64,
}

impl Place {
    /// That of the caller's caller.
    #[inline(never)]
    fn of_caller() -> Self {
        // That of glibc, from <execinfo.h>.
        unsafe extern "C" {
            fn backtrace(buffer: *mut *mut c_void, size: c_int) -> c_int;
        }
        // Before them are this function and its caller.
        let mut calls = [null_mut(); 2 + CALLS];
        // SAFETY: there is room for so many.
        unsafe { backtrace(calls.as_mut_ptr(), calls.len() as c_int) };
        let calls = &calls[2..];
        let mut hasher = DefaultHasher::new();
        calls.hash(&mut hasher);
        Self {
            at: calls[0].addr(),
            chain: hasher.finish(),
        }
    }
}

impl<C: SimConfig> SimPlatform<C> {
    /// Runs `body`, interrupted by `handler` as by an NMI, whenever the library calls its platform on
    /// this thread. Answers how often that was.
    pub fn with_nmis(&self, handler: impl Fn(), body: impl FnOnce()) -> u64 {
        with_handler(&handler, body)
    }

    /// The same with a handler that is told where it comes.
    pub fn with_nmis_by_place(&self, handler: impl Fn(Place), body: impl FnOnce()) -> u64 {
        with_handler_by_place(&handler, body)
    }

    /// One such point more: for tracers, which are called with locks held.
    pub fn nmi_point(&self) {
        point();
    }
}

/// Puts the handler back that was there before, also when a test fails.
struct Restore(Option<Handler>);

impl Drop for Restore {
    fn drop(&mut self) {
        HANDLER.set(self.0);
    }
}

/// Runs `body`, interrupted at each point by `handler`, which is not interrupted itself. Answers how
/// often that was.
fn with_handler(handler: &dyn Fn(), body: impl FnOnce()) -> u64 {
    let handler: *const (dyn Fn() + '_) = handler;
    // SAFETY: only the lifetime changes, and `Restore` takes the pointer away before this returns.
    let handler = unsafe { std::mem::transmute::<*const (dyn Fn() + '_), Handler>(handler) };
    let _restore = Restore(HANDLER.replace(Some(handler)));
    TAKEN.set(0);
    body();
    TAKEN.get()
}

/// The same for a handler that is told where it comes.
fn with_handler_by_place(handler: &dyn Fn(Place), body: impl FnOnce()) -> u64 {
    PLACE.set(Some(Place { at: 0, chain: 0 }));
    let told = || handler(PLACE.get().expect("a handler of this kind"));
    let taken = with_handler(&told, body);
    PLACE.set(None);
    taken
}

/// A point.
#[inline]
pub(super) fn point() {
    if let Some(handler) = HANDLER.take() {
        interrupt(handler);
    }
}

#[inline(never)]
fn interrupt(handler: Handler) {
    let _restore = Restore(Some(handler));
    if PLACE.get().is_some() {
        PLACE.set(Some(Place::of_caller()));
    }
    TAKEN.set(TAKEN.get() + 1);
    // SAFETY: `with_handler`, which has the function borrowed, is further up on this stack.
    unsafe { (*handler)() };
}
