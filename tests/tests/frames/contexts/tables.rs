//! The same of page tables.

use mm::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm::config::Layout;
use mm::pagetable::{Attributes, Change, Level, PageSize, PageTable, ProtectError, Protection};
use mm::platform::PageAccess;
use mm::report::Backing;
use mm::system::KernelSpaceError;

use super::{Action, Call};

/// One of the `set_memory_*`, of a world that has not said where its kernel is.
macro_rules! named {
    ($name:ident) => {
        (stringify!($name), |call| {
            // SAFETY: it is refused.
            let outcome = unsafe { call.world.$name(range()) };
            let is_refused =
                |error| matches!(error, ProtectError::Outside(_) | ProtectError::NoArea(_));
            assert!(outcome.is_err_and(is_refused));
        })
    };
}

const START: VirtAddr = VirtAddr::new(0xffff_c900_0000_0000);

/// Two pages.
fn range() -> VirtRange {
    VirtRange::from_size(START, 2 * 4096).unwrap()
}

fn map(call: &Call, tables: &PageTable) {
    let row = (START, PfnRange::from_count(Pfn::new(7), 2).unwrap());
    // SAFETY: no CPU goes through these tables; so below.
    unsafe {
        call.world
            .map_pages(tables, row, Attributes::KERNEL, PageSize::Size4K)
    }
    .unwrap();
}

/// Tables with two pages, and their end.
fn with_tables(call: &Call, body: impl FnOnce(&PageTable)) {
    let tables = call.world.new_page_table(Level::P4D).unwrap();
    map(call, &tables);
    body(&tables);
    // SAFETY: nobody else knows them.
    unsafe { call.world.destroy_page_table(tables) };
    call.world.grace().barrier().unwrap();
}

/// Asked in every context, of tables that a task made.
fn asked(call: &Call, ask: impl FnOnce(&PageTable)) {
    let tables = call.world.new_page_table(Level::P4D).unwrap();
    ask(&tables);
    // SAFETY: nobody else knows them.
    unsafe { call.world.destroy_page_table(tables) };
}

pub(super) const CALLS: &[(&str, Action)] = &[
    ("kernel_space", |call| {
        assert!(call.world.kernel_space().is_some())
    }),
    ("new_page_table", |call| with_tables(call, |_| ())),
    ("destroy_page_table", |call| with_tables(call, |_| ())),
    ("map_pages", |call| with_tables(call, |_| ())),
    ("walk", |call| {
        asked(call, |tables| {
            assert_eq!(call.world.walk(tables, START).leaf(), None);
        })
    }),
    ("next_leaf", |call| {
        asked(call, |tables| {
            assert_eq!(call.world.next_leaf(tables, START), None);
        })
    }),
    ("next_span", |call| {
        asked(call, |tables| {
            assert_eq!(call.world.next_span(tables, START), None);
        })
    }),
    ("validate_page_table", |call| {
        with_tables(call, |tables| {
            assert_eq!(call.world.validate_page_table(tables), Ok(4));
        })
    }),
    ("is_page_table", |call| {
        assert!(!call.world.is_page_table(call.shared.pfn()))
    }),
    ("map_each_page", |call| {
        with_tables(call, |tables| {
            let behind = VirtRange::from_size(range().end(), 4096).unwrap();
            let frame = |_| Pfn::new(9);
            // SAFETY: as above.
            unsafe {
                call.world
                    .map_each_page(tables, behind, frame, Attributes::KERNEL)
            }
            .unwrap();
        })
    }),
    ("map_user_pages", |call| {
        with_tables(call, |tables| {
            let row = (range().end(), PfnRange::from_count(Pfn::new(9), 1).unwrap());
            let (largest, backing) = (PageSize::Size4K, Backing::Anonymous);
            // SAFETY: as above.
            unsafe {
                call.world
                    .map_user_pages(tables, row, Attributes::KERNEL_RO, largest, backing)
            }
            .unwrap();
        })
    }),
    ("mapped_as", |call| {
        assert_eq!(call.world.mapped_as(call.shared.pfn()), None)
    }),
    ("page_table_frames", |call| {
        assert!(call.world.page_table_frames() > 0)
    }),
    ("unmap_pages", |call| {
        with_tables(call, |tables| {
            // SAFETY: as above.
            let receipt = unsafe { call.world.unmap_pages(tables, range(), |_, _| ()) };
            receipt.unwrap().complete();
        })
    }),
    ("change_pages", |call| {
        with_tables(call, |tables| {
            let change = Change::Forbid(Protection::WRITE);
            // SAFETY: as above.
            let receipt = unsafe { call.world.change_pages(tables, range(), change) };
            receipt.unwrap().complete();
        })
    }),
    ("join_pages", |call| {
        with_tables(call, |tables| {
            // SAFETY: as above.
            let receipt = unsafe { call.world.join_pages(tables, range(), PageSize::Size2M) };
            receipt.unwrap().complete();
        })
    }),
    ("adopt_table", |call| {
        with_tables(call, |tables| {
            // SAFETY: it is refused: something is mapped there.
            let outcome = unsafe { call.world.adopt_table(tables, START, Pfn::new(7)) };
            assert!(outcome.is_err());
        })
    }),
    ("adopt_kernel_space", |call| {
        with_tables(call, |tables| {
            let mut layout = Layout::LINUX_LIKE;
            layout.percpu = layout.vmalloc;
            // SAFETY: it is refused: two regions overlap.
            let outcome = unsafe {
                call.world
                    .adopt_kernel_space(*tables, layout, PageSize::Size1G)
            };
            assert!(matches!(outcome, Err(KernelSpaceError::Layout(_))));
        })
    }),
    named!(set_memory_ro),
    named!(set_memory_rw),
    named!(set_memory_x),
    named!(set_memory_nx),
    named!(set_memory_np),
    named!(set_memory_p),
    ("set_direct_map", |call| {
        let frames = PfnRange::from_count(Pfn::new(7), 2).unwrap();
        // SAFETY: it is refused: the direct map is not said to have small pages.
        let outcome = unsafe { call.world.set_direct_map(frames, PageAccess::None) };
        assert!(matches!(outcome, Err(ProtectError::Outside(_))));
    }),
];
