//! Reading what a loader left in physical memory, without trusting a word of it.
//!
//! [`PhysMemory`] hands out bounded byte slices; the field readers return `None` instead of
//! reading past an end. Everything that parses is written over these two, and so is total.

use core::slice;

/// Physical memory that can be read where it exists.
pub trait PhysMemory {
    /// Returns `length` bytes at physical address `at`, or `None` if any of them is out of reach.
    fn bytes(&self, at: u64, length: u64) -> Option<&[u8]>;
}

/// A piece of physical memory held in a slice: for tests and for tools.
#[derive(Debug, Clone, Copy)]
pub struct SliceMemory<'a> {
    base: u64,
    bytes: &'a [u8],
}

impl<'a> SliceMemory<'a> {
    /// Creates memory whose first byte has the physical address `base`.
    #[must_use]
    pub const fn new(base: u64, bytes: &'a [u8]) -> Self {
        Self { base, bytes }
    }
}

impl PhysMemory for SliceMemory<'_> {
    fn bytes(&self, at: u64, length: u64) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.base)?).ok()?;
        let to = from.checked_add(usize::try_from(length).ok()?)?;
        self.bytes.get(from..to)
    }
}

/// The identity-mapped first 4 GiB, as the entry code leaves them.
#[derive(Debug)]
pub(crate) struct IdentityMemory(());

/// The end of the identity map.
pub(crate) const IDENTITY_END: u64 = 1 << 32;

impl IdentityMemory {
    /// Creates the reader.
    ///
    /// # Safety
    ///
    /// 1. The first 4 GiB of physical memory are mapped at virtual address 0, and stay so while
    ///    the value lives.
    /// 2. While a returned slice lives, nothing writes to what it covers.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }
}

impl PhysMemory for IdentityMemory {
    fn bytes(&self, at: u64, length: u64) -> Option<&[u8]> {
        let end = at.checked_add(length)?;
        // No loader puts anything at address 0, and no slice may start there.
        if at == 0 || end > IDENTITY_END {
            return None;
        }
        let pointer = core::ptr::with_exposed_provenance(usize::try_from(at).ok()?);
        let length = usize::try_from(length).ok()?;
        // SAFETY: the range is not null, lies in the identity map (1), and nobody writes to it
        // while the slice lives (2); any byte is a valid `u8`.
        Some(unsafe { slice::from_raw_parts(pointer, length) })
    }
}

/// Reads a little-endian `u16` at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// Reads a little-endian `u32` at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// Reads a little-endian `u64` at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::{PhysMemory, SliceMemory, u16_at, u32_at, u64_at};

    #[test]
    fn a_slice_is_readable_exactly_where_it_lies() {
        let memory = SliceMemory::new(0x1000, &[1, 2, 3, 4]);
        assert_eq!(memory.bytes(0x1000, 4), Some(&[1, 2, 3, 4][..]));
        assert_eq!(memory.bytes(0x1004, 0), Some(&[][..]));
        for (at, length) in [
            (0xfff, 1),
            (0x1000, 5),
            (0x1005, 0),
            (u64::MAX, 1),
            (0x1001, u64::MAX),
        ] {
            assert_eq!(memory.bytes(at, length), None);
        }
    }

    #[test]
    fn fields_past_the_end_are_none() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(u64_at(&bytes, 0), Some(1));
        assert_eq!(u64_at(&bytes, 1), None);
        assert_eq!(u32_at(&bytes, 4), Some(0));
        assert_eq!(u32_at(&bytes, 5), None);
        assert_eq!(u16_at(&bytes, 7), None);
        assert_eq!(u16_at(&bytes, usize::MAX), None);
    }
}
