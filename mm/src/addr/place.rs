//! Where a value is in memory, for who looks at it from outside.
#![forbid(unsafe_code)]

use super::{VirtAddr, to_count};

/// A value with a name, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Where it starts.
    pub(crate) at: VirtAddr,
    /// How long it is.
    pub(crate) bytes: u64,
}

impl Place {
    /// That of `value`.
    pub(crate) fn of<T>(name: &'static str, value: &T) -> Self {
        Self {
            name,
            at: VirtAddr::from_ptr(value),
            bytes: to_count(size_of::<T>()),
        }
    }
}

/// Rows of values in memory, alike: of each, the fields start after so many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rows {
    /// Where the first is.
    pub(crate) at: VirtAddr,
    /// How many there are.
    pub(crate) count: u64,
    /// Bytes from one to the next.
    pub(crate) stride: u64,
    /// Where in each its fields are; which ones, whoever makes this says.
    pub(crate) fields: [u16; 8],
}

impl Rows {
    /// Offsets in a word each for four fields.
    pub(crate) fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h] = self.fields;
        [[a, b, c, d], [e, f, g, h]].map(|four| {
            let mut word = 0;
            for field in four.into_iter().rev() {
                word = word << 16 | u64::from(field);
            }
            word
        })
    }
}

/// The offset of a field, for [`Rows::fields`]: none is that far from the start of its struct.
pub(crate) const fn field(offset: usize) -> u16 {
    assert!(offset <= 0xffff, "a field that far is not to be named");
    let [low, high, ..] = offset.to_le_bytes();
    u16::from_le_bytes([low, high])
}
