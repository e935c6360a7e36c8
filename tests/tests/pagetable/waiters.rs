//! Whoever has found a table and is about to lock it finds that it died, however much happens in between: its mapping is taken
//! away, or put together with others, CPUs are flushed, and everything is freed that may be.
//!
//! One host thread is all CPUs. At each call of the platform that somebody makes who changes page tables, as long as it has no lock,
//! another CPU does all of that. Afterwards the tables must say what they would say had one been after the other.

use std::cell::Cell;

use mm::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Change, Leaf, Level, PageSize, PageTable, Protection};
use mm::sync::shootdown::Lazy;
use mm::system::Block;
use mm_tests::for_four_configs;
use mm_tests::sim::{Machine, SimConfig};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const AT: u64 = 0xffff_c900_4020_0000;
/// Frames of the pages there: aligned as a large page is.
const FIRST: u64 = 0x1000;

for_four_configs! {
    who_waits_for_a_dead_table_looks_again,
}

/// What one does, …
#[derive(Clone, Copy, PartialEq, Debug)]
enum Does {
    Map,
    Unmap,
    Forbid,
}

/// … while another one has a table die: it takes the only page away, or puts all of them together.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Other {
    Unmaps,
    Joins,
}

struct World<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    tables: PageTable,
}

impl<C: SimConfig> World<'_, C> {
    fn range(first: u64, pages: u64) -> VirtRange {
        VirtRange::from_size(VirtAddr::new(AT + first * PAGE), pages * PAGE).unwrap()
    }

    fn map(&self, first: u64, pages: u64) {
        let frames = PfnRange::from_count(Pfn::new(FIRST + first), pages).unwrap();
        let row = (VirtAddr::new(AT + first * PAGE), frames);
        // SAFETY: nobody runs through these tables; also below.
        let mapped = unsafe {
            self.machine
                .map_pages(&self.tables, row, Attributes::KERNEL, PageSize::Size4K)
        };
        mapped.unwrap();
    }

    fn unmap(&self, first: u64, pages: u64) -> u64 {
        let mut seen = 0;
        let sink = |_, leaf: Leaf| seen += leaf.size.bytes() / PAGE;
        // SAFETY: as above.
        let receipt = unsafe {
            self.machine
                .unmap_pages(&self.tables, Self::range(first, pages), sink)
        };
        receipt.unwrap().complete();
        seen
    }

    fn forbid(&self, first: u64, pages: u64) {
        let change = Change::Forbid(Protection::WRITE);
        // SAFETY: as above.
        let receipt = unsafe {
            self.machine
                .change_pages(&self.tables, Self::range(first, pages), change)
        };
        receipt.unwrap().complete();
    }

    fn join(&self) {
        // SAFETY: as above.
        let receipt = unsafe {
            self.machine
                .join_pages(&self.tables, Self::range(0, 512), PageSize::Size2M)
        };
        receipt.unwrap().complete();
    }

    /// Whether nobody has a lock.
    fn is_free(&self) -> bool {
        self.machine.validate_page_table(&self.tables).is_ok()
    }

    /// On another CPU: a table dies, and its frame is somebody else's, if it may be.
    fn other(&self, other: Other) {
        let _second = self.machine.cpu(1);
        match other {
            Other::Unmaps => assert_eq!(self.unmap(0, 1), 1),
            Other::Joins => self.join(),
        }
        for _ in 0..3 {
            let _ = self.machine.grace().tend();
        }
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        for _ in 0..12 {
            let mut page = Block::alloc(&**self.machine, gfp, Order::ZERO).unwrap();
            page.bytes_mut().fill(0xee);
        }
    }

    fn found(&self, page: u64) -> Option<(Pfn, Protection)> {
        let at = VirtAddr::new(AT + page * PAGE);
        let walk = self.machine.walk(&self.tables, at);
        let leaf = walk.leaf()?;
        Some((walk.phys(at).unwrap().frame(), leaf.attributes.protection))
    }
}

/// Somebody does something, and at its `when`th point another one does. `false` if there is no such point, or it has locks there.
fn meet<C: SimConfig>(does: Does, other: Other, when: u64) -> bool {
    let machine = Machine::<C>::new().ram(0, 32 * MIB).cpus(3).boot();
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let world = World {
        machine: &machine,
        tables,
    };
    let pages = match other {
        Other::Unmaps => 1,
        Other::Joins => 512,
    };
    world.map(0, pages);
    let (points, has_met) = (Cell::new(0), Cell::new(false));
    let point = || {
        points.set(points.get() + 1);
        if points.get() == when && world.is_free() {
            world.other(other);
            has_met.set(true);
        }
    };
    let act = || match does {
        Does::Map => world.map(7, 2),
        Does::Unmap => assert_eq!(world.unmap(7, 2), 2),
        Does::Forbid => world.forbid(7, 2),
    };
    // It is not waited for where translations are flushed: it has served that.
    machine.idle(Lazy::Offline, || {
        let _ = machine.hardware().with_nmis(point, act);
    });
    if has_met.get() {
        let all = Protection::WRITE | Protection::GLOBAL;
        for page in [0, 6, 7, 8, 9, 511] {
            let frame = Pfn::new(FIRST + page);
            let expected = match (does, page) {
                (Does::Map, 7 | 8) => Some((frame, all)),
                (Does::Unmap, 7 | 8) => None,
                (Does::Forbid, 7 | 8) => Some((frame, Protection::GLOBAL)),
                _ if other == Other::Unmaps => None,
                _ => Some((frame, all)),
            };
            assert_eq!(world.found(page), expected, "{does:?}, page {page}, {when}");
        }
    }
    assert!(world.is_free());
    let _ = world.unmap(0, 512);
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
    has_met.get()
}

fn who_waits_for_a_dead_table_looks_again<C: SimConfig>() {
    for (does, other) in [
        (Does::Map, Other::Unmaps),
        (Does::Unmap, Other::Joins),
        (Does::Forbid, Other::Joins),
    ] {
        let met = (1..40).filter(|&when| meet::<C>(does, other, when)).count();
        println!("{does:?} and {other:?}: at {met} points");
        // At each step of the way down, at least.
        assert!(met >= 5, "{does:?}: {met}");
    }
}
