//! RAM before frames exist: claims and byte ranges.

use crate::addr::PhysRange;

/// The right to hand out RAM that the firmware reports: given once to the memblock of a machine.
#[derive(Debug)]
pub struct RamClaim(());

impl RamClaim {
    /// Makes the claim.
    ///
    /// # Safety
    ///
    /// 1. Every range that is later added as usable memory to the holder of this claim is RAM
    ///    that the platform's direct map reaches.
    /// 2. Until it is allocated from that holder, nobody uses such a range, except where it is
    ///    reserved there before the first allocation.
    /// 3. No other claim covers the same RAM on the same platform.
    /// 4. The holder's `free`, `cap_range` and `limit_memory` are not called for a range that an
    ///    [`EarlyRam`] covers: the token itself is given back.
    /// 5. The tokens made under this claim meet no other machine: they are given only to the
    ///    memblock, the memory and the platform of the machine whose RAM they are.
    /// 6. The platform's direct map outlives everything made under this claim.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// Turns a range into a token. Only memblock calls this: for a range it has just reserved, or one
    /// that it hands over.
    pub(crate) fn carve(&self, range: PhysRange) -> EarlyRam {
        EarlyRam { range }
    }
}

/// A byte range of RAM that belongs to whoever holds this value.
#[derive(Debug)]
#[must_use = "dropping the token leaks the range: give it back to memblock"]
pub struct EarlyRam {
    range: PhysRange,
}

impl EarlyRam {
    /// No bytes at all.
    pub(crate) const fn none() -> Self {
        let range = PhysRange::EMPTY;
        Self { range }
    }

    /// Bytes that whoever has them gives up, without a token.
    ///
    /// # Safety
    ///
    /// 1. They are the caller's: there is no other token for them, and nobody uses them.
    /// 2. They are RAM of the machine that the token is given to, which reaches them.
    pub(crate) const unsafe fn reserved(range: PhysRange) -> Self {
        Self { range }
    }

    /// The bytes of frames that stay with what is made in them, for good.
    pub(crate) fn from_block(block: super::Exclusive) -> Self {
        let range = block.leak().addrs();
        Self { range }
    }

    /// Which bytes.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// Cuts the range in two, `bytes` from its start (all of it if it is not that long).
    pub fn split_at(self, bytes: u64) -> (Self, Self) {
        let (start, end) = (self.range.start(), self.range.end());
        let cut = start.saturating_add(bytes).min(end);
        let low = PhysRange::from_size(start, cut.offset_from(start).unwrap_or_default());
        let high = PhysRange::from_size(cut, end.offset_from(cut).unwrap_or_default());
        (Self { range: low }, Self { range: high })
    }

    /// Makes one token of two for neighbouring ranges.
    ///
    /// # Errors
    /// Both, if the second does not start where the first ends.
    pub(crate) fn join(self, next: Self) -> Result<Self, (Self, Self)> {
        if self.range.end() != next.range.start() {
            return Err((self, next));
        }
        let range = PhysRange::new(self.range.start(), next.range.end());
        range.map(|range| Self { range }).ok_or((self, next))
    }

    /// Gives up ownership for good and says which bytes they were: for memory that is never
    /// given back, or whose owner is written down elsewhere.
    pub const fn leak(self) -> PhysRange {
        self.range
    }
}
