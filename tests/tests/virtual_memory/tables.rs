//! Page tables made by hand, for tests of what reads them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{Order, PhysAddr, PhysRange, VirtAddr};
use mm::buddy::Gfp;
use mm::system::{Block, Memory};
use mm_tests::sim::mmu::bit;
use mm_tests::sim::{Machine, SimConfig, SimPlatform};

type Page<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

/// Tables of one address space.
pub(crate) struct Tables<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    pub(crate) levels: u32,
    root: Page<'m, C>,
    /// By level and by what is left of the address above it.
    below: RefCell<BTreeMap<(u32, u64), Page<'m, C>>>,
}

/// What the entries of tables above a page say: everything may be done.
pub(crate) const OPEN: u64 = bit::P | bit::RW | bit::US;

impl<'m, C: SimConfig> Tables<'m, C> {
    pub(crate) fn new(machine: &'m Machine<C>, levels: u32) -> Self {
        Self {
            machine,
            levels,
            root: zeroed(machine),
            below: RefCell::default(),
        }
    }

    pub(crate) fn root(&self) -> PhysAddr {
        self.root.pfn().addr()
    }

    /// The entry of a level that an address is found by; the tables above it are made.
    pub(crate) fn entry(&self, addr: VirtAddr, level: u32) -> &'m AtomicU64 {
        let mut table = self.root();
        for above in (level..self.levels).rev() {
            let entry = self.at(table, addr, above + 1);
            if entry.load(Ordering::Relaxed) & bit::P == 0 {
                let page = zeroed(self.machine);
                entry.store(page.pfn().addr().as_u64() | OPEN, Ordering::Release);
                let key = (above, addr.as_u64() >> (12 + 9 * above));
                self.below.borrow_mut().insert(key, page);
            }
            let next = entry.load(Ordering::Relaxed) & 0x000f_ffff_ffff_f000;
            table = PhysAddr::new(next);
        }
        self.at(table, addr, level)
    }

    fn at(&self, table: PhysAddr, addr: VirtAddr, level: u32) -> &'m AtomicU64 {
        let index = addr.as_u64() >> (12 + 9 * (level - 1)) & 0x1ff;
        let at = table.checked_add(index * 8).unwrap();
        let place = self
            .machine
            .hardware()
            .ram()
            .at(PhysRange::from_size(at, 8));
        // SAFETY: an entry in a page that is this value's; changed by atomic stores only.
        unsafe { AtomicU64::from_ptr(place.unwrap().cast::<u64>().as_ptr()) }
    }

    pub(crate) fn set(&self, addr: VirtAddr, level: u32, entry: u64) {
        self.entry(addr, level).store(entry, Ordering::Release);
    }

    /// Takes a table out of the tables.
    pub(crate) fn take_table(&self, addr: VirtAddr, level: u32) -> Page<'m, C> {
        self.set(addr, level + 1, 0);
        let key = (level, addr.as_u64() >> (12 + 9 * level));
        self.below.borrow_mut().remove(&key).unwrap()
    }
}

fn zeroed<C: SimConfig>(machine: &Machine<C>) -> Page<'_, C> {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    Block::alloc(&**machine, gfp, Order::ZERO).unwrap()
}
