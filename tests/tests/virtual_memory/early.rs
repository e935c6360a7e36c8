//! Early mappings: a few slots, in page tables that a simulated CPU walks.

use mm::addr::{PhysAddr, VirtAddr};
use mm::kspace::early::{EARLY_BYTES, EARLY_SLOT_PAGES, EARLY_SLOTS, EarlyMapError, EarlyMaps};
use mm::pagetable::{Attributes, Entry, OutOfTables, Protection};
use mm::platform::{Platform, TlbFlush};
use mm_tests::sim::mmu::{Access, Fault, Registers};
use mm_tests::sim::{Checked, Machine};

use super::tables::Tables;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Where slots begin.
const START: VirtAddr = VirtAddr::new(0xffff_fe00_0010_0000);
/// Pages that a mapping has at most.
const MOST: u64 = EARLY_SLOT_PAGES - 1;

/// A machine that uses page tables, with slots in them.
fn with_slots(body: impl FnOnce(&Machine<Checked>, &Tables<'_, Checked>, &mut EarlyMaps)) {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    {
        let tables = Tables::new(&machine, 4);
        let registers = Registers::kernel(tables.root(), 4);
        let none = mm::addr::VirtRange::EMPTY;
        machine.hardware().switch_paging_on(registers, none);
        body(&machine, &tables, &mut EarlyMaps::new(START));
    }
    machine.finish();
}

fn map(
    tables: &Tables<'_, Checked>,
    slots: &mut EarlyMaps,
    at: u64,
    size: u64,
) -> Result<VirtAddr, EarlyMapError> {
    let set = |page, entry: Entry| {
        tables.set(page, 1, entry.bits());
        Ok(())
    };
    slots.map((PhysAddr::new(at), size), Attributes::KERNEL_RO, set)
}

