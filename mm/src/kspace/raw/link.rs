//! Which area stands somewhere: one word.

use core::ptr::{from_ref, null_mut};

use crate::kspace::Area;
use crate::sync::atomic::{AtomicPtr, Ordering};

/// An area, or none. Records of areas live as long as the [`Memory`](crate::system::Memory) that they are part of, and the
/// link with them: so whoever finds one here may look at it.
///
/// # Invariants
/// Null, or made from a `&'static Area`.
#[derive(Debug, Default)]
pub(crate) struct Link(AtomicPtr<Area>);

/// The word for an area.
fn word(area: Option<&'static Area>) -> *mut Area {
    area.map_or(null_mut(), |area| from_ref(area).cast_mut())
}

/// The area that a word stands for.
///
/// # Safety
///
/// The word is null, or was made from a `&'static Area`.
unsafe fn area(word: *mut Area) -> Option<&'static Area> {
    // SAFETY: the caller's word; the fields are atomics, or do not change.
    unsafe { word.as_ref() }
}

impl Link {
    /// Which area stands here; what was written to its record before it was put here is visible then.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static Area> {
        // SAFETY: the invariant.
        unsafe { area(self.0.load(Ordering::Acquire)) }
    }

    /// Puts an area here, or none.
    #[inline]
    pub(crate) fn set(&self, area: Option<&'static Area>) {
        // INVARIANT: a static reference.
        self.0.store(word(area), Ordering::Release);
    }

    /// Puts none here, and answers which one stood here.
    pub(crate) fn take(&self) -> Option<&'static Area> {
        // INVARIANT: null.
        let found = self.0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: the invariant.
        unsafe { area(found) }
    }

    /// Puts an area in front of those that are linked from here on: what is written to its record is visible to whoever
    /// [takes](Self::take) them. Context: any; many at a time.
    #[inline]
    pub(crate) fn push(&self, new: &'static Area) {
        let mut newest = self.0.load(Ordering::Relaxed);
        loop {
            // INVARIANT: it stood in a link.
            new.next.0.store(newest, Ordering::Relaxed);
            let (set, seen) = (Ordering::Release, Ordering::Relaxed);
            // INVARIANT: a static reference. Whoever stood here and was taken meanwhile may stand here again: its own
            // successor is looked at by nobody, so this is no harm.
            match (self.0).compare_exchange_weak(newest, word(Some(new)), set, seen) {
                Ok(_) => return,
                Err(now) => newest = now,
            }
        }
    }
}
