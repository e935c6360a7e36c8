//! Interrupts that cannot be masked: a function that a thread calls at many points of what it does.
//!
//! The points are the library's calls of its platform. The function runs between them as an NMI handler
//! would: on the same CPU, to its end, whatever is locked or in use.

use std::cell::Cell;

type Handler = *const dyn Fn();

thread_local! {
    static HANDLER: Cell<Option<Handler>> = const { Cell::new(None) };
    static TAKEN: Cell<u64> = const { Cell::new(0) };
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
pub(super) fn with_handler(handler: &dyn Fn(), body: impl FnOnce()) -> u64 {
    let handler: *const (dyn Fn() + '_) = handler;
    // SAFETY: only the lifetime changes, and `Restore` takes the pointer away before this returns.
    let handler = unsafe { std::mem::transmute::<*const (dyn Fn() + '_), Handler>(handler) };
    let _restore = Restore(HANDLER.replace(Some(handler)));
    TAKEN.set(0);
    body();
    TAKEN.get()
}

/// A point.
pub(super) fn point() {
    let Some(handler) = HANDLER.take() else {
        return;
    };
    let _restore = Restore(Some(handler));
    TAKEN.set(TAKEN.get() + 1);
    // SAFETY: `with_handler`, which has the function borrowed, is further up on this stack.
    unsafe { (*handler)() };
}
