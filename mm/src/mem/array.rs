//! Arrays whose length is known at run time only, in RAM from early allocation.

use core::fmt;
use core::mem::{align_of, needs_drop, offset_of, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use super::EarlyRam;
use crate::addr::{PhysRange, field, to_count, to_index};
use crate::platform::Platform;

/// Why memory could not become an [`Array`]; the token is lost with it only if the platform
/// cannot reach it at all.
#[derive(Debug)]
pub enum CarveError {
    /// The platform's direct map does not reach the range.
    Unreachable(PhysRange),
    /// The range is smaller than the elements need, or not aligned for them.
    Misfit {
        /// The memory, unchanged.
        ram: EarlyRam,
        /// Bytes needed.
        needed: u64,
    },
}

/// A fixed array of `T` in RAM that early allocation handed out; it owns that RAM.
///
/// # Invariants
/// `first` points at `len` initialised elements that nobody else refers to, inside `range`.
pub struct Array<T: 'static> {
    first: NonNull<T>,
    len: usize,
    range: PhysRange,
}

// SAFETY: an `Array` owns its elements like a `Box<[T]>` does.
unsafe impl<T: Send> Send for Array<T> {}
// SAFETY: sharing an `Array` shares its elements and nothing else.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T: 'static> Array<T> {
    /// Bytes that `len` elements need, or `None` if that overflows.
    #[must_use]
    pub fn bytes_for(len: usize) -> Option<u64> {
        size_of::<T>().checked_mul(len).map(to_count)
    }

    /// Where its pointer and its length are, for [`Rows`](crate::addr::Rows).
    pub(crate) const FIELDS: [u16; 8] = {
        let pointer = field(offset_of!(Self, first));
        [pointer, field(offset_of!(Self, len)), 0, 0, 0, 0, 0, 0]
    };

    /// An array without elements, which needs no memory.
    #[must_use]
    pub const fn empty() -> Self {
        // INVARIANT: no elements; the dangling pointer is never read.
        Self {
            first: NonNull::dangling(),
            len: 0,
            range: PhysRange::from_size(crate::addr::PhysAddr::ZERO, 0),
        }
    }

    /// Puts `len` elements, made by `init` from their index, into `ram`. Context: boot or task.
    ///
    /// # Errors
    /// [`CarveError`] if the memory cannot hold them; nothing is written then.
    pub fn carve<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        len: usize,
        mut init: impl FnMut(usize) -> T,
    ) -> Result<Self, CarveError> {
        const { assert!(!needs_drop::<T>(), "elements are forgotten, not dropped") };
        let range = ram.range();
        let Some(base) = platform.direct_map(range) else {
            return Err(CarveError::Unreachable(range));
        };
        let first = base.cast::<T>();
        let needed = Self::bytes_for(len).unwrap_or(u64::MAX);
        if needed > range.size() || first.addr().get() & align_of::<T>().saturating_sub(1) != 0 {
            return Err(CarveError::Misfit { ram, needed });
        }
        for index in 0..len {
            // SAFETY: `index < len` and `len` elements fit into the range (checked above).
            let slot = unsafe { first.add(index) };
            // SAFETY: the token makes us the range's only user, the platform's word (Platform 1)
            // makes it writable RAM, and alignment was checked.
            unsafe { slot.write(init(index)) };
        }
        // INVARIANT: all `len` elements were written, and the token was consumed.
        Ok(Self {
            first,
            len,
            range: ram.leak(),
        })
    }

    /// The bytes the array lives in.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// The elements, for good: the memory never comes back. Whoever keeps them lives in the same
    /// `Memory` as what made the array.
    pub(crate) const fn leak(self) -> &'static [T] {
        // SAFETY: `Array`'s invariant; the value is consumed, so nobody gets at the elements to
        // change them, or at the memory.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }

    /// Gives the memory back as a token; the elements are forgotten.
    pub fn into_ram(self) -> EarlyRam {
        // SAFETY: this value owned the range and is consumed, so the token is the only one.
        let claim = unsafe { super::RamClaim::new() };
        claim.carve(self.range)
    }

    /// The element behind a 64-bit index.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<&T> {
        self.get(to_index(index))
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `Array`'s invariant.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Array<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `Array`'s invariant; `&mut self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("range", &self.range)
            .field("len", &self.len)
            .finish()
    }
}