fn unmap(
    (machine, tables): (&Machine<Checked>, &Tables<'_, Checked>),
    slots: &mut EarlyMaps,
    at: VirtAddr,
) -> Result<(), EarlyMapError> {
    slots.unmap(machine.hardware(), at, |page, entry| {
        tables.set(page, 1, entry.bits());
        Ok(())
    })
}

fn read(machine: &Machine<Checked>, at: VirtAddr, offset: u64) -> Result<u64, Fault> {
    let at = at.checked_add(offset).unwrap();
    machine.touch(at, Access::READ).map(|at| at.as_u64())
}

#[test]
fn what_is_mapped_is_reached_until_it_is_unmapped() {
    with_slots(|machine, tables, slots| {
        // Above all RAM, and not at a page's start.
        let at = map(tables, slots, 0x1_2345_6ff0, 0x20).unwrap();
        assert_eq!(at.as_u64() % PAGE, 0xff0);
        assert_eq!(read(machine, at, 0), Ok(0x1_2345_6ff0));
        assert_eq!(read(machine, at, 0x1f), Ok(0x1_2345_700f));
        assert_eq!(read(machine, at, 2 * PAGE), Err(Fault::Page(0)), "no third");
        let write = machine.touch(at, Access::WRITE);
        assert!(matches!(write, Err(Fault::Page(_))), "to be read only");
        unmap((machine, tables), slots, at).unwrap();
        for page in 0..2 {
            assert_eq!(read(machine, at, page * PAGE), Err(Fault::Page(0)));
        }
        let again = unmap((machine, tables), slots, at);
        assert_eq!(again, Err(EarlyMapError::NotMapped(at)));
        // The same slot leads elsewhere now.
        let next = map(tables, slots, 0x2_0000_0ff0, 1).unwrap();
        assert_eq!((next, read(machine, next, 0)), (at, Ok(0x2_0000_0ff0)));
        unmap((machine, tables), slots, next).unwrap();
        let stats = slots.stats();
        assert_eq!((stats.made, stats.used, stats.most), (2, 0, 1));
    });
}

#[test]
fn slots_are_apart_and_run_out() {
    with_slots(|machine, tables, slots| {
        let mut all = Vec::new();
        for number in 0..EARLY_SLOTS as u64 {
            let phys = 0x4000_0000 + number * MIB;
            let at = map(tables, slots, phys, MOST * PAGE).unwrap();
            assert!(START <= at && at.as_u64() < START.as_u64() + EARLY_BYTES);
            all.push((at, phys));
        }
        for &(at, phys) in &all {
            assert_eq!(read(machine, at, 0), Ok(phys));
            let last = MOST * PAGE - 1;
            assert_eq!(read(machine, at, last), Ok(phys + last));
            let behind = read(machine, at, MOST * PAGE);
            assert_eq!(behind, Err(Fault::Page(0)), "whoever runs off the end");
        }
        let more = map(tables, slots, 0x5000_0000, 1);
        assert_eq!(more, Err(EarlyMapError::NoSlot));
        let (freed, _) = all.remove(3);
        unmap((machine, tables), slots, freed).unwrap();
        assert_eq!(map(tables, slots, 0x5000_0000, 1), Ok(freed));
        assert_eq!(slots.stats().most, EARLY_SLOTS);
        unmap((machine, tables), slots, freed).unwrap();
        for (at, _) in all {
            unmap((machine, tables), slots, at).unwrap();
        }
        assert_eq!(slots.iter().count(), 0);
    });
}

#[test]
fn wrong_requests_are_refused_and_nothing_is_mapped() {
    with_slots(|_, tables, slots| {
        let top = 1_u64 << 52;
        let too_large = EarlyMapError::TooLarge { most: MOST };
        for (at, size, expected) in [
            (0x1000, 0, EarlyMapError::Empty),
            (top - 1, 2, EarlyMapError::BadRange(PhysAddr::new(top - 1))),
            (top, 1, EarlyMapError::BadRange(PhysAddr::new(top))),
            (
                u64::MAX,
                1,
                EarlyMapError::BadRange(PhysAddr::new(u64::MAX)),
            ),
            (0x1000, MOST * PAGE + 1, too_large),
            (0x1001, MOST * PAGE, too_large),
        ] {
            assert_eq!(
                map(tables, slots, at, size),
                Err(expected),
                "{at:#x} {size:#x}"
            );
        }
        for forbidden in [Protection::USER, Protection::WRITE | Protection::EXECUTE] {
            let mut how = Attributes::KERNEL;
            how.protection |= forbidden;
            let refused = slots.map((PhysAddr::new(0), 1), how, |_, _| Ok(()));
            assert_eq!(refused, Err(EarlyMapError::Forbidden(how)));
        }
        // The last byte that there can be.
        let last = map(tables, slots, top - 1, 1).unwrap();
        let mut cleared = Vec::new();
        let refused = slots.map(
            (PhysAddr::new(0), 5 * PAGE),
            Attributes::KERNEL,
            |page, entry| {
                if entry.is_none() {
                    cleared.push(page);
                }
                let third = START.as_u64() + (EARLY_SLOT_PAGES + 2) * PAGE;
                if page.as_u64() < third {
                    Ok(())
                } else {
                    Err(OutOfTables)
                }
            },
        );
        assert_eq!(refused, Err(EarlyMapError::NoTable));
        assert_eq!(cleared.len(), 2, "what was mapped before is taken back");
        assert_eq!(slots.stats().used, 1);
        let gone = slots.iter().next().unwrap().at;
        assert_eq!(gone, last);
        tables.set(last.align_down(PAGE), 1, 0);
    });
}

#[test]
fn what_was_never_unmapped_is_told_with_who_mapped_it() {
    with_slots(|machine, tables, slots| {
        let kept = map(tables, slots, 0x9000_0000, 0x123).unwrap();
        let brief = map(tables, slots, 0x9000_0000, 1).unwrap();
        unmap((machine, tables), slots, brief).unwrap();
        let left: Vec<_> = slots.close().copied().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(
            (left[0].phys.start().as_u64(), left[0].phys.size()),
            (0x9000_0000, 0x123)
        );
        assert!(left[0].place.file().ends_with("early.rs"));
        assert_eq!(map(tables, slots, 0, 1), Err(EarlyMapError::Closed));
        // Somebody else's memory, perhaps: the tables are not written to any more.
        let refused = slots.unmap(machine.hardware(), kept, |page, _| panic!("{page:?}"));
        assert_eq!(refused, Err(EarlyMapError::Closed));
        assert_eq!(read(machine, kept, 0), Ok(0x9000_0000));
        let none = slots.unmap(machine.hardware(), brief, |page, _| panic!("{page:?}"));
        assert_eq!(none, Err(EarlyMapError::NotMapped(brief)));
        assert_eq!(slots.close().count(), 1);
        tables.set(kept.align_down(PAGE), 1, 0);
        machine.hardware().flush_tlb_here(TlbFlush::All);
    });
}
