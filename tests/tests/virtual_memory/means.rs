//! The ways of forgetting translations that CPUs have, all of them: with and without global pages, PCIDs and INVPCID.
//! The emulator has neither of the latter two, so this is where they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mm::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Cache, Change, Level, PageSize, Protection};
use mm::platform::{Platform, TlbFeatures, TlbFlush};
use mm::system::Block;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::mmu::{Access, Fault, Registers, bit};
use mm_tests::sim::tlb::Done;
use mm_tests::sim::{Checked, Machine};

use super::tables::Tables;

const MIB: u64 = 1 << 20;
const KERNEL: u64 = bit::P | bit::RW;
/// Of a value for CR3: what is remembered of the address space is kept.
const KEEP: u64 = 1 << 63;

/// The kernel's pages, and those of an address space.
const fn kernel(page: u64) -> VirtAddr {
    VirtAddr::new(0xffff_c900_0000_0000 + page * 4096)
}
const USER: VirtAddr = VirtAddr::new(0x40_0000);

fn pages(start: VirtAddr, count: u64) -> VirtRange {
    VirtRange::from_size(start, count * 4096).unwrap()
}

fn all_means() -> impl Iterator<Item = TlbFeatures> {
    (0..8).map(|bits| TlbFeatures {
        global_pages: bits & 1 != 0,
        pcids: bits & 2 != 0,
        invpcid: bits & 4 != 0,
    })
}

fn registers(tables: &Tables<'_, Checked>, means: TlbFeatures) -> Registers {
    let mut registers = Registers::kernel(tables.root(), 4);
    registers.pge = means.global_pages;
    registers.pcide = means.pcids;
    registers.invpcid = means.invpcid;
    registers
}

