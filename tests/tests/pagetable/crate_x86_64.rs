//! The traits of the `x86_64` crate on these tables, against the crate's own `OffsetPageTable`.

use mm::adapters::{X86Frames, X86Mapper};
use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Level, Protection};
use mm::report::Backing;
use mm::system::PageTableCheck;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Machine};
use x86_64::structures::paging::mapper::{
    CleanUp, FlagUpdateError, MapToError, Mapper, MapperFlush, Translate, TranslateResult,
    UnmapError,
};
use x86_64::structures::paging::page::PageRangeInclusive;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags,
    PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

const MIB: u64 = 1 << 20;
const BASE: u64 = 0xffff_c900_0000_0000;
const TABLES: usize = 4096;

/// Tables for the crate's mapper: physical address 0 is where they start.
struct Pool {
    first: *mut PageTable,
    free: Vec<u64>,
}

impl Pool {
    fn new() -> Self {
        let tables: Vec<PageTable> = (0..TABLES).map(|_| PageTable::new()).collect();
        let first = Vec::leak(tables).as_mut_ptr();
        // The first is the root.
        let free = (1..TABLES as u64).rev().collect();
        Self { first, free }
    }
}

// SAFETY: each table is given once until it comes back.
unsafe impl FrameAllocator<Size4KiB> for Pool {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        let number = self.free.pop()?;
        Some(PhysFrame::containing_address(PhysAddr::new(number * 4096)))
    }
}

impl FrameDeallocator<Size4KiB> for Pool {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<Size4KiB>) {
        self.free.push(frame.start_address().as_u64() / 4096);
    }
}

type Mine<'m> = X86Mapper<'m, mm_tests::sim::SimPlatform<Checked>>;
type Theirs = OffsetPageTable<'static>;

const KEPT: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::USER_ACCESSIBLE)
    .union(PageTableFlags::NO_EXECUTE)
    .union(PageTableFlags::GLOBAL)
    .union(PageTableFlags::WRITE_THROUGH)
    .union(PageTableFlags::NO_CACHE);

fn seen(mapper: &impl Translate, at: u64) -> Option<(u64, u64, PageTableFlags)> {
    match mapper.translate(VirtAddr::new(at)) {
        TranslateResult::NotMapped => None,
        TranslateResult::Mapped {
            frame,
            offset,
            flags,
        } => Some((
            frame.start_address().as_u64() + offset,
            frame.size(),
            flags & KEPT,
        )),
        TranslateResult::InvalidFrameAddress(at) => panic!("{at:?}"),
    }
}

fn flags(random: &mut Random) -> PageTableFlags {
    let bits = u64::from_le_bytes(random.below(u64::MAX).to_le_bytes());
    // All of the kernel's pages are global, asked for or not.
    let always = PageTableFlags::PRESENT | PageTableFlags::GLOBAL;
    PageTableFlags::from_bits_truncate(bits) & KEPT | always
}

fn name<S: PageSize>(error: &MapToError<S>) -> &'static str {
    match error {
        MapToError::FrameAllocationFailed => "no frame",
        MapToError::ParentEntryHugePage => "huge",
        MapToError::PageAlreadyMapped(_) => "mapped",
    }
}

