//! A list of blocks that is kept in pages itself, so that it can hold as many as memory has.
#![expect(
    unsafe_code,
    reason = "turns the frame numbers that it stores back into blocks"
)]

use super::{Kernel, Pages};
use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::FreeError;
use mm::system::AllocError;

const ENTRY_BYTES: usize = 16;
const ORDER_SHIFT: u32 = 56;

/// Blocks with a serial number each.
///
/// # Invariants
/// The first `len` entries are the numbers of blocks that belong to the ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    storage: Pages,
    len: usize,
}

/// A block that was taken out of a ledger.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pages: Pages,
    pub(super) serial: u64,
}

impl Ledger {
    /// An empty ledger with room for `entries` blocks, or as many as the largest block of pages holds.
    pub(super) fn new(entries: usize) -> Result<Self, AllocError> {
        let bytes = crate::num::to_u64(entries.saturating_mul(ENTRY_BYTES));
        let wanted = Order::for_bytes(bytes).unwrap_or(Order::MAX);
        let storage = Pages::alloc(Kernel, Gfp::KERNEL, wanted)?;
        Ok(Self { storage, len: 0 })
    }

    /// How many blocks there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether no further block fits.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.storage.bytes().len().wrapping_div(ENTRY_BYTES)
    }

    /// Keeps a block; a full ledger gives it back.
    pub(super) fn push(&mut self, pages: Pages, serial: u64) -> Result<(), Pages> {
        let order = u64::from(pages.order().as_u8());
        let len = self.len;
        let Some(entry) = self.entry(len) else {
            return Err(pages);
        };
        let (place, number) = entry.split_at_mut(8);
        // INVARIANT: the handle is given up for its number, which stands in the next entry.
        let packed = pages.into_raw().as_u64() | order << ORDER_SHIFT;
        place.copy_from_slice(&packed.to_le_bytes());
        number.copy_from_slice(&serial.to_le_bytes());
        self.len = len.saturating_add(1);
        Ok(())
    }

    /// Takes out the block at `index`; the last one takes its place.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<Result<Entry, (Pfn, FreeError)>> {
        let last = self.len.checked_sub(1).filter(|&last| index <= last)?;
        let (packed, serial) = self.read(index)?;
        let moved = self.read(last)?;
        let entry = self.entry(index)?;
        let (place, number) = entry.split_at_mut(8);
        place.copy_from_slice(&moved.0.to_le_bytes());
        number.copy_from_slice(&moved.1.to_le_bytes());
        self.len = last;

        let pfn = Pfn::new(packed & ((1 << ORDER_SHIFT) - 1));
        let order = Order::new(crate::num::low_byte(packed >> ORDER_SHIFT)).unwrap_or_default();
        // SAFETY: the number was stored for a block that was given up to it, and has just been
        // struck off the list.
        let pages = unsafe { Pages::from_raw(Kernel, pfn, order) };
        Some(match pages {
            Ok(pages) => Ok(Entry { pages, serial }),
            Err(error) => Err((pfn, error)),
        })
    }

    fn read(&mut self, index: usize) -> Option<(u64, u64)> {
        let (place, number) = self.entry(index)?.split_at_mut(8);
        Some((
            u64::from_le_bytes(place.try_into().ok()?),
            u64::from_le_bytes(number.try_into().ok()?),
        ))
    }

    fn entry(&mut self, index: usize) -> Option<&mut [u8]> {
        let start = index.checked_mul(ENTRY_BYTES)?;
        self.storage
            .bytes_mut()
            .get_mut(start..start.checked_add(ENTRY_BYTES)?)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        while let Some(entry) = self.swap_remove(0) {
            drop(entry);
        }
    }
}