/// Runs something with all means, with tables in which there are the tables for some pages.
fn with_all_means(body: impl Fn(TlbFeatures, &Machine<Checked>, &Tables<'_, Checked>)) {
    for means in all_means() {
        let machine = Machine::<Checked>::with_ram(16 * MIB);
        {
            let tables = Tables::new(&machine, 4);
            let registers = registers(&tables, means);
            machine
                .hardware()
                .switch_paging_on(registers, VirtRange::EMPTY);
            body(means, &machine, &tables);
            machine.hardware().flush_tlb_here(TlbFlush::All);
        }
        machine.finish();
    }
}

/// Goes to an address space, which has the same tables, without forgetting anything.
fn go_to(machine: &Machine<Checked>, pcid: u64) {
    machine.hardware().with_tlb(|registers, tlb| {
        if registers.pcide {
            let value = registers.root() | pcid | KEEP;
            tlb.load_cr3(registers, value);
        }
    });
}

fn read(machine: &Machine<Checked>, at: VirtAddr) -> Result<u64, Fault> {
    let found = machine.touch(at, Access::READ);
    found.map(|found| found.as_u64())
}

/// Whatever was used in whatever address space: after a flush it is used no more. The instructions are as few as
/// will do for that.
#[test]
fn a_flush_reaches_all_address_spaces_in_as_few_instructions_as_will_do() {
    type Flush = fn(&Machine<Checked>);
    let flushes: [(&str, VirtAddr, u64, Flush); 4] = [
        ("all", kernel(0), 2, |machine| machine.flush_tlb_all()),
        ("two pages", kernel(0), 2, |machine| {
            machine.flush_tlb(pages(kernel(0), 2));
        }),
        ("pages of programs", USER, 1, |machine| {
            machine.flush_tlb(pages(USER, 1));
        }),
        ("tables", kernel(0), 2, |machine| {
            machine.flush_tlb_tables(pages(kernel(0), 2));
        }),
    ];
    for (name, start, count, flush) in flushes {
        with_all_means(|means, machine, tables| {
            let touched: Vec<_> = (0..count)
                .map(|page| start.checked_add(page * 4096).unwrap())
                .collect();
            // The kernel's pages are global.
            let global = if start == USER { 0 } else { bit::G };
            for (&at, frame) in touched.iter().zip([0x10_0000, 0x20_0000]) {
                tables.set(at, 1, frame | KERNEL | global);
            }
            for pcid in 0..3 {
                go_to(machine, pcid);
                assert!(touched.iter().all(|&at| read(machine, at).is_ok()));
            }
            touched
                .iter()
                .for_each(|&at| tables.set(at, 1, 0x30_0000 | KERNEL));
            let done = || machine.hardware().with_tlb(|_, tlb| tlb.done());
            let before = done();
            flush(machine);
            let after = done();
            for pcid in 0..3 {
                go_to(machine, pcid);
                for &at in &touched {
                    let what = format!("{name} with {means:?}: {at:?} in space {pcid}");
                    assert_eq!(read(machine, at), Ok(0x30_0000), "{what}");
                }
            }
            let found = [
                after.invlpg - before.invlpg,
                after.invpcid - before.invpcid,
                after.cr3 - before.cr3,
                after.cr4 - before.cr4,
            ];
            let by_page = match name {
                "all" => false,
                "two pages" => !means.pcids || means.global_pages,
                _ => !means.pcids,
            };
            let expected = match means {
                _ if by_page => [count, 0, 0, 0],
                TlbFeatures { invpcid: true, .. } => [0, 1, 0, 0],
                TlbFeatures {
                    global_pages: false,
                    pcids: false,
                    ..
                } => [0, 0, 1, 0],
                _ => [0, 0, 0, 2],
            };
            assert_eq!(found, expected, "{name} with {means:?}");
        });
    }
}

/// Pages of the kernel's half are global whatever was asked for: else the flush of one page would leave it to other
/// address spaces.
#[test]
fn pages_of_the_kernel_are_forgotten_in_all_address_spaces_however_they_were_mapped() {
    let plain = Attributes {
        protection: Protection::WRITE,
        cache: Cache::WriteBack,
    };
    for means in all_means() {
        let mut machine = Machine::<Checked>::with_ram(16 * MIB);
        let tables = machine.new_page_table(Level::P4D).unwrap();
        // CPUs go by the root until the end.
        assert!(machine.drain_all_pages());
        machine.rebase();
        let mut registers = Registers::kernel(tables.root().addr(), 4);
        registers.pge = means.global_pages;
        registers.pcide = means.pcids;
        registers.invpcid = means.invpcid;
        machine
            .hardware()
            .switch_paging_on(registers, VirtRange::EMPTY);
        let frames = |first| PfnRange::from_count(Pfn::new(first), 2).unwrap();
        let (first, second) = (kernel(0), kernel(16));
        let other = VirtRange::from_size(second, 2 * 4096).unwrap();
        // SAFETY: nobody uses what is there; also below.
        unsafe {
            let row = (first, frames(0x100));
            machine
                .map_pages(&tables, row, plain, PageSize::Size4K)
                .unwrap();
            let each = |page| Pfn::new(0x200 + page);
            machine.map_each_page(&tables, other, each, plain).unwrap();
            let less = Change::Forbid(Protection::GLOBAL | Protection::WRITE);
            machine
                .change_pages(&tables, other, less)
                .unwrap()
                .complete();
        }
        for pcid in 0..3 {
            go_to(&machine, pcid);
            assert_eq!(read(&machine, first), Ok(0x10_0000));
            assert_eq!(read(&machine, second), Ok(0x20_0000));
        }
        for at in [first, second] {
            let found = machine.walk(&tables, at).leaf().unwrap();
            assert!(found.attributes.protection.contains(Protection::GLOBAL));
            // One that stays: so no table is freed, and only pages are forgotten.
            // SAFETY: as above.
            let gone = unsafe { machine.unmap_pages(&tables, pages(at, 1), |_, _| ()) };
            gone.unwrap().complete();
        }
        for pcid in 0..3 {
            go_to(&machine, pcid);
            for at in [first, second] {
                let found = read(&machine, at);
                assert_eq!(found, Err(Fault::Page(0)), "{means:?}: {at:?} in {pcid}");
            }
        }
        // SAFETY: nobody uses them any more.
        unsafe {
            for at in [first, second] {
                let gone = machine.unmap_pages(&tables, pages(at, 2), |_, _| ());
                gone.unwrap().complete();
            }
        }
        machine.hardware().flush_tlb_here(TlbFlush::All);
        let root = PfnRange::block(tables.root(), Order::ZERO);
        // SAFETY: nothing is mapped, and the root is nobody else's below.
        unsafe { machine.destroy_page_table(tables) };
        machine.grace().barrier().unwrap();
        assert!(machine.drain_all_pages());
        let root = machine.alloc_contig_range(root, Gfp::KERNEL).unwrap();
        machine.hardware().flush_tlb_here(TlbFlush::All);
        std::mem::forget(root);
        machine.finish();
    }
}

/// A table that another address space has walked by may be freed after a flush of tables: the simulator fails the test
/// where a CPU still goes by it.
#[test]
fn tables_are_forgotten_in_all_address_spaces() {
    with_all_means(|_, machine, tables| {
        tables.set(kernel(1), 1, 0x10_0000 | KERNEL | bit::G);
        for pcid in [1, 2] {
            go_to(machine, pcid);
            assert!(read(machine, kernel(1)).is_ok());
        }
        let table = tables.take_table(kernel(1), 1);
        machine.flush_tlb_tables(pages(kernel(0), 512));
        drop(table);
        for pcid in [1, 2] {
            go_to(machine, pcid);
            assert_eq!(read(machine, kernel(2)), Err(Fault::Page(0)));
        }
        // Few pages, not enough for a flush of everything by themselves.
        tables.set(kernel(1), 1, 0x10_0000 | KERNEL | bit::G);
        for pcid in [1, 2] {
            go_to(machine, pcid);
            assert!(read(machine, kernel(1)).is_ok());
        }
        let table = tables.take_table(kernel(1), 1);
        machine.flush_tlb_tables(pages(kernel(1), 1));
        drop(table);
        for pcid in [1, 2] {
            go_to(machine, pcid);
            assert_eq!(read(machine, kernel(2)), Err(Fault::Page(0)));
        }
    });
}

/// CPUs map pages elsewhere and free what was there, and read by what they have in whatever address space. Answers
/// how many accesses there were, and by what the CPUs forgot.
fn churn(means: TlbFeatures, changes: u64, seed: u64) -> (u64, Done) {
    const CPUS: u32 = 2;
    const PAGES: u64 = 32;
    let machine = Machine::<Checked>::new().ram(0, 16 * MIB).cpus(CPUS).boot();
    let (reads, left) = (AtomicU64::new(0), AtomicU64::new(u64::from(CPUS)));
    let finished = AtomicU64::new(0);
    let mut done = Done::default();
    {
        let tables = Tables::new(&machine, 4);
        let entries: Vec<_> = (0..PAGES)
            .map(|page| tables.entry(kernel(page), 1))
            .collect();
        let registers = registers(&tables, means);
        machine
            .hardware()
            .switch_paging_on(registers, VirtRange::EMPTY);
        let (machine, entries, reads, left) = (&machine, &entries, &reads, &left);
        let finished = &finished;
        let work = move |cpu: u32| {
            let mut random = Random::new(seed ^ u64::from(cpu));
            let mut held = (0..PAGES).map(|_| None).collect::<Vec<_>>();
            let mut rest = changes;
            while rest > 0 || left.load(Ordering::Acquire) > 0 {
                machine.serve_tlb();
                let page = random.below(PAGES);
                match random.below(12) {
                    0 if rest > 0 && page % u64::from(CPUS) == u64::from(cpu) => {
                        rest -= 1;
                        if rest == 0 {
                            left.fetch_sub(1, Ordering::AcqRel);
                        }
                        let new = Block::alloc(&**machine, Gfp::KERNEL, Order::ZERO).unwrap();
                        let entry = new.pfn().addr().as_u64() | KERNEL | bit::G;
                        entries[page as usize].store(entry, Ordering::Release);
                        let old = held[page as usize].replace(new);
                        match random.below(6) {
                            0 => machine.flush_tlb_all(),
                            1 => machine.flush_tlb_tables(pages(kernel(page), 1)),
                            _ => machine.flush_tlb(pages(kernel(page), 1)),
                        }
                        drop(old);
                    }
                    1 => go_to(machine, random.below(4)),
                    _ => {
                        // A hit on a page that was freed fails the test here.
                        let _ = machine.hardware().touch(kernel(page), Access::READ);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            let mine = (0..PAGES).filter(|page| page % u64::from(CPUS) == u64::from(cpu));
            mine.for_each(|page| entries[page as usize].store(0, Ordering::Release));
            machine.flush_tlb(pages(kernel(0), PAGES));
            drop(held);
            finished.fetch_add(1, Ordering::AcqRel);
            // The other one may be waiting for this one.
            while finished.load(Ordering::Acquire) < u64::from(CPUS) {
                machine.serve_tlb();
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let other = scope.spawn(move || {
                let _here = machine.cpu(1);
                work(1);
                machine.hardware().with_tlb(|_, tlb| tlb.done())
            });
            work(0);
            let (here, there) = (
                machine.hardware().with_tlb(|_, tlb| tlb.done()),
                other.join().unwrap(),
            );
            done.invlpg = here.invlpg + there.invlpg;
            done.invpcid = here.invpcid + there.invpcid;
            done.cr4 = here.cr4 + there.cr4;
        });
        machine.flush_tlb_all();
    }
    machine.finish();
    (reads.into_inner(), done)
}

/// R31 with all means: no CPU uses a page that was freed after a flush, in whatever address space it was used
/// before. `MM_CASES` sets how many pages each CPU maps elsewhere.
#[test]
fn no_cpu_uses_a_page_that_was_freed_whatever_it_forgets_by() {
    let (seed, cases) = (seed("tlb_means"), cases(120));
    for means in all_means() {
        let (reads, done) = churn(means, cases, seed);
        assert!(reads > cases, "{means:?}");
        assert_eq!(done.invpcid > 0, means.invpcid, "{means:?}: {done:?}");
        let toggles = !means.invpcid && (means.pcids || means.global_pages);
        assert_eq!(done.cr4 > 0, toggles, "{means:?}: {done:?}");
        let by_page = !means.pcids || means.global_pages;
        assert_eq!(done.invlpg > 0, by_page, "{means:?}: {done:?}");
    }
}
