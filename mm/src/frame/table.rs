//! The frame table: `pfn → record`, and the only place that vouches for ownership of frames.
//!
//! Records come one 128 MiB section at a time ([`FrameTable::add_section`]) and are published
//! by one Release store; a section that was never added has no records, and every look-up says
//! so. A raw frame number is checked against limit and section before anything is read.
//!
//! The [`MemoryModel`](crate::platform::MemoryModel) decides where else than by its section a record is found: nowhere
//! (sparse), in one virtual array that the platform maps piece by piece (vmemmap), or in one array in the direct map
//! (flat). Hot paths look into that array, [`window`](FrameTable::glance), and need not ask for the section. Whatever is
//! not mapped there reads as zeros, the record of no block; and so may, for some time, what was mapped lately, until
//! the CPU forgets how it was before. Who finds no block there therefore looks once more by the section, where the
//! direct map never changes.

mod blocks;
mod cached;
mod claim;
mod held;
mod origin;
mod page_table;
mod run;
mod section;
mod slab;

use core::fmt;
use core::ptr::NonNull;
use core::slice;

pub(crate) use self::cached::{Offer, Record};
pub use self::claim::{FreeError, PutOutcome, Reference};
pub(crate) use self::held::HeldBlocks;
pub use self::origin::{Origin, Origins};
pub(crate) use self::page_table::TablePage;
pub use self::section::SectionFrames;
pub(crate) use self::slab::SlabFrame;
use super::{Frame, FrameState, Page};
use crate::addr::{Order, Pfn, PhysRange, VirtAddr, to_count, to_index};
use crate::config::{PAGE_SIZE, SECTION_FRAMES};
use crate::mem::{Array, CarveError, EarlyRam};
use crate::platform::{MapFrameTableError, MemoryModel, Platform};
use crate::sync::atomic::{AtomicPtr, Ordering};

/// Why a section's records could not be added.
#[derive(Debug)]
pub enum AddSectionError {
    /// The section lies above the table's limit.
    AboveLimit,
    /// The section has records already.
    Present,
    /// The memory for the records is too small, misaligned, or out of the platform's reach.
    BadMemory(PhysRange),
    /// The platform could not map the records.
    Map(MapFrameTableError),
}

/// A few records, as bits; aligned so that a CPU reads many bits at once.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Line([u64; 16]);

/// A page of records.
struct RecordPage([Line; to_index(PAGE_SIZE) / size_of::<Line>()]);

impl RecordPage {
    const ZERO: Self = Self([Line([0; 16]); to_index(PAGE_SIZE) / size_of::<Line>()]);

    fn is_zero(&self) -> bool {
        let mut found = [0_u64; 16];
        for line in &self.0 {
            for (found, word) in found.iter_mut().zip(line.0) {
                *found |= word;
            }
        }
        found.iter().fold(0, |all, word| all | word) == 0
    }
}

/// Pages of records in a section.
const RECORD_PAGES: usize = to_index(FrameTable::SECTION_BYTES / PAGE_SIZE);

/// Records of all frames of a machine.
#[derive(Debug)]
pub struct FrameTable {
    sections: &'static [AtomicPtr<Frame>],
    window: Window,
}

/// All records in a row, as far as they can be seen so.
#[derive(Clone, Copy)]
struct Window(&'static [Frame]);

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.0.len())
    }
}

impl FrameTable {
    /// A table without records.
    pub(crate) const EMPTY: Self = Self {
        sections: &[],
        window: Window(&[]),
    };

    /// Bytes that the records of one section take.
    pub const SECTION_BYTES: u64 = SECTION_FRAMES * to_count(size_of::<Frame>());

    /// Bytes that the table itself needs for frames below `limit`.
    #[must_use]
    pub fn bytes_for(limit: Pfn) -> u64 {
        Array::<AtomicPtr<Frame>>::bytes_for(Self::sections_below(limit)).unwrap_or(u64::MAX)
    }

    fn sections_below(limit: Pfn) -> usize {
        to_index(limit.as_u64().div_ceil(SECTION_FRAMES))
    }

