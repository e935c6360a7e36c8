//! Benchmarks of page tables: 64 MiB of pages mapped and unmapped, by ranges and page by page.
#![expect(unsafe_code, reason = "maps and unmaps in tables that no CPU uses")]

use super::{Kernel, MEMORY, Pages};
use crate::bench;
use crate::bench::{BenchError, Bencher};
use crate::num::to_usize;
use mm::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Level, PageSize, PageTable};
use x86_64::structures::paging::mapper::{Mapper, OffsetPageTable};
use x86_64::structures::paging::{
    FrameAllocator, Page, PageTable as Entries, PageTableFlags, PhysFrame, Size4KiB,
};

bench!(
    "map_4K_64M",
    "64 MiB of 4 KiB pages mapped in one call, per page",
    map
);
bench!(
    "unmap_4K_64M",
    "the same unmapped, receipt completed, per page",
    unmap
);
bench!(
    "offset_page_table_64M",
    "the same page by page with `OffsetPageTable` of the `x86_64` crate",
    offset_page_table
);

const START: VirtAddr = VirtAddr::new(0xffff_c900_0000_0000);
const PAGES: u64 = 64 << 8;
const COUNT: usize = 64 << 8;

/// The first 64 MiB of physical addresses: nobody goes through these tables.
fn row() -> (VirtAddr, PfnRange) {
    (START, PfnRange::from_numbers(0, PAGES))
}

fn range() -> VirtRange {
    VirtRange::from_size(START, PAGES << 12).unwrap_or_default()
}

fn new_tables() -> Result<PageTable, BenchError> {
    MEMORY
        .new_page_table(Level::P4D)
        .map_err(BenchError::failed)
}

fn end(tables: PageTable) -> Result<(), BenchError> {
    // SAFETY: no CPU ever used them.
    unsafe { MEMORY.destroy_page_table(tables) };
    Ok(())
}

fn fill(tables: &PageTable) -> Result<(), BenchError> {
    // SAFETY: no CPU uses the tables.
    unsafe { MEMORY.map_pages(tables, row(), Attributes::KERNEL, PageSize::Size4K) }
        .map_err(BenchError::failed)
}

fn map(bench: &mut Bencher) -> Result<(), BenchError> {
    let prepare = || Ok((new_tables()?, Ok(())));
    let body = |state: &mut (PageTable, Result<(), BenchError>)| state.1 = fill(&state.0);
    bench.whole("", COUNT, prepare, body, |(tables, outcome)| {
        end(tables)?;
        outcome
    })
}

fn unmap(bench: &mut Bencher) -> Result<(), BenchError> {
    let prepare = || {
        let tables = new_tables()?;
        fill(&tables)?;
        Ok((tables, 0_u64))
    };
    let body = |state: &mut (PageTable, u64)| {
        let (tables, seen) = state;
        let sink = |_: VirtAddr, _: mm::pagetable::Leaf| *seen = seen.wrapping_add(1);
        // SAFETY: no CPU uses the tables.
        if let Ok(receipt) = unsafe { MEMORY.unmap_pages(tables, range(), sink) } {
            receipt.complete();
        }
    };
    bench.whole("", COUNT, prepare, body, |(tables, seen)| {
        end(tables)?;
        let all = seen == PAGES;
        all.then_some(())
            .ok_or_else(|| BenchError::failed("pages are missing"))
    })
}

/// Pages for tables: more than the root and those below it take.
struct Frames {
    block: Pages,
    used: u64,
}

// SAFETY: each page of the block is given out once.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let pfn = self.block.frames().iter().nth(to_usize(self.used))?;
        self.used = self.used.wrapping_add(1);
        Some(frame(pfn))
    }
}

fn frame(pfn: Pfn) -> PhysFrame {
    PhysFrame::containing_address(x86_64::PhysAddr::new_truncate(pfn.addr().as_u64()))
}

/// Tables of the `x86_64` crate's.
struct Others {
    mapper: OffsetPageTable<'static>,
    frames: Frames,
}

impl Others {
    fn new() -> Result<Self, BenchError> {
        let order = Order::new(6).unwrap_or(Order::MAX);
        let block = Pages::alloc(Kernel, Gfp::KERNEL | Gfp::ZERO, order);
        let block = block.map_err(BenchError::failed)?;
        let root = block
            .as_ptr()
            .ok_or_else(|| BenchError::failed("out of reach"))?;
        let offset = mm::config::Layout::LINUX_LIKE.direct_map.start().as_u64();
        // SAFETY: a page of zeroes that nobody else has, aligned as pages are; it goes with this value.
        let root = unsafe { root.cast::<Entries>().as_mut() };
        // SAFETY: memory is mapped at the offset.
        let mapper = unsafe { OffsetPageTable::new(root, x86_64::VirtAddr::new(offset)) };
        let frames = Frames { block, used: 1 };
        Ok(Self { mapper, frames })
    }

    fn map(&mut self) -> u64 {
        let flags = PageTableFlags::PRESENT
            | PageTableFlags::WRITABLE
            | PageTableFlags::GLOBAL
            | PageTableFlags::NO_EXECUTE;
        let mut mapped: u64 = 0;
        for index in 0..PAGES {
            let frame = frame(Pfn::new(index));
            // SAFETY: no CPU uses the tables.
            let outcome = unsafe {
                self.mapper
                    .map_to(page(index), frame, flags, &mut self.frames)
            };
            if let Ok(flush) = outcome {
                flush.ignore();
                mapped = mapped.wrapping_add(1);
            }
        }
        mapped
    }

    fn unmap(&mut self) -> u64 {
        let mut unmapped: u64 = 0;
        for index in 0..PAGES {
            if let Ok((_, flush)) = self.mapper.unmap(page(index)) {
                // One by one, as its users do.
                flush.flush();
                unmapped = unmapped.wrapping_add(1);
            }
        }
        unmapped
    }
}

fn page(index: u64) -> Page<Size4KiB> {
    let at = START.as_u64().wrapping_add(index.wrapping_mul(4096));
    Page::containing_address(x86_64::VirtAddr::new_truncate(at))
}

fn offset_page_table(bench: &mut Bencher) -> Result<(), BenchError> {
    let all = |count: u64| {
        let outcome = (count == PAGES).then_some(());
        outcome.ok_or_else(|| BenchError::failed("pages are missing"))
    };
    // Tables are made in it, as in ours.
    let fresh = || Ok((Others::new()?, 0));
    let map = |state: &mut (Others, u64)| state.1 = state.0.map();
    bench.whole("_map", COUNT, fresh, map, |(_, seen)| all(seen))?;
    let mapped = || {
        let mut others = Others::new()?;
        all(others.map())?;
        Ok((others, 0))
    };
    let unmap = |state: &mut (Others, u64)| state.1 = state.0.unmap();
    bench.whole("_unmap", COUNT, mapped, unmap, |(_, seen)| all(seen))
}
