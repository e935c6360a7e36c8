//! Pages that wait with a receipt until CPUs have forgotten them.

use mm::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm::buddy::Gfp;
use mm::frame::FrameState;
use mm::pagetable::{Attributes, Level, PageSize, PageTable};
use mm::system::{Block, Memory};
use mm_tests::for_four_configs;
use mm_tests::sim::{Machine, SimConfig, SimPlatform, Usual};

use crate::model::range;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const BASE: u64 = 0xffff_c900_0000_0000;

for_four_configs! {
    what_is_kept_is_freed_when_it_is_forgotten,
    receipts_put_together_keep_what_both_kept,
}

type Pages<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

fn map<'m, C: SimConfig>(
    machine: &'m Machine<C>,
    tables: &PageTable,
    at: u64,
    order: u8,
) -> Pages<'m, C> {
    let pages = Block::alloc(&**machine, Gfp::KERNEL, Order::new(order).unwrap()).unwrap();
    let row = (
        VirtAddr::new(at),
        PfnRange::block(pages.pfn(), pages.order()),
    );
    // SAFETY: nobody runs through these tables; also below.
    unsafe { machine.map_pages(tables, row, Attributes::KERNEL, PageSize::Size2M) }.unwrap();
    pages
}

fn end<C: SimConfig>(machine: Machine<C>, tables: PageTable) {
    // SAFETY: nobody knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}

fn what_is_kept_is_freed_when_it_is_forgotten<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    // So that the tables stay.
    let stays = map(&machine, &tables, BASE + 100 * PAGE, 0);
    for leaves_stale in [false, true] {
        let pages = [0, 3, 1]
            .map(|order| map(&machine, &tables, BASE + 8 * u64::from(order) * PAGE, order));
        let count: u64 = pages.iter().map(|pages| pages.order().frames()).sum();
        assert!(machine.drain_all_pages());
        let (free, flushes) = (machine.free_frames(), machine.tlb_generation());
        // SAFETY: as above.
        let receipt = unsafe { machine.unmap_pages(&tables, range(BASE, 64 * PAGE), |_, _| ()) };
        let mut receipt = receipt.unwrap();
        let firsts: Vec<_> = pages.iter().map(Block::pfn).collect();
        for pages in pages {
            receipt.keep(pages).unwrap();
        }
        assert!(machine.drain_all_pages());
        assert_eq!(machine.free_frames(), free, "CPUs may still reach them");
        assert_eq!(machine.tlb_generation(), flushes);
        // Whatever happens before the flush, they are not free yet.
        let point = || {
            let is_owned = |&pfn: &Pfn| {
                machine
                    .page(pfn)
                    .unwrap()
                    .frame()
                    .word()
                    .is(FrameState::Unique)
            };
            assert!(machine.tlb_generation() > flushes || firsts.iter().all(is_owned));
        };
        let _ = machine.hardware().with_nmis(point, || match leaves_stale {
            // Not with something that is to be free.
            true => receipt.leave_stale(),
            false => receipt.complete(),
        });
        assert!(machine.drain_all_pages());
        assert_eq!(machine.free_frames(), free + count);
        assert!(machine.tlb_generation() > flushes);
    }
    drop(stays);
    end(machine, tables);
}

fn receipts_put_together_keep_what_both_kept<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = machine.new_page_table(Level::P4D).unwrap();
    assert!(machine.drain_all_pages());
    let free = machine.free_frames();
    let places = [BASE, BASE + (1 << 30)];
    let pages = places.map(|at| map(&machine, &tables, at, 2));
    let [first, second] = places.map(|at| {
        // SAFETY: as above.
        unsafe { machine.unmap_pages(&tables, range(at, 4 * PAGE), |_, _| ()) }.unwrap()
    });
    let [mut first, mut second] = [first, second];
    for (pages, receipt) in pages.into_iter().zip([&mut first, &mut second]) {
        receipt.keep(pages).unwrap();
    }
    let flushes = machine.tlb_generation();
    first.merge(second).complete();
    assert_eq!(machine.tlb_generation(), flushes + 1, "one flush for both");
    machine.grace().barrier().unwrap();
    assert!(machine.drain_all_pages());
    // The root, and what it leads to for good, which was made meanwhile.
    assert_eq!(machine.free_frames(), free - 1);
    end(machine, tables);
}

/// What belongs to another machine is neither kept nor freed by this one, and its tables are not these.
#[test]
fn machines_are_not_mixed_up() {
    let machines: [Machine<Usual>; 2] = [0, 1].map(|_| Machine::with_ram(32 * MIB));
    let [tables, others] = [0, 1].map(|index| machines[index].new_page_table(Level::P4D).unwrap());
    let both = [(0, &tables), (1, &others)].map(|(index, tables)| {
        let pages = map(&machines[index], tables, BASE, 0);
        // SAFETY: as above.
        let receipt = unsafe { machines[index].unmap_pages(tables, range(BASE, PAGE), |_, _| ()) };
        (pages, receipt.unwrap())
    });
    let mut both = both.into_iter();
    let (page, mut receipt) = both.next().unwrap();
    let (other_page, other_receipt) = both.next().unwrap();
    drop(both);
    let refused = receipt.keep(other_page).unwrap_err();
    let flushes: Vec<_> = machines
        .iter()
        .map(|machine| machine.tlb_generation())
        .collect();
    // Each is completed by its own machine: the other one's at once.
    let receipt = receipt.merge(other_receipt);
    assert!(machines[1].tlb_generation() > flushes[1]);
    assert_eq!(machines[0].tlb_generation(), flushes[0]);
    receipt.complete();
    assert!(machines[0].tlb_generation() > flushes[0]);
    drop((page, refused));
    for (machine, tables) in machines.into_iter().zip([tables, others]) {
        end(machine, tables);
    }
}

/// Tables with their root where this machine has a table of another level.
#[test]
fn a_root_that_is_no_root_here_is_none() {
    let mine = Machine::<Usual>::with_ram(32 * MIB);
    let tables = mine.new_page_table(Level::P4D).unwrap();
    let page = map(&mine, &tables, BASE, 0);
    let steps: Vec<_> = mine.walk(&tables, VirtAddr::new(BASE)).steps().collect();
    let lower = steps[3].table;
    // Somebody else's machine, which hands out pages in the same order.
    let theirs = Machine::<Usual>::with_ram(32 * MIB);
    let mut roots = Vec::new();
    let root = loop {
        let root = theirs.new_page_table(Level::P4D).unwrap();
        match root.root() == lower {
            true => break root,
            false => roots.push(root),
        }
    };
    assert_eq!(mine.walk(&root, VirtAddr::new(BASE)).steps().count(), 0);
    assert_eq!(mine.next_leaf(&root, VirtAddr::new(BASE)), None);
    // SAFETY: as above.
    let refused =
        unsafe { mine.unmap_pages(&root, range(BASE, PAGE), |_, _| panic!("nothing is")) };
    assert!(refused.map(drop).is_err());
    // SAFETY: as above.
    unsafe { mine.unmap_pages(&tables, range(BASE, PAGE), |_, _| ()) }
        .unwrap()
        .complete();
    drop(page);
    for root in roots.into_iter().chain([root]) {
        // SAFETY: as above.
        unsafe { theirs.destroy_page_table(root) };
    }
    theirs.finish();
    end(mine, tables);
}
