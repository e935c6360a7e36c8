//! The kernel log: the `log` crate's records, timed, on the terminal and in a ring for `dmesg`.

use crate::arch::lock::IrqLock;
use crate::arch::time;
use crate::console;
use crate::logring::Ring;
use core::fmt::{self, Write};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Bytes of log kept for `dmesg`.
const RING_BYTES: usize = 64 * 1024;
/// How much of the ring is copied out under its lock at once.
const CHUNK_BYTES: usize = 256;

static LOGGER: Logger = Logger {
    ring: IrqLock::new(Ring::new()),
};

struct Logger {
    ring: IrqLock<Ring<RING_BYTES>>,
}

/// The time since boot as the log shows it: `[    0.012345]`.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Nanoseconds since boot.
    pub ns: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.ns.checked_div(1_000).unwrap_or(0);
        let seconds = micros.checked_div(1_000_000).unwrap_or(0);
        let rest = micros.checked_rem(1_000_000).unwrap_or(0);
        write!(f, "[{seconds:>5}.{rest:06}]")
    }
}

/// One line of the log.
struct Line<'a, 'b> {
    stamp: Stamp,
    record: &'a Record<'b>,
}

impl fmt::Display for Line<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ordinary lines carry no level, as in Linux's log; what needs attention says so.
        let mark = match self.record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        writeln!(f, "{} {mark}{}", self.stamp, self.record.args())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = Line {
            stamp: Stamp { ns: time::now_ns() },
            record,
        };
        // The ring never fails; where its lock is held by the code that was interrupted, the
        // line is for the terminal only rather than a deadlock. Another CPU is waited for.
        if let Some(mut ring) = self.ring.lock_unless_mine() {
            let _ = write!(ring, "{line}");
        }
        console::print(format_args!("{line}"));
    }

    fn flush(&self) {}
}

/// Installs the logger.
pub(crate) fn init(level: LevelFilter) {
    // Fails only when a logger is installed already, and then ours is it.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// Adds text to the ring without printing it: for reports that print by themselves.
pub(crate) fn remember(text: fmt::Arguments<'_>) {
    if let Some(mut ring) = LOGGER.ring.try_lock() {
        let _ = ring.write_fmt(text);
    }
}

/// Writes the log since boot, or what the ring still has of it, oldest line first.
///
/// # Errors
///
/// `out` failed.
pub fn dump(out: &mut dyn Write) -> fmt::Result {
    let mut position = LOGGER.ring.lock().oldest();
    loop {
        // Copied piece by piece: printing takes long, and the log must go on meanwhile.
        let mut chunk = [0; CHUNK_BYTES];
        let (length, next) = LOGGER.ring.lock().read(position, &mut chunk);
        if length == 0 {
            return Ok(());
        }
        for piece in chunk.get(..length).unwrap_or_default().utf8_chunks() {
            out.write_str(piece.valid())?;
        }
        position = next;
    }
}
