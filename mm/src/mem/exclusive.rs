//! Frames out of circulation: the token behind every block handle.

use core::ptr::NonNull;
use core::slice;

use super::poison;
use crate::addr::{Order, PfnRange, to_count, to_index};
use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use crate::platform::Platform;
use crate::report::Corruption;

/// A run of frames that belongs to whoever holds this value.
///
/// Only the frame table makes one; giving it back is how frames become free again. It does not
/// know its machine, so only the library, which never mixes machines, reaches memory by it;
/// others hold a [`Block`](crate::system::Block).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping the token leaks the frames: give it back to the frame table"]
pub struct Exclusive {
    frames: PfnRange,
}

impl Exclusive {
    /// Vouches for the frames.
    ///
    /// # Safety
    ///
    /// 1. No other `Exclusive` covers one of the frames, and no reference into them exists.
    /// 2. They are RAM that was given to the library.
    pub(crate) const unsafe fn new(frames: PfnRange) -> Self {
        Self { frames }
    }

    /// Which frames.
    #[must_use]
    pub const fn frames(&self) -> PfnRange {
        self.frames
    }

    /// The order of the block, if it is one: the largest that fits into the frames.
    #[inline]
    #[must_use]
    pub const fn order(&self) -> Order {
        Order::at_most(self.frames.frames(), Order::MAX)
    }

    /// Makes one token of two for neighbouring frames.
    ///
    /// # Errors
    /// Both, if the second does not start where the first ends.
    pub(crate) fn join(self, next: Self) -> Result<Self, (Self, Self)> {
        if self.frames.end() != next.frames.first() {
            return Err((self, next));
        }
        let (first, end) = (self.frames.first(), next.frames.end());
        Ok(Self {
            frames: PfnRange::from_numbers(first.as_u64(), end.as_u64()),
        })
    }

    /// Gives up ownership and says which frames they were: their records now say who has them.
    pub(crate) const fn leak(self) -> PfnRange {
        self.frames
    }

    /// Where the platform reaches the first byte, or `None` if it does not.
    #[must_use]
    pub(crate) fn as_ptr<P: Platform>(&self, platform: &P) -> Option<NonNull<u8>> {
        platform.direct_map(self.frames.addrs())
    }

    /// The bytes themselves. Context: any.
    #[must_use]
    pub(crate) fn bytes_mut<'a, P: Platform>(
        &'a mut self,
        platform: &'a P,
    ) -> Option<&'a mut [u8]> {
        let first = self.as_ptr(platform)?;
        let len = to_index(self.frames.frames().saturating_mul(PAGE_SIZE));
        // SAFETY: `Exclusive::new` (1) rules out other users and (2) says it is RAM, which the
        // platform reaches at `first` (Platform 1); the borrow of `self` bounds the reference.
        // RAM always holds some byte values, so reading them is defined.
        Some(unsafe { slice::from_raw_parts_mut(first.as_ptr(), len) })
    }

    /// The bytes, to be read. Context: any.
    #[must_use]
    pub(crate) fn bytes<'a, P: Platform>(&'a self, platform: &'a P) -> Option<&'a [u8]> {
        let first = self.as_ptr(platform)?;
        let len = to_index(self.frames.frames().saturating_mul(PAGE_SIZE));
        // SAFETY: as in `bytes_mut`, shared.
        Some(unsafe { slice::from_raw_parts(first.as_ptr(), len) })
    }

    /// Writes zeroes over everything. Context: any.
    pub(crate) fn zero<P: Platform>(&mut self, platform: &P) {
        self.fill(platform, 0);
    }

    /// Writes the pattern of free pages over everything. Context: any.
    pub(crate) fn poison<P: Platform>(&mut self, platform: &P) {
        self.fill(platform, poison::PAGE_FREE);
    }

    /// Apart from the paths that ask for it: next to a page of bytes a call costs nothing, and
    /// where nothing is filled, nothing is in the way.
    #[inline(never)]
    fn fill<P: Platform>(&mut self, platform: &P, byte: u8) {
        if let Some(bytes) = self.bytes_mut(platform) {
            bytes.fill(byte);
        }
    }

    /// Looks for the first byte that does not hold the pattern of free pages. Context: any.
    ///
    /// # Errors
    /// [`Corruption::Poison`] with the place and what stands there.
    pub(crate) fn check_poison<P: Platform>(&self, platform: &P) -> Result<(), Corruption> {
        let Some(bytes) = self.bytes(platform) else {
            return Ok(());
        };
        let Some(at) = bytes.iter().position(|&byte| byte != poison::PAGE_FREE) else {
            return Ok(());
        };
        let found = bytes.get(at).copied().unwrap_or_default();
        let at = to_count(at);
        Err(Corruption::Poison {
            pfn: self.frames.first().saturating_add(at >> PAGE_SHIFT),
            offset: u16::try_from(at & (PAGE_SIZE - 1)).unwrap_or_default(),
            expected: poison::PAGE_FREE,
            found,
        })
    }
}
