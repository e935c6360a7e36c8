//! The traits of the `x86_64` crate on this memory: for kernels that are written against those.

use core::fmt;

use x86_64::structures::paging::mapper::{
    FlagUpdateError, MapToError, MappedFrame, Mapper, MapperFlush, MapperFlushAll, Translate,
    TranslateError, TranslateResult, UnmapError,
};
use x86_64::structures::paging::page::PageSize as SizeOf;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Page, PageTableFlags, PhysFrame, Size2MiB, Size4KiB,
};

use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::buddy::Gfp;
use crate::pagetable::{
    Attributes, Cache, Change, ChangeError, Leaf, MapError, PageSize, PageTable, Protection,
};
use crate::platform::Platform;
use crate::system::Memory;

/// Frames of a memory, by the traits of the `x86_64` crate: of 4 KiB and of 2 MiB. Frames of 1 GiB are larger than the largest block.
pub struct X86Frames<'m, P: Platform> {
    memory: &'m Memory<P>,
    gfp: Gfp,
}

impl<'m, P: Platform> X86Frames<'m, P> {
    /// Frames are asked for with `gfp`. Context: any.
    #[must_use]
    pub const fn new(memory: &'m Memory<P>, gfp: Gfp) -> Self {
        Self { memory, gfp }
    }

    fn take<S: SizeOf>(&self, order: Order) -> Option<PhysFrame<S>> {
        let pfn = self.memory.alloc_pages(self.gfp, order).ok()?;
        PhysFrame::from_start_address(phys(pfn)?).ok()
    }

    /// # Safety
    /// As [`Memory::free_pages`].
    unsafe fn give<S: SizeOf>(&self, frame: PhysFrame<S>, order: Order) {
        // SAFETY: the caller's word.
        let given = unsafe { self.memory.free_pages(pfn_of(frame), order) };
        debug_assert!(given.is_ok(), "{given:?}");
    }
}

impl<P: Platform> fmt::Debug for X86Frames<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X86Frames")
            .field("gfp", &self.gfp)
            .finish_non_exhaustive()
    }
}

// SAFETY: a block that was allocated is nobody else's.
unsafe impl<P: Platform> FrameAllocator<Size4KiB> for X86Frames<'_, P> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        self.take(Order::ZERO)
    }
}

// SAFETY: as above.
unsafe impl<P: Platform> FrameAllocator<Size2MiB> for X86Frames<'_, P> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size2MiB>> {
        self.take(Order::PAGEBLOCK)
    }
}

impl<P: Platform> FrameDeallocator<Size4KiB> for X86Frames<'_, P> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<Size4KiB>) {
        // SAFETY: the caller's word.
        unsafe { self.give(frame, Order::ZERO) };
    }
}

impl<P: Platform> FrameDeallocator<Size2MiB> for X86Frames<'_, P> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<Size2MiB>) {
        // SAFETY: the caller's word.
        unsafe { self.give(frame, Order::PAGEBLOCK) };
    }
}

/// Page tables of this memory by the traits [`Mapper`], for pages of each size, and [`Translate`]. A kernel on a stable compiler names
/// the crate itself with `default-features = false`.
///
/// ```ignore
/// // SAFETY: only this code changes what lies there.
/// let mut mapper = unsafe { X86Mapper::new(&MEMORY, tables) };
/// let mut frames = X86Frames::new(&MEMORY, Gfp::KERNEL);
/// let frame = frames.allocate_frame().ok_or(OutOfMemory)?;
/// // SAFETY: the frame is ours.
/// unsafe { mapper.map_to(page, frame, PageTableFlags::PRESENT | PageTableFlags::WRITABLE, &mut frames)? }.ignore();
/// ```
///
/// What is different from the crate's own mappers:
///
/// - Tables come from this memory, not from the frame allocator that a call is given, and go back to it when they are without entries.
/// - Rights are the page's; those of tables are not changed: flags for parents count for nothing, and
///   `set_flags_p4_entry` and its kin answer [`FlagUpdateError::ParentEntryHugePage`].
/// - What is unmapped or changed is forgotten by all CPUs before the answer comes: the flush that is answered is ignored.
///   (`flush` would be an INVLPG, for nothing in a kernel, and for a `SIGSEGV` on the host.)
/// - Of the flags, `PRESENT`, which must be there, `WRITABLE`, `USER_ACCESSIBLE`, `NO_EXECUTE`, `GLOBAL`, `WRITE_THROUGH` and
///   `NO_CACHE` have a meaning; the last two say which of the first four entries of [`PAT`](crate::pagetable::PAT) it is. In the
///   kernel's half, all pages are `GLOBAL`.
/// - What cannot be mapped at all, as the last page of the space, answers [`MapToError::FrameAllocationFailed`].
pub struct X86Mapper<'m, P: Platform> {
    memory: &'m Memory<P>,
    tables: PageTable,
}

