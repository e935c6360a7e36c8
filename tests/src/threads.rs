//! Threads of a test.

use std::thread::ScopedJoinHandle;

/// Starts threads, all at once, and waits for each by itself: ThreadSanitizer does not see that a scope waits for its
/// threads, and takes what comes after it for a race.
///
/// # Panics
/// If one of them did.
pub fn join<'scope, T>(threads: impl IntoIterator<Item = ScopedJoinHandle<'scope, T>>) {
    let threads: Vec<_> = threads.into_iter().collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
