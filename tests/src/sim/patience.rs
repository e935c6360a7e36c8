//! How long a task waits for somebody else before it makes no sense any more.

use std::cell::Cell;

thread_local! {
    static HAS_NONE: Cell<bool> = const { Cell::new(false) };
}

/// Rounds that it waits. With threads of other CPUs there is always one who goes on: it is waited for however loaded the
/// host is.
pub(super) fn rounds(has_others: bool) -> u32 {
    match (HAS_NONE.get(), has_others) {
        (true, _) => 0,
        (false, true) => 10_000_000,
        (false, false) => 1_000,
    }
}

/// Runs `body` as a task for which it never makes sense to wait.
pub fn without_patience<T>(body: impl FnOnce() -> T) -> T {
    let before = HAS_NONE.replace(true);
    let answer = body();
    HAS_NONE.set(before);
    answer
}
