//! A ring of bytes that keeps the newest text and forgets whole lines.

use core::fmt;

/// The last `BYTES` bytes of a text.
///
/// # Invariants
///
/// 1. `end - start <= BYTES`; both only grow. The byte of position `p` is `bytes[p % BYTES]`.
/// 2. `start` is the beginning of a line, unless a single line is longer than the ring.
#[derive(Debug)]
pub(crate) struct Ring<const BYTES: usize> {
    bytes: [u8; BYTES],
    start: u64,
    end: u64,
}

impl<const BYTES: usize> Ring<BYTES> {
    /// Empty.
    #[must_use]
    pub(crate) const fn new() -> Self {
        const { assert!(BYTES > 0, "a ring holds something") };
        Self {
            bytes: [0; BYTES],
            start: 0,
            end: 0,
        }
    }

    /// Position of the oldest byte kept.
    #[must_use]
    pub(crate) const fn oldest(&self) -> u64 {
        self.start
    }

    /// Copies bytes from `position` (or the oldest, if that is gone); returns how many and the
    /// position after them. Zero bytes means that there are no more.
    pub(crate) fn read(&self, position: u64, out: &mut [u8]) -> (usize, u64) {
        let mut position = position.max(self.start);
        let mut length: usize = 0;
        for slot in out {
            let Some(byte) = self.at(position) else { break };
            *slot = byte;
            position = position.saturating_add(1);
            length = length.saturating_add(1);
        }
        (length, position)
    }

    /// Appends bytes, forgetting the oldest lines where room is needed.
    pub(crate) fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if self.len() == BYTES {
                self.forget_line();
            }
            let index = Self::index(self.end);
            if let Some(slot) = self.bytes.get_mut(index) {
                *slot = byte;
            }
            self.end = self.end.saturating_add(1);
        }
    }

    fn len(&self) -> usize {
        crate::num::to_usize(self.end.saturating_sub(self.start))
    }

    fn forget_line(&mut self) {
        while let Some(byte) = self.at(self.start) {
            self.start = self.start.saturating_add(1);
            if byte == b'\n' {
                break;
            }
        }
    }

    fn at(&self, position: u64) -> Option<u8> {
        if position < self.start || position >= self.end {
            return None;
        }
        self.bytes.get(Self::index(position)).copied()
    }

    fn index(position: u64) -> usize {
        crate::num::to_usize(position)
            .checked_rem(BYTES)
            .unwrap_or(0)
    }
}

impl<const BYTES: usize> Default for Ring<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize> fmt::Write for Ring<BYTES> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}