    /// A table for frames below `limit`, without any section yet.
    ///
    /// # Errors
    /// [`CarveError`] if `ram` cannot hold it.
    pub(crate) fn carve<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        limit: Pfn,
    ) -> Result<Self, CarveError> {
        let absent = |_| AtomicPtr::new(core::ptr::null_mut());
        let sections = Array::carve(platform, ram, Self::sections_below(limit), absent)?;
        Ok(Self {
            sections: sections.leak(),
            window: Self::window_of(platform, limit),
        })
    }

    /// What the platform lets be read of its array.
    fn window_of<P: Platform>(platform: &P, limit: Pfn) -> Window {
        let base = platform.frame_table_base();
        let Some(base) = base.filter(|_| P::MODEL == MemoryModel::Vmemmap) else {
            return Window(&[]);
        };
        let record = to_count(size_of::<Frame>());
        let readable = to_index(platform.frame_table_readable().div_euclid(record));
        let frames = to_index(limit.as_u64()).min(readable);
        let first = core::ptr::with_exposed_provenance_mut(to_index(base.as_u64()));
        let first = NonNull::<Frame>::new(first).filter(|first| first.is_aligned());
        // SAFETY: the platform maps all of that for good, as zeros or as records (Platform 5 and 6): either is a
        // valid `Frame`, which is atomics only. It is written to only where a record said that it is one.
        let records = first.map(|first| unsafe { slice::from_raw_parts(first.as_ptr(), frames) });
        Window(records.unwrap_or_default())
    }

    /// Where the records of all sections were added in a row, they can be seen so.
    pub(crate) fn see_as_one(&mut self) {
        let mut next = None;
        let is_row = self.sections.iter().all(|place| {
            let records = place.load(Ordering::Acquire);
            let is_next = next.is_none_or(|next| next == records);
            next = Some(records.wrapping_add(to_index(SECTION_FRAMES)));
            is_next && !records.is_null()
        });
        let first = self.sections.first().filter(|_| is_row);
        if let Some(first) = first.and_then(|place| NonNull::new(place.load(Ordering::Acquire))) {
            let frames = to_index(self.limit().as_u64());
            // SAFETY: each section's records are initialised and live as long as the table, and they follow each other.
            self.window = Window(unsafe { slice::from_raw_parts(first.as_ptr(), frames) });
        }
    }

    /// The same table once more: whoever keeps it lives in the same `Memory`.
    pub(crate) const fn again(&self) -> Self {
        Self { ..*self }
    }

    /// The place of a section's records, if the section is below the limit.
    #[inline(always)]
    fn place(&self, section: u64) -> Option<&AtomicPtr<Frame>> {
        self.sections.get(to_index(section))
    }

    /// Adds records for a section, all zero. The memory stays with the table, and `tables`, where
    /// the platform maps records, with the platform. Context: boot, or with the lock that populating
    /// takes: one caller at a time.
    ///
    /// # Errors
    /// [`AddSectionError`]; the section then has no records.
    pub fn add_section<P: Platform>(
        &self,
        platform: &P,
        section: u64,
        ram: EarlyRam,
        tables: EarlyRam,
    ) -> Result<(), AddSectionError> {
        let slot = self.place(section).ok_or(AddSectionError::AboveLimit)?;
        if !slot.load(Ordering::Acquire).is_null() {
            return Err(AddSectionError::Present);
        }
        let range = ram.range();
        let in_direct_map = platform.direct_map(range);
        let Some(records) = in_direct_map.filter(|_| range.size() >= Self::SECTION_BYTES) else {
            return Err(AddSectionError::BadMemory(range));
        };
        let records = records.cast::<Frame>();
        if !records.cast::<RecordPage>().is_aligned() {
            return Err(AddSectionError::BadMemory(range));
        }
        // All-zero bytes are valid records: a `Frame` is atomics only.
        if !platform.is_zeroed(range) {
            let pages = records.cast::<[RecordPage; RECORD_PAGES]>();
            // SAFETY: the token makes the RAM ours alone, the platform reaches all of it
            // (Platform 1), it is large enough and aligned, and RAM always holds some byte values.
            for page in unsafe { &mut *pages.as_ptr() } {
                // A page that is zero is only read: a hypervisor need not back it then.
                if !page.is_zero() {
                    *page = RecordPage::ZERO;
                }
            }
        }
        if P::MODEL == MemoryModel::Vmemmap {
            Self::map_section(platform, section, range, tables)?;
        }
        let _ = ram.leak();
        slot.store(records.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Maps a section's records to their place in the virtual array.
    fn map_section<P: Platform>(
        platform: &P,
        section: u64,
        ram: PhysRange,
        tables: EarlyRam,
    ) -> Result<(), AddSectionError> {
        let unsupported = AddSectionError::Map(MapFrameTableError::Unsupported);
        let offset = section.checked_mul(Self::SECTION_BYTES);
        let base = platform.frame_table_base();
        let at = base
            .zip(offset)
            .and_then(|(base, offset)| base.checked_add(offset))
            .ok_or(unsupported)?;
        platform
            .map_frame_table(at, ram, tables.leak())
            .map_err(AddSectionError::Map)
    }

    /// The first frame number above every section that can be added.
    #[must_use]
    pub fn limit(&self) -> Pfn {
        Pfn::new(to_count(self.sections.len()).saturating_mul(SECTION_FRAMES))
    }

    /// Where the pointers to sections' records are, and how many there are.
    pub(crate) fn pointers(&self) -> (VirtAddr, u64) {
        let first = VirtAddr::from_ptr(self.sections.as_ptr());
        (first, to_count(self.sections.len()))
    }

    /// The records of a section, if it was added. Context: any.
    #[inline]
    #[must_use]
    pub(crate) fn section(&self, section: u64) -> Option<SectionFrames> {
        let records = self.place(section)?.load(Ordering::Acquire);
        // SAFETY: only `add_section` stores here, and only pointers to a whole section of
        // initialised records that live as long as the table.
        NonNull::new(records).map(|records| unsafe { SectionFrames::new(section, records.cast()) })
    }

    /// The record of a frame, if its section was added (Linux: `pfn_to_online_page`). Context: any.
    #[inline]
    #[must_use]
    pub fn frame(&self, pfn: Pfn) -> Option<&Frame> {
        let records = self.place(pfn.section())?.load(Ordering::Acquire);
        let records = NonNull::new(records)?;
        // SAFETY: as in `section`; the offset is below the section's size.
        let record = unsafe { records.add(to_index(pfn.section_offset())) };
        // SAFETY: records are initialised and live as long as the table.
        Some(unsafe { record.as_ref() })
    }

    /// The same by one shift where the memory model allows that, for hot paths; what it says may be nothing yet where a
    /// section was added lately. Context: any.
    #[inline(always)]
    fn glance<P: Platform>(&self, pfn: Pfn) -> Option<&Frame> {
        if P::MODEL == MemoryModel::Sparse {
            return self.frame(pfn);
        }
        match self.window.0.get(to_index(pfn.as_u64())) {
            Some(frame) => Some(frame),
            None => self.frame_outside(pfn),
        }
    }

    #[cold]
    #[inline(never)]
    fn frame_outside(&self, pfn: Pfn) -> Option<&Frame> {
        self.frame(pfn)
    }

    /// A frame and its record (Linux: `pfn_to_page`). Context: any.
    #[inline]
    #[must_use]
    pub fn page(&self, pfn: Pfn) -> Option<Page<'_>> {
        self.frame(pfn).map(|frame| Page::new(pfn, frame))
    }

    /// The first frame of the block that `pfn` belongs to (Linux: `compound_head`, but for any
    /// block), or `None` for a hole. Looks at eleven records at most. Context: any; the answer
    /// is stable only while the block is.
    #[must_use]
    pub fn head(&self, pfn: Pfn) -> Option<Page<'_>> {
        Order::all().find_map(|order| {
            let page = self.page(pfn.align_down(order))?;
            let word = page.frame().word();
            let starts_block = !word.is(FrameState::Interior) && word.order() >= order;
            starts_block.then_some(page)
        })
    }

    /// Whether code of users has no business with a frame: it is of a slab or a page table, or reserved. Looks at
    /// eleven records at most. Context: any; the answer is stable only while the block is.
    pub(crate) fn is_kernel_owned(&self, pfn: Pfn) -> bool {
        self.head(pfn).is_some_and(|page| {
            let word = page.frame().word();
            word.is_slab() || word.is_table() || word.is(FrameState::Reserved)
        })
    }

    /// The frame behind a direct-map address (Linux: `virt_to_page`). Context: any.
    #[must_use]
    pub fn virt_to_page<P: Platform>(&self, platform: &P, addr: VirtAddr) -> Option<Page<'_>> {
        self.page(platform.virt_to_phys(addr)?.frame())
    }
}
