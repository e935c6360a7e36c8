//! Lossless conversions between `usize` and `u64`.
//!
//! The kernel runs on x86_64 only, where both are eight bytes; on any other width these do not
//! compile, which is the point: there is no truncating `as` anywhere in the kernel.

/// Widens (here: keeps) a `usize`.
#[must_use]
pub(crate) const fn to_u64(value: usize) -> u64 {
    u64::from_ne_bytes(value.to_ne_bytes())
}

/// Narrows (here: keeps) a `u64`.
#[must_use]
pub(crate) const fn to_usize(value: u64) -> usize {
    usize::from_ne_bytes(value.to_ne_bytes())
}

/// Takes the lowest byte.
#[must_use]
pub(crate) const fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}
