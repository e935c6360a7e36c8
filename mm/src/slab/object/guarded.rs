//! Bytes around objects of debugged caches, and those of objects that nobody owns.

use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use super::{BadLink, END, Object, SlabMemory};
use crate::slab::debug::{Bits, Inside, Layout, Outside, Word, Wrong};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes of an object's place.
///
/// # Safety
///
/// `range` lies within the place at `first`, and nobody else uses these bytes while the answer lives.
unsafe fn bytes<'a>(first: NonNull<u8>, range: Range<usize>) -> &'a mut [u8] {
    // SAFETY: within the place.
    let start = unsafe { first.add(range.start) };
    // SAFETY: the caller's word; RAM always holds some values.
    unsafe { slice::from_raw_parts_mut(start.as_ptr(), range.len()) }
}

impl SlabMemory {
    /// The place of an object of a debugged cache; nothing for others, whose objects have nothing around
    /// them.
    fn place(&self, number: u16) -> Option<NonNull<u8>> {
        self.at(number).filter(|_| self.shape.is_guarded())
    }

    /// What of a part that no owner may use is not `expected`.
    pub(in crate::slab) fn look(&self, number: u16, part: &Outside, expected: u8) -> Option<Wrong> {
        let place = self.place(number)?;
        let range = part.range();
        // SAFETY: within the place, and no owner's (`Outside`); the lock is held (`new`, 2).
        let found = unsafe { bytes(place, range.clone()) };
        Wrong::find(found, range.start, expected)
    }

    /// Fills a part that no owner may use.
    pub(in crate::slab) fn fill(&self, number: u16, part: &Outside, byte: u8) {
        if let Some(place) = self.place(number) {
            // SAFETY: as in `look`.
            unsafe { bytes(place, part.range()) }.fill(byte);
        }
    }

    /// What of an object that nobody owns is not `expected`. Context: it is on the list of free ones, or on its way
    /// to or from there.
    pub(in crate::slab) fn look_inside(
        &self,
        number: u16,
        part: &Inside,
        expected: u8,
    ) -> Option<Wrong> {
        let place = self.place(number)?;
        let range = part.range();
        // SAFETY: within the place (`Inside`), and nobody owns the object; the lock is held.
        let found = unsafe { bytes(place, range.clone()) };
        Wrong::find(found, range.start, expected)
    }

    /// Fills an object that nobody owns. Context: as [`Self::look_inside`].
    pub(in crate::slab) fn fill_inside(&self, number: u16, part: &Inside, byte: u8) {
        if let Some(place) = self.place(number) {
            // SAFETY: as in `look_inside`.
            unsafe { bytes(place, part.range()) }.fill(byte);
        }
    }

    /// A word behind an object.
    fn word_at(&self, number: u16, word: Word) -> Option<&AtomicU64> {
        let place = self.place(number)?;
        // SAFETY: within the place, aligned (`Layout`), and no owner's.
        let at = unsafe { place.add(word.at()) };
        // SAFETY: as above; used as an atomic only.
        Some(unsafe { at.cast::<AtomicU64>().as_ref() })
    }

    pub(in crate::slab) fn word(&self, number: u16, word: Word) -> u64 {
        let found = self.word_at(number, word);
        found.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    pub(in crate::slab) fn set_word(&self, number: u16, word: Word, value: u64) {
        if let Some(word) = self.word_at(number, word) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The objects on the list that starts with `first`.
    pub(in crate::slab) fn listed(&self, first: u16) -> Result<Bits, BadLink> {
        let (mut found, mut next) = (Bits::NONE, first);
        while next != END {
            let bad = BadLink { object: next };
            // Only looked at: the list keeps it.
            let object = Object(self.at(next).ok_or(bad)?);
            if !found.insert(next) {
                return Err(bad);
            }
            next = self.code.read(&object, &self.shape).ok_or(bad)?;
        }
        Ok(found)
    }

    /// Makes a list of objects that nobody owns; answers the first.
    pub(in crate::slab) fn relink(&self, objects: &Bits) -> u16 {
        let mut first = END;
        for number in (0..self.shape.objects()).rev() {
            let place = self.place(number).filter(|_| objects.contains(number));
            if let Some(place) = place {
                // INVARIANT: the caller's word; the link is not the owner's anyway (`Layout`).
                self.code.write(&mut Object(place), &self.shape, first);
                first = number;
            }
        }
        first
    }

    /// The number of the object whose owner has this address.
    pub(in crate::slab) fn owners_number(
        &self,
        owners: NonNull<u8>,
        layout: &Layout,
    ) -> Option<u16> {
        let offset = owners.addr().get().wrapping_sub(self.base.addr().get());
        self.shape.number(offset.checked_sub(layout.left())?)
    }

    /// What lists know an object by, …
    pub(in crate::slab) fn take_back(&self, owners: Object, number: u16) -> Option<Object> {
        let _ = owners;
        // INVARIANT: its number, and the value is consumed.
        self.place(number).map(Object)
    }
}

impl Object {
    /// … and what its owner does.
    pub(in crate::slab) fn hand_out(self, layout: &Layout) -> Self {
        // SAFETY: within the place (`Layout`). INVARIANT: the value is consumed.
        Self(unsafe { self.0.add(layout.left()) })
    }
}
