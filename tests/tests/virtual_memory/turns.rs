//! R31 in turns: one host thread is all eight CPUs, one after the other, so that an operation costs microseconds and a seed
//! says all that happens. Whenever the library calls its platform, in the middle of anything, other CPUs look at addresses by
//! what they remember, and serve their interrupts or not yet. With threads of their own: `pages`.

use std::cell::{Cell, RefCell};

use mm::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Change, Level, PageSize, PageTable, Protection};
use mm::sync::shootdown::Lazy;
use mm::system::{Block, Memory};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::mmu::{Access, Fault, Kind, Registers, code};
use mm_tests::sim::{Checked, Machine, SimPlatform};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const HUGE: u64 = 2 * MIB;
const BASE: u64 = 0xffff_c900_0000_0000;
const CPUS: u32 = 8;
/// Slots of up to eight pages: four to a table of pages, the tables below three others.
const SMALL: u64 = 48;
/// Slots of 2 MiB.
const LARGE: u64 = 3;

type World = Machine<Checked>;
type Pages<'m> = Block<&'m Memory<SimPlatform<Checked>>>;

/// Addresses, and what is mapped there.
struct Slot<'m> {
    start: u64,
    pages: RefCell<Option<Pages<'m>>>,
    /// Which of its pages nobody may write to, as everybody knows by now.
    forbidden: Cell<Option<VirtRange>>,
    /// Nothing is mapped, as everybody knows.
    is_gone: Cell<bool>,
}

struct Turns<'m> {
    machine: &'m World,
    tables: PageTable,
    slots: Vec<Slot<'m>>,
    /// For those who look.
    random: RefCell<Random>,
    looks: Cell<u64>,
    operations: Cell<u64>,
}

impl<'m> Turns<'m> {
    fn new(machine: &'m World, seed: u64) -> Self {
        let tables = machine.new_page_table(Level::P4D).unwrap();
        let registers = Registers::kernel(tables.root().addr(), 4);
        let hardware = machine.hardware();
        hardware.switch_paging_on(registers, VirtRange::EMPTY);
        let small = (0..SMALL).map(|slot| {
            let (table, place) = (slot / 4, slot % 4);
            BASE + (table % 3) * (1 << 30) + table / 3 * HUGE + place * 9 * PAGE
        });
        let large = (0..LARGE).map(|slot| BASE + (8 << 30) + slot * HUGE);
        let slot = |start| Slot {
            start,
            pages: RefCell::default(),
            forbidden: Cell::new(None),
            is_gone: Cell::new(true),
        };
        // Each CPU is there, and waited for, whoever is on it right now. The thread's own is offline.
        for cpu in 1..=CPUS {
            let here = hardware.cpu(cpu);
            machine.tlb_lazy_leave();
            machine.return_cpu();
            drop(here);
        }
        Turns {
            machine,
            tables,
            slots: small.chain(large).map(slot).collect(),
            random: RefCell::new(Random::new(seed ^ 1)),
            looks: Cell::new(0),
            operations: Cell::new(0),
        }
    }

    /// Does something on a CPU.
    fn on<R>(&self, cpu: u32, body: impl FnOnce() -> R) -> R {
        let _here = self.machine.hardware().cpu(cpu);
        body()
    }

    /// A point in the midst of something on `current`: another CPU looks at something, or some serve their interrupts.
    fn point(&self, current: u32) {
        let mut random = self.random.borrow_mut();
        match random.below(8) {
            0 => {
                let cpu = 1 + random.below(u64::from(CPUS)) as u32;
                if cpu == current {
                    return self.look(&mut random);
                }
                self.on(cpu, || self.look(&mut random));
            }
            1 => {
                for cpu in (1..=CPUS).filter(|&cpu| cpu != current) {
                    if random.below(2) == 0 {
                        self.on(cpu, || self.machine.serve_tlb());
                    }
                }
            }
            _ => {}
        }
    }