impl<'m, P: Platform> X86Mapper<'m, P> {
    /// Takes tables of this memory. Context: any; its operations: task.
    ///
    /// # Safety
    ///
    /// [`Mapper::unmap`] is safe: whoever has the value may unmap what is mapped, and nobody else uses what it unmaps.
    pub const unsafe fn new(memory: &'m Memory<P>, tables: PageTable) -> Self {
        Self { memory, tables }
    }

    /// The tables. Context: any.
    #[must_use]
    pub const fn tables(&self) -> PageTable {
        self.tables
    }

    /// The page that an address is mapped by.
    fn leaf(&self, at: VirtAddr) -> Option<Leaf> {
        self.memory.walk(&self.tables, at).leaf()
    }

    /// The leaf of a page of the right size.
    fn leaf_of<S: SizeOf>(&self, page: Page<S>) -> Result<Leaf, Wrong> {
        let leaf = self.leaf(virt(page)).ok_or(Wrong::NotMapped)?;
        match leaf.size.bytes() == S::SIZE {
            true => Ok(leaf),
            false => Err(Wrong::Size),
        }
    }

    fn change<S: SizeOf>(&self, page: Page<S>, change: Change) -> Result<(), ChangeError> {
        let range = range(page).unwrap_or_default();
        // SAFETY: the word of who calls `update_flags`.
        let receipt = unsafe { self.memory.change_pages(&self.tables, range, change) }?;
        receipt.complete();
        Ok(())
    }
}

impl<P: Platform> fmt::Debug for X86Mapper<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X86Mapper")
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

/// Why there is no page of the right size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    NotMapped,
    Size,
}

impl<P: Platform, S: SizeOf> Mapper<S> for X86Mapper<'_, P> {
    unsafe fn map_to_with_table_flags<A>(
        &mut self,
        page: Page<S>,
        frame: PhysFrame<S>,
        flags: PageTableFlags,
        _: PageTableFlags,
        _: &mut A,
    ) -> Result<MapperFlush<S>, MapToError<S>>
    where
        A: FrameAllocator<Size4KiB> + ?Sized,
    {
        let (Some(size), true) = (size_of::<S>(), flags.contains(PageTableFlags::PRESENT)) else {
            return Err(MapToError::FrameAllocationFailed);
        };
        let frames = PfnRange::from_count(pfn_of(frame), size.frames());
        let frames = frames.ok_or(MapToError::FrameAllocationFailed)?;
        let row = (virt(page), frames);
        // SAFETY: the caller's word.
        let mapped = unsafe {
            self.memory
                .map_pages(&self.tables, row, attributes(flags), size)
        };
        match mapped {
            Ok(()) => Ok(MapperFlush::new(page)),
            Err(MapError::Occupied(at)) => Err(match self.leaf(at) {
                Some(leaf) if leaf.size > size => MapToError::ParentEntryHugePage,
                _ => MapToError::PageAlreadyMapped(frame),
            }),
            Err(MapError::Foreign(_)) => Err(MapToError::ParentEntryHugePage),
            Err(_) => Err(MapToError::FrameAllocationFailed),
        }
    }

    fn unmap(&mut self, page: Page<S>) -> Result<(PhysFrame<S>, MapperFlush<S>), UnmapError> {
        let leaf = self.leaf_of(page).map_err(|wrong| match wrong {
            Wrong::NotMapped => UnmapError::PageNotMapped,
            Wrong::Size => UnmapError::ParentEntryHugePage,
        })?;
        let at = phys(leaf.pfn).ok_or(UnmapError::PageNotMapped)?;
        let frame = PhysFrame::from_start_address(at);
        let frame = frame.map_err(|_| UnmapError::InvalidFrameAddress(at))?;
        let range = range(page).ok_or(UnmapError::PageNotMapped)?;
        // SAFETY: the word of who made this value.
        let receipt = unsafe { self.memory.unmap_pages(&self.tables, range, |_, _| ()) };
        receipt
            .map_err(|_| UnmapError::ParentEntryHugePage)?
            .complete();
        Ok((frame, MapperFlush::new(page)))
    }

    unsafe fn update_flags(
        &mut self,
        page: Page<S>,
        flags: PageTableFlags,
    ) -> Result<MapperFlush<S>, FlagUpdateError> {
        self.leaf_of(page).map_err(|wrong| match wrong {
            Wrong::NotMapped => FlagUpdateError::PageNotMapped,
            Wrong::Size => FlagUpdateError::ParentEntryHugePage,
        })?;
        if !flags.contains(PageTableFlags::PRESENT) {
            return Err(FlagUpdateError::PageNotMapped);
        }
        self.change(page, Change::Exactly(attributes(flags)))
            .map_err(|_| FlagUpdateError::ParentEntryHugePage)?;
        Ok(MapperFlush::new(page))
    }

    unsafe fn set_flags_p4_entry(
        &mut self,
        _: Page<S>,
        _: PageTableFlags,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        Err(FlagUpdateError::ParentEntryHugePage)
    }

    unsafe fn set_flags_p3_entry(
        &mut self,
        _: Page<S>,
        _: PageTableFlags,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        Err(FlagUpdateError::ParentEntryHugePage)
    }

    unsafe fn set_flags_p2_entry(
        &mut self,
        _: Page<S>,
        _: PageTableFlags,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        Err(FlagUpdateError::ParentEntryHugePage)
    }

    fn translate_page(&self, page: Page<S>) -> Result<PhysFrame<S>, TranslateError> {
        let leaf = self.leaf_of(page).map_err(|wrong| match wrong {
            Wrong::NotMapped => TranslateError::PageNotMapped,
            Wrong::Size => TranslateError::ParentEntryHugePage,
        })?;
        let at = phys(leaf.pfn).ok_or(TranslateError::PageNotMapped)?;
        PhysFrame::from_start_address(at).map_err(|_| TranslateError::InvalidFrameAddress(at))
    }
}

