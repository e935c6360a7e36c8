//! Places for objects that a CPU has at hand. The type of a place's number says that there is such a place: nobody needs
//! to look.

use super::Object;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Numbers of places; nothing ever stands in the first.
const NUMBERS: u32 = 128;

/// The number of a place.
///
/// # Invariants
/// Less than [`NUMBERS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::slab) struct Top(u32);

impl Top {
    /// The last one.
    pub(in crate::slab) const LAST: Self = Self(NUMBERS - 1);

    /// That of the place so many below the last one, or the first.
    pub(in crate::slab) fn below_last(places: u32) -> Self {
        // INVARIANT: not more than the last.
        Self(Self::LAST.0.saturating_sub(places))
    }

    /// The number so many further on, or the last one.
    pub(in crate::slab) fn up(self, places: usize) -> Self {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        // INVARIANT: not more than the last.
        Self(self.0.saturating_add(places).min(Self::LAST.0))
    }

    /// The number so many further down, or `bottom`.
    pub(in crate::slab) fn down(self, places: usize, bottom: Self) -> Self {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        // INVARIANT: not more than one of the two.
        Self(self.0.saturating_sub(places).max(bottom.0))
    }

    /// How many places there are from `bottom` to here, without that one.
    #[inline(always)]
    pub(in crate::slab) const fn above(self, bottom: Self) -> u32 {
        self.0.saturating_sub(bottom.0)
    }

    #[inline(always)]
    const fn index(self) -> usize {
        index(self.0)
    }
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "widened")]
const fn index(number: u32) -> usize {
    number as usize
}

/// The number of the place of the newest object, for everybody to look at.
///
/// # Invariants
/// What is stored is a [`Top`].
#[derive(Debug)]
pub(in crate::slab) struct SharedTop(AtomicU32);

impl SharedTop {
    pub(in crate::slab) const fn new(top: Top) -> Self {
        Self(AtomicU32::new(top.0))
    }

    #[inline(always)]
    pub(in crate::slab) fn get(&self) -> Top {
        // INVARIANT: the one of `Self`.
        Top(self.0.load(Ordering::Acquire))
    }

    #[inline(always)]
    pub(in crate::slab) fn set(&self, top: Top) {
        self.0.store(top.0, Ordering::Release);
    }
}

/// The places.
///
/// # Invariants
/// The one with number 0 is empty.
#[derive(Debug)]
pub(in crate::slab) struct Places([Option<Object>; index(NUMBERS) + 1]);

impl Places {
    pub(in crate::slab) const fn new() -> Self {
        Self([const { None }; _])
    }

    /// Takes the newest object, if there is one and it is good; it stays if not.
    #[inline(always)]
    pub(in crate::slab) fn take(
        &mut self,
        top: &SharedTop,
        is_good: impl FnOnce(&mut Object) -> bool,
    ) -> Option<Object> {
        let at = top.get();
        // SAFETY: there are more places than a number can tell (the invariant of `Top`).
        let place = unsafe { self.0.get_unchecked_mut(at.index()) };
        let mut object = place.take()?;
        if !is_good(&mut object) {
            *place = Some(object);
            return None;
        }
        // INVARIANT: there was an object, so it is not 0. Read once more: that makes it one instruction.
        let below = top.0.load(Ordering::Relaxed).wrapping_sub(1);
        top.0.store(below, Ordering::Release);
        Some(object)
    }

    /// Puts an object above the newest.
    ///
    /// # Errors
    /// It, if there is no such place.
    #[inline(always)]
    pub(in crate::slab) fn put(&mut self, top: &SharedTop, object: Object) -> Result<(), Object> {
        let at = top.get();
        if at == Top::LAST {
            return Err(object);
        }
        // SAFETY: it is not the last place.
        let place = unsafe { self.0.get_unchecked_mut(at.index().wrapping_add(1)) };
        *place = Some(object);
        // INVARIANT: it was not the last.
        let above = top.0.load(Ordering::Relaxed).wrapping_add(1);
        top.0.store(above, Ordering::Release);
        Ok(())
    }

    /// The places from behind `bottom` to `top`.
    pub(in crate::slab) fn between(&mut self, bottom: Top, top: Top) -> &mut [Option<Object>] {
        let first = bottom.index().wrapping_add(1);
        self.0.get_mut(first..=top.index()).unwrap_or_default()
    }
}