/// One random operation on pages of one size, with the same outcome for both.
fn step<S: PageSize>(mine: &mut Mine<'_>, theirs: &mut Theirs, pool: &mut Pool, random: &mut Random)
where
    Theirs: Mapper<S> + Translate,
{
    let at = BASE + random.below(if S::SIZE == Size1GiB::SIZE { 3 } else { 6 }) * S::SIZE;
    let page = Page::<S>::containing_address(VirtAddr::new(at));
    let frame = PhysFrame::<S>::containing_address(PhysAddr::new(random.below(64) * S::SIZE));
    let flags = flags(random);
    let is_large = S::SIZE > Size4KiB::SIZE;
    match random.below(3) {
        0 => {
            // SAFETY: no CPU goes through either tables; so below.
            let one = unsafe { mine.map_to(page, frame, flags, pool) };
            if matches!(one, Err(MapToError::ParentEntryHugePage)) {
                // The crate refuses too, but gives the large page a table's rights before it looks what it is (0.15.5).
                assert!(seen(theirs, at).is_some_and(|(_, size, _)| size > S::SIZE));
                return;
            }
            // SAFETY: as above.
            let other = unsafe { theirs.map_to(page, frame, flags, pool) };
            let [one, other] = [one, other].map(|found| found.map(MapperFlush::ignore));
            assert_eq!(
                one.as_ref().map_err(name),
                other.as_ref().map_err(name),
                "{page:?}"
            );
        }
        1 => {
            let one = mine
                .unmap(page)
                .map(|(frame, flush)| (frame, flush.ignore()).0);
            let has_table = is_large && seen(mine, at).is_some();
            if has_table {
                // The crate takes a table for a large page's parent, we look at what it maps: both refuse.
                assert!(matches!(one, Err(UnmapError::ParentEntryHugePage)));
                return;
            }
            let other = theirs
                .unmap(page)
                .map(|(frame, flush)| (frame, flush.ignore()).0);
            match (one, other) {
                (Ok(one), Ok(other)) => assert_eq!(one, other),
                (Err(one), Err(other)) if !is_large => {
                    assert_eq!(format!("{one:?}"), format!("{other:?}"));
                }
                (Err(_), Err(_)) => {}
                (one, other) => panic!("{one:?} and {other:?}"),
            }
            let last = VirtAddr::new(BASE + 8 * Size1GiB::SIZE);
            let range = PageRangeInclusive {
                start: Page::containing_address(VirtAddr::new(BASE)),
                end: Page::containing_address(last),
            };
            // SAFETY: nobody has the tables; ours go by themselves.
            unsafe { theirs.clean_up_addr_range(range, pool) };
        }
        _ => {
            // The crate would take a table for a page.
            let found = seen(mine, at).map(|found| found.1);
            if is_large && found != Some(S::SIZE) {
                return;
            }
            // SAFETY: as above.
            let one = unsafe { mine.update_flags(page, flags) }.map(MapperFlush::ignore);
            // SAFETY: as above.
            let other = unsafe { theirs.update_flags(page, flags) }.map(MapperFlush::ignore);
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            let one = Mapper::<S>::translate_page(mine, page);
            let other = Mapper::<S>::translate_page(theirs, page);
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
        }
    }
}

#[test]
fn random_operations_end_as_with_the_crates_own_mapper() {
    let mut random = Random::new(seed("x86_64"));
    let machine = Machine::<Checked>::with_ram(64 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    // SAFETY: nothing lies there for anybody.
    let mut mine = unsafe { X86Mapper::new(&machine, tables) };
    let mut pool = Pool::new();
    let base = VirtAddr::new(pool.first.addr() as u64);
    // SAFETY: the pool is leaked; physical address 0 is its first table.
    let mut theirs = unsafe { OffsetPageTable::new(&mut *pool.first, base) };
    let mut mapped = 0;
    for _ in 0..cases(3000) {
        match random.below(4) {
            0 => step::<Size1GiB>(&mut mine, &mut theirs, &mut pool, &mut random),
            1 => step::<Size2MiB>(&mut mine, &mut theirs, &mut pool, &mut random),
            _ => step::<Size4KiB>(&mut mine, &mut theirs, &mut pool, &mut random),
        }
        for size in [Size4KiB::SIZE, Size2MiB::SIZE, Size1GiB::SIZE] {
            let at = BASE + random.below(6) * size + random.below(size);
            assert_eq!(seen(&mine, at), seen(&theirs, at), "{at:#x}");
            mapped += u64::from(seen(&mine, at).is_some());
        }
        machine.validate_page_table(&tables).unwrap();
    }
    assert!(mapped > cases(3000) / 10);
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(BASE));
    // SAFETY: it is refused.
    let refused = unsafe { mine.set_flags_p3_entry(page, PageTableFlags::PRESENT) };
    assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)));
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}

#[test]
fn frames_come_and_go_by_the_traits() {
    let machine = Machine::<Checked>::with_ram(64 * MIB);
    {
        let mut frames = X86Frames::new(&*machine, Gfp::KERNEL);
        let small: PhysFrame<Size4KiB> = frames.allocate_frame().unwrap();
        let large: PhysFrame<Size2MiB> = frames.allocate_frame().unwrap();
        assert_ne!(small.start_address(), large.start_address());
        assert!(large.start_address().is_aligned(Order::PAGEBLOCK.bytes()));
        // SAFETY: nobody else has them; also below.
        unsafe { frames.deallocate_frame(small) };
        // SAFETY: as above.
        unsafe { frames.deallocate_frame(large) };
        let mut taken: Vec<PhysFrame<Size2MiB>> = Vec::new();
        while let Some(frame) = frames.allocate_frame() {
            taken.push(frame);
        }
        assert!(taken.len() > 16);
        for frame in taken {
            // SAFETY: as above.
            unsafe { frames.deallocate_frame(frame) };
        }
    }
    machine.finish();
}

/// What is refused changes nothing: not even the part of it that could be done.
#[test]
fn flags_that_are_refused_change_nothing() {
    let machine = crate::check::machine::<Checked>(PageTableCheck::On);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let at = 0x40_0000;
    let read = Attributes {
        protection: Protection::USER | Protection::EXECUTE,
        ..Attributes::KERNEL
    };
    for place in [at, at + 0x1000] {
        let row = (
            mm::addr::VirtAddr::new(place),
            PfnRange::from_count(Pfn::new(1024), 1).unwrap(),
        );
        // SAFETY: nobody runs through these tables; also below.
        let mapped = unsafe {
            machine.map_user_pages(
                &tables,
                row,
                read,
                mm::pagetable::PageSize::Size4K,
                Backing::Anonymous,
            )
        };
        mapped.unwrap();
    }
    // SAFETY: as above.
    let mut mapper = unsafe { X86Mapper::new(&machine, tables) };
    let before = seen(&mapper, at);
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(at));
    let wanted = PageTableFlags::PRESENT
        | PageTableFlags::WRITABLE
        | PageTableFlags::NO_EXECUTE
        | PageTableFlags::NO_CACHE;
    // SAFETY: as above.
    let refused = unsafe { mapper.update_flags(page, wanted) };
    assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)));
    assert_eq!(seen(&mapper, at), before);
    assert_eq!(machine.platform().take_reports().len(), 1);
    // SAFETY: as above.
    unsafe { mapper.update_flags(page, wanted.difference(PageTableFlags::WRITABLE)) }
        .unwrap()
        .ignore();
    assert_ne!(seen(&mapper, at), before);
    let all = mm::addr::VirtRange::from_size(mm::addr::VirtAddr::new(at), 0x2000).unwrap();
    // SAFETY: as above.
    unsafe { machine.unmap_pages(&tables, all, |_, _| ()) }
        .unwrap()
        .complete();
    assert_eq!(
        machine.mapped_as(Pfn::new(1024)),
        None,
        "it was counted all the time"
    );
    // SAFETY: as above.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}
