//! R31 on the library's own page tables: what was unmapped, forbidden, split or joined is so on every CPU when the receipt
//! is complete, and not before are frames and tables anybody else's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mm::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Change, Level, MapError, PageSize, PageTable, Protection};
use mm::sync::shootdown::Lazy;
use mm::system::{Block, Memory};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::mmu::{Access, Fault, Registers, code};
use mm_tests::sim::{Checked, Machine, SimPlatform};

const MIB: u64 = 1 << 20;
const HUGE: u64 = 2 * MIB;
const BASE: u64 = 0xffff_c900_0000_0000;
/// Pages of a small slot.
const SMALL: u64 = 8;

type World = Machine<Checked>;
type Pages<'m> = Block<&'m Memory<SimPlatform<Checked>>>;

/// Addresses of one CPU's, and what others may expect of them.
struct Slot {
    start: u64,
    /// Odd: a write to any page of it must fault. Counts up at every change.
    state: AtomicU64,
}

impl Slot {
    fn at(start: u64) -> Self {
        Self {
            start,
            state: AtomicU64::new(0),
        }
    }

    fn range(&self, pages: u64) -> VirtRange {
        VirtRange::from_size(VirtAddr::new(self.start), pages * 4096).unwrap()
    }

    /// From now on nobody writes.
    fn forbid(&self) {
        self.state.fetch_or(1, Ordering::Release);
    }

    /// Who writes may succeed again.
    fn allow(&self) {
        self.state.fetch_add(2, Ordering::AcqRel);
        self.state.fetch_and(!1, Ordering::Release);
    }
}

struct Churn<'m> {
    machine: &'m World,
    tables: PageTable,
    /// Two for each CPU: one of a few pages, next to those of the others, and one of 2 MiB.
    slots: Vec<[Slot; 2]>,
}

impl Churn<'_> {
    fn new(machine: &World, cpus: u32) -> Churn<'_> {
        let tables = machine.new_page_table(Level::P4D).unwrap();
        let registers = Registers::kernel(tables.root().addr(), 4);
        machine
            .hardware()
            .switch_paging_on(registers, VirtRange::EMPTY);
        let slots = (0..u64::from(cpus))
            .map(|cpu| {
                let small = BASE + cpu * (SMALL + 1) * 4096;
                [Slot::at(small), Slot::at(BASE + (1 << 30) + cpu * HUGE)]
            })
            .collect();
        Churn {
            machine,
            tables,
            slots,
        }
    }

    /// Looks at any address, as others change what is there.
    fn touch(&self, random: &mut Random) {
        let slots = &self.slots[random.below_index(self.slots.len())];
        let (slot, pages) = match random.below(2) {
            0 => (&slots[0], SMALL),
            _ => (&slots[1], HUGE / 4096),
        };
        let access = [Access::READ, Access::WRITE][random.below_index(2)];
        let at = VirtAddr::new(slot.start + random.below(pages) * 4096 + random.below(4096));
        // Interrupts come now and then.
        if random.below(4) == 0 {
            self.machine.serve_tlb();
        }
        let before = slot.state.load(Ordering::Acquire);
        let found = self.machine.hardware().touch(at, access);
        let after = slot.state.load(Ordering::Acquire);
        let is_forbidden = before == after && before & 1 == 1;
        match found {
            Ok(_) => assert!(
                !is_forbidden || access == Access::READ,
                "a write to {at:?}, which is forbidden"
            ),
            Err(Fault::Page(bits)) => assert_eq!(bits & code::RSVD, 0, "{at:?}"),
            Err(fault) => panic!("{at:?}: {fault:?}"),
        }
    }

    /// Maps a slot, changes it, and takes it away; `looks` between.
    fn turn(&self, cpu: usize, random: &mut Random, looks: u64) {
        let is_large = random.below(4) == 0;
        let (slot, order) = match is_large {
            true => (&self.slots[cpu][1], Order::PAGEBLOCK),
            false => (&self.slots[cpu][0], Order::new(3).unwrap()),
        };
        let Ok(pages) = Block::alloc(&**self.machine, Gfp::KERNEL | Gfp::NOWARN, order) else {
            return;
        };
        self.map(slot, &pages, random);
        self.look(random, looks);
        let count = order.frames();
        if random.below(2) == 0 {
            self.change(slot, count, Change::Forbid(Protection::WRITE));
            slot.forbid();
            self.look(random, looks);
            if is_large {
                self.join(slot, random);
                self.look(random, looks);
            }
            slot.allow();
            self.change(slot, count, Change::Allow(Protection::WRITE));
        } else if is_large {
            // A part only: a large page is split, and what is around it stays.
            let middle = VirtRange::from_size(VirtAddr::new(slot.start + MIB), 3 * 4096).unwrap();
            self.change_range(middle, Change::Forbid(Protection::WRITE));
            self.look(random, looks);
            self.change_range(middle, Change::Allow(Protection::WRITE));
            self.join(slot, random);
        }
        self.look(random, looks);
        self.unmap(slot, &pages, random);
        // Whoever goes by what it remembers now ends the test.
        drop(pages);
        let _ = self.machine.grace().quiescent();
    }

    fn look(&self, random: &mut Random, looks: u64) {
        (0..looks).for_each(|_| self.touch(random));
        self.machine.serve_tlb();
    }

    fn map(&self, slot: &Slot, pages: &Pages<'_>, random: &mut Random) {
        let frames = PfnRange::block(pages.pfn(), pages.order());
        let row = (VirtAddr::new(slot.start), frames);
        let largest = [PageSize::Size4K, PageSize::Size2M][random.below_index(2)];
        // SAFETY: nobody reaches anything by these tables but tests that ask them; also below.
        let mapped = unsafe {
            self.machine
                .map_pages(&self.tables, row, Attributes::KERNEL, largest)
        };
        mapped.unwrap();
        if random.below(8) == 0 {
            // Refused: what was there stays.
            // SAFETY: as above.
            let again = unsafe {
                self.machine
                    .map_pages(&self.tables, row, Attributes::KERNEL, largest)
            };
            assert!(matches!(again, Err(MapError::Occupied(_))));
        }
    }

    fn change(&self, slot: &Slot, pages: u64, change: Change) {
        self.change_range(slot.range(pages), change);
    }

    fn change_range(&self, range: VirtRange, change: Change) {
        // SAFETY: as above.
        let receipt = unsafe { self.machine.change_pages(&self.tables, range, change) };
        receipt.unwrap().complete();
    }

    fn join(&self, slot: &Slot, random: &mut Random) {
        let range = slot.range(HUGE / 4096);
        // SAFETY: as above.
        let receipt = unsafe {
            self.machine
                .join_pages(&self.tables, range, PageSize::Size2M)
        };
        // A receipt that is dropped is completed.
        match random.below(2) {
            0 => receipt.unwrap().complete(),
            _ => drop(receipt),
        }
    }

    fn unmap(&self, slot: &Slot, pages: &Pages<'_>, random: &mut Random) {
        let all = slot.range(pages.order().frames());
        let middle = all.start().checked_add(all.size() / 8192 * 4096).unwrap();
        let first = VirtRange::new(all.start(), middle).unwrap();
        let second = VirtRange::new(middle, all.end()).unwrap();
        let unmap = |range| {
            // SAFETY: as above.
            unsafe { self.machine.unmap_pages(&self.tables, range, |_, _| ()) }.unwrap()
        };
        match random.below(3) {
            0 => unmap(all).complete(),
            // One flush for both.
            1 => {
                let late = unmap(first);
                late.merge(unmap(second)).complete();
            }
            _ => {
                unmap(second).complete();
                self.look(random, 4);
                unmap(first).complete();
            }
        }
    }
}