impl<P: Platform> Translate for X86Mapper<'_, P> {
    fn translate(&self, addr: x86_64::VirtAddr) -> TranslateResult {
        let walk = self.memory.walk(&self.tables, VirtAddr::new(addr.as_u64()));
        let (Some(leaf), Some(step)) = (walk.leaf(), walk.last()) else {
            return TranslateResult::NotMapped;
        };
        let Some(at) = phys(leaf.pfn) else {
            return TranslateResult::NotMapped;
        };
        let frame = match leaf.size {
            PageSize::Size4K => MappedFrame::Size4KiB(PhysFrame::containing_address(at)),
            PageSize::Size2M => MappedFrame::Size2MiB(PhysFrame::containing_address(at)),
            PageSize::Size1G => MappedFrame::Size1GiB(PhysFrame::containing_address(at)),
        };
        TranslateResult::Mapped {
            frame,
            offset: addr.as_u64() & leaf.size.bytes().wrapping_sub(1),
            flags: PageTableFlags::from_bits_truncate(step.entry.bits()),
        }
    }
}

fn size_of<S: SizeOf>() -> Option<PageSize> {
    PageSize::ALL
        .into_iter()
        .find(|size| size.bytes() == S::SIZE)
}

fn virt<S: SizeOf>(page: Page<S>) -> VirtAddr {
    VirtAddr::new(page.start_address().as_u64())
}

fn range<S: SizeOf>(page: Page<S>) -> Option<VirtRange> {
    VirtRange::from_size(virt(page), S::SIZE)
}

fn pfn_of<S: SizeOf>(frame: PhysFrame<S>) -> Pfn {
    crate::addr::PhysAddr::new(frame.start_address().as_u64()).frame()
}

fn phys(pfn: Pfn) -> Option<x86_64::PhysAddr> {
    x86_64::PhysAddr::try_new(pfn.checked_addr()?.as_u64()).ok()
}

/// Flags of the crate in words of this one.
fn attributes(flags: PageTableFlags) -> Attributes {
    let mut protection = Protection::empty();
    protection.set(Protection::WRITE, flags.contains(PageTableFlags::WRITABLE));
    protection.set(
        Protection::EXECUTE,
        !flags.contains(PageTableFlags::NO_EXECUTE),
    );
    protection.set(
        Protection::USER,
        flags.contains(PageTableFlags::USER_ACCESSIBLE),
    );
    protection.set(Protection::GLOBAL, flags.contains(PageTableFlags::GLOBAL));
    let low = u8::from(flags.contains(PageTableFlags::WRITE_THROUGH));
    let high = u8::from(flags.contains(PageTableFlags::NO_CACHE));
    Attributes {
        protection,
        cache: Cache::from_index(low | high << 1),
    }
}