    /// Goes by what this CPU remembers, or walks: a translation, or a table, that was freed since ends the test.
    fn look(&self, random: &mut Random) {
        let slot = &self.slots[random.below_index(self.slots.len())];
        let pages = if slot.start >= BASE + (8 << 30) {
            HUGE / PAGE
        } else {
            8
        };
        let access = [Access::READ, Access::WRITE][random.below_index(2)];
        let at = VirtAddr::new(slot.start + random.below(pages) * PAGE + random.below(PAGE));
        self.looks.set(self.looks.get() + 1);
        match self.machine.hardware().touch(at, access) {
            Ok(_) => {
                let forbidden = slot.forbidden.get();
                let is_forbidden = forbidden.is_some_and(|range| range.contains(at));
                assert!(
                    !is_forbidden || access.kind != Kind::Write,
                    "a write to {at:?}, which is forbidden"
                );
                assert!(!slot.is_gone.get(), "{at:?}, which is mapped no more");
            }
            Err(Fault::Page(bits)) => assert_eq!(bits & code::RSVD, 0, "{at:?}"),
            Err(fault) => panic!("{at:?}: {fault:?}"),
        }
    }

    fn done(&self) {
        self.operations.set(self.operations.get() + 1);
    }

    /// Changes what is at a slot.
    fn step(&self, random: &mut Random) {
        let is_large = random.below(200) == 0;
        let index = match is_large {
            true => SMALL + random.below(LARGE),
            false => random.below(SMALL),
        };
        let slot = &self.slots[index as usize];
        if slot.pages.borrow().is_none() {
            let order = match is_large {
                true => Order::PAGEBLOCK,
                false => Order::new(random.below(4) as u8).unwrap(),
            };
            if let Ok(pages) = Block::alloc(&**self.machine, Gfp::KERNEL | Gfp::NOWARN, order) {
                self.map(slot, pages, random);
            }
            return;
        }
        match random.below(8) {
            0 | 1 => self.forbid(slot, random),
            2 if is_large => self.join(slot),
            // Other frames at the same addresses (migration).
            2 => {
                let old = self.unmap(slot, random);
                let new = Block::alloc(&**self.machine, Gfp::KERNEL | Gfp::NOWARN, old.order());
                if let Ok(new) = new {
                    self.map(slot, new, random);
                }
                drop(old);
            }
            // The same frames at other addresses (mremap).
            3 if !is_large => {
                let other = &self.slots[random.below(SMALL) as usize];
                let pages = self.unmap(slot, random);
                match other.pages.borrow().is_none() {
                    true => {}
                    false => return,
                }
                self.map(other, pages, random);
            }
            // Whoever goes by what it remembers afterwards ends the test.
            _ => drop(self.unmap(slot, random)),
        }
    }

    fn range(&self, slot: &Slot<'_>) -> VirtRange {
        let pages = slot.pages.borrow();
        let frames = pages.as_ref().map_or(0, |pages| pages.order().frames());
        VirtRange::from_size(VirtAddr::new(slot.start), frames * PAGE).unwrap()
    }

    fn map(&self, slot: &Slot<'m>, pages: Pages<'m>, random: &mut Random) {
        let frames = PfnRange::block(pages.pfn(), pages.order());
        let row = (VirtAddr::new(slot.start), frames);
        let largest = [PageSize::Size4K, PageSize::Size2M][random.below_index(2)];
        slot.is_gone.set(false);
        // SAFETY: nobody reaches anything by these tables but tests that ask them; also below.
        let mapped = unsafe {
            self.machine
                .map_pages(&self.tables, row, Attributes::KERNEL, largest)
        };
        mapped.unwrap();
        self.done();
        slot.pages.replace(Some(pages));
    }

    /// Forbids writing to some pages, or allows it again.
    fn forbid(&self, slot: &Slot<'m>, random: &mut Random) {
        let all = self.range(slot);
        let change = |range, change| {
            // SAFETY: as above.
            let receipt = unsafe { self.machine.change_pages(&self.tables, range, change) };
            receipt.unwrap().complete();
            self.done();
        };
        if slot.forbidden.take().is_some() {
            return change(all, Change::Allow(Protection::WRITE));
        }
        let first = random.below(all.pages());
        let count = 1 + random.below((all.pages() - first).min(3));
        let start = all.start().checked_add(first * PAGE).unwrap();
        let part = VirtRange::from_size(start, count * PAGE).unwrap();
        change(part, Change::Forbid(Protection::WRITE));
        slot.forbidden.set(Some(part));
    }