/// All CPUs change what they have, and look at everything. Answers how many flushes there were.
fn churn(cpus: u32, turns: u64, seed: u64) -> u64 {
    let machine = Machine::new().ram(0, 64 * MIB).cpus(cpus + 1).boot();
    let churn = Churn::new(&machine, cpus);
    let left = AtomicU64::new(u64::from(cpus));
    let failed = AtomicBool::new(false);
    machine.idle(Lazy::Offline, || {
        thread::scope(|scope| {
            for cpu in 0..cpus {
                let (churn, machine, left, failed) = (&churn, &machine, &left, &failed);
                scope.spawn(move || {
                    let _here = machine.cpu(cpu + 1);
                    let _fails = Fails(failed);
                    let mut random = Random::new(seed ^ u64::from(cpu));
                    for _ in 0..turns {
                        churn.turn(cpu as usize, &mut random, 6);
                        if random.below(16) == 0 {
                            machine.idle(Lazy::Idle, thread::yield_now);
                        }
                    }
                    left.fetch_sub(1, Ordering::AcqRel);
                    // The others wait for this CPU when they flush.
                    while left.load(Ordering::Acquire) > 0 && !failed.load(Ordering::Acquire) {
                        churn.look(&mut random, 4);
                        let _ = machine.grace().quiescent();
                        thread::yield_now();
                    }
                });
            }
        });
    });
    let tables = churn.tables;
    assert_eq!(machine.validate_page_table(&tables), Ok(2));
    let flushes = machine.tlb_generation();
    machine.flush_tlb_all();
    // SAFETY: no CPU uses them: paging ends with the machine.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
    flushes
}

/// Tells the others that this thread is about to panic, so that they do not wait for it.
struct Fails<'f>(&'f AtomicBool);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

#[test]
fn changes_of_one_cpu_are_seen_by_all_before_its_receipt_is_complete() {
    let seed = seed("pages");
    for (round, cpus) in [(1, 1), (2, 2), (3, 4)] {
        let flushes = churn(cpus, cases(150), seed.wrapping_add(round));
        println!("{cpus} CPUs: {flushes} flushes");
    }
}

/// Eight CPUs, 16 seeds. `MM_CASES` sets how often each CPU maps, changes and unmaps a range.
#[test]
fn eight_cpus_change_page_tables_under_each_other() {
    let (seed, cases) = (seed("pages_8"), cases(25));
    let flushes: u64 = (0..16)
        .map(|round| churn(8, cases, seed.wrapping_add(round)))
        .sum();
    println!("{flushes} flushes");
    assert!(flushes > 16 * 8 * cases);
}
