//! Reports that may come in floods: so many in a while, and the number of those that were left out (Linux: `ratelimit`).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// No interval has begun yet.
const NEVER: u64 = u64::MAX;

/// How much may be said. Waits for nobody, and may be asked in an NMI.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: u64,
    interval_ns: u64,
    /// When the interval began, …
    begun_ns: AtomicU64,
    /// … what was said in it, …
    said: AtomicU64,
    /// … and what was left out since something was said.
    left_out: AtomicU64,
}

impl RateLimit {
    /// At most `burst` in an interval of `interval_ns`, which begins when the first is said.
    pub(crate) const fn new(burst: u64, interval_ns: u64) -> Self {
        Self {
            burst,
            interval_ns,
            begun_ns: AtomicU64::new(NEVER),
            said: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether one more may be said at `now_ns`: then, how many were left out before.
    pub(crate) fn allows(&self, now_ns: u64) -> Option<u64> {
        let is_over = |begun: u64| {
            let end = begun.saturating_add(self.interval_ns);
            (begun == NEVER || end <= now_ns).then_some(now_ns)
        };
        if self
            .begun_ns
            .fetch_update(Relaxed, Relaxed, is_over)
            .is_ok()
        {
            self.said.store(0, Relaxed);
        }
        let one_more = |said: u64| (said < self.burst).then(|| said.saturating_add(1));
        match self.said.fetch_update(Relaxed, Relaxed, one_more) {
            Ok(_) => Some(self.left_out.swap(0, Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Relaxed);
                None
            }
        }
    }
}