    fn join(&self, slot: &Slot<'m>) {
        let range = self.range(slot);
        // SAFETY: as above.
        let receipt = unsafe {
            self.machine
                .join_pages(&self.tables, range, PageSize::Size2M)
        };
        receipt.unwrap().complete();
        self.done();
    }

    /// Takes a slot's pages away, in one piece or in two; they are the caller's.
    fn unmap(&self, slot: &Slot<'m>, random: &mut Random) -> Pages<'m> {
        let all = self.range(slot);
        slot.forbidden.set(None);
        let middle = all.start().checked_add(all.pages() / 2 * PAGE).unwrap();
        let [first, second] = [(all.start(), middle), (middle, all.end())]
            .map(|(start, end)| VirtRange::new(start, end).unwrap());
        let unmap = |range| {
            self.done();
            // SAFETY: as above.
            unsafe { self.machine.unmap_pages(&self.tables, range, |_, _| ()) }.unwrap()
        };
        match random.below(4) {
            0 if !first.is_empty() => {
                let late = unmap(first);
                late.merge(unmap(second)).complete();
            }
            1 if !first.is_empty() => {
                unmap(second).complete();
                // A receipt that is dropped is completed.
                drop(unmap(first));
            }
            _ => unmap(all).complete(),
        }
        slot.is_gone.set(true);
        slot.pages.take().unwrap()
    }

    /// No CPU is in the midst of anything.
    fn quiesce(&self) {
        for cpu in 1..=CPUS {
            self.on(cpu, || {
                self.machine.serve_tlb();
                let _ = self.machine.grace().quiescent();
            });
        }
    }

    fn run(&self, operations: u64, seed: u64) {
        let mut random = Random::new(seed);
        let mut round = 0_u64;
        while self.operations.get() < operations {
            let cpu = 1 + random.below(u64::from(CPUS)) as u32;
            let handler = || self.point(cpu);
            self.on(cpu, || {
                let step = || self.step(&mut random);
                let _ = self.machine.hardware().with_nmis(handler, step);
            });
            round += 1;
            if round.is_multiple_of(32) {
                self.quiesce();
            }
        }
    }

    fn end(self) {
        let mut random = Random::new(0);
        for slot in &self.slots {
            if slot.pages.borrow().is_some() {
                drop(self.unmap(slot, &mut random));
            }
        }
    }
}

/// All CPUs in turn. Answers how many operations, looks and flushes there were.
fn turns(operations: u64, seed: u64) -> [u64; 3] {
    let machine = World::new().ram(0, 64 * MIB).cpus(CPUS + 1).boot();
    let turns = Turns::new(&machine, seed);
    machine.idle(Lazy::Offline, || turns.run(operations, seed));
    let (tables, looks, done) = (turns.tables, turns.looks.get(), turns.operations.get());
    // They go as they would when their thread ends.
    for cpu in 1..=CPUS {
        drop(machine.cpu(cpu));
    }
    turns.end();
    machine.grace().barrier().unwrap();
    let counted = machine.validate_page_table(&tables).unwrap();
    assert!(counted <= 1 + 2, "{counted}");
    let flushes = machine.tlb_generation();
    machine.flush_tlb_all();
    // SAFETY: no CPU uses them: paging ends with the machine.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
    [done, looks, flushes]
}

/// Eight CPUs, 16 seeds, a million operations in all; `MM_CASES` sets how many for each seed (CI: a million).
#[test]
fn a_million_changes_of_eight_cpus_leave_no_stale_translation() {
    let (seed, operations) = (seed("turns"), cases(62_500));
    let add =
        |all: [u64; 3], found: [u64; 3]| std::array::from_fn(|index| all[index] + found[index]);
    let some = |first: u64| {
        let found = (first..16).step_by(2);
        let found = found.map(|round| turns(operations, seed.wrapping_add(round)));
        found.fold([0; 3], add)
    };
    // Machines of their own, so two threads are twice as fast and change nothing else.
    let [done, looks, flushes] = std::thread::scope(|scope| {
        let other = scope.spawn(|| some(1));
        add(some(0), other.join().unwrap())
    });
    println!("{done} operations, {looks} looks between their steps, {flushes} flushes");
    assert!(done >= 16 * operations && looks > done && flushes > done / 4);
}
