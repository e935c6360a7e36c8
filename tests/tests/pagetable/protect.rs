//! `set_memory_*`: what the kernel may do with its own pages, against a list of pages; no CPU goes by what was.

use mm::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::{Layout, PAGE_SIZE};
use mm::pagetable::{
    Attributes, ChangeError, Level, PageSize, PageTable, ProtectError, RangeError,
};
use mm::platform::{PageAccess, Platform, TlbFlush};
use mm_tests::for_every_config;
use mm_tests::rights::{Name, Page, allowed};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::mmu::Registers;
use mm_tests::sim::{Machine, SimConfig};

use crate::model::range;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DIRECT: u64 = 0xffff_8800_0000_0000;
const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// What is mapped of either.
const DIRECT_BYTES: u64 = 4 * GIB;
const IMAGE_BYTES: u64 = 16 * MIB;

for_every_config! {
    random_protection_agrees_with_a_list_of_pages,
    no_page_can_be_both_written_and_executed,
    ranges_that_are_not_the_kernels_are_refused,
    without_memory_for_tables_nothing_is_protected,
    small_pages_come_and_go_without_a_lock,
    large_pages_do_not_come_and_go,
}

/// Pages of a direct map that has small ones only.
const SMALL: u64 = 1500;

/// Tables of a kernel: a direct map with the largest pages, and an image that can be executed.
fn kernel<C: SimConfig>(machine: &Machine<C>, largest: PageSize) -> PageTable {
    let parts = [
        (DIRECT, DIRECT_BYTES, Attributes::KERNEL),
        (IMAGE, IMAGE_BYTES, Attributes::KERNEL_RX),
    ];
    kernel_of(machine, largest, &parts)
}

/// Those of a kernel with few and small pages.
fn small_kernel<C: SimConfig>(machine: &Machine<C>) -> PageTable {
    let parts = [(DIRECT, SMALL * PAGE_SIZE, Attributes::KERNEL)];
    kernel_of(machine, PageSize::Size4K, &parts)
}

fn kernel_of<C: SimConfig>(
    machine: &Machine<C>,
    largest: PageSize,
    parts: &[(u64, u64, Attributes)],
) -> PageTable {
    let tables = machine.new_page_table(Level::P4D).unwrap();
    for &(start, bytes, attributes) in parts {
        let frames = PfnRange::from_count(Pfn::ZERO, bytes / PAGE_SIZE).unwrap();
        let row = (VirtAddr::new(start), frames);
        // SAFETY: simulated CPUs alone go through these tables, and reach nothing by it.
        unsafe { machine.map_pages(&tables, row, attributes, largest) }.unwrap();
    }
    // SAFETY: as above.
    unsafe { machine.adopt_kernel_space(tables, Layout::LINUX_LIKE, largest) }.unwrap();
    let registers = Registers::kernel(tables.root().addr(), 4);
    let permanent = Layout::LINUX_LIKE.direct_map;
    machine.hardware().switch_paging_on(registers, permanent);
    tables
}

fn end<C: SimConfig>(machine: Machine<C>, tables: PageTable) {
    machine.hardware().flush_tlb_here(TlbFlush::All);
    // SAFETY: no CPU goes through them any more.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    machine.finish();
}

fn sizes<C: SimConfig>(machine: &Machine<C>, tables: &PageTable) -> Vec<(VirtAddr, PageSize)> {
    let mut found = Vec::new();
    let mut at = VirtAddr::new(DIRECT);
    while let Some((start, leaf)) = machine.next_leaf(tables, at) {
        found.push((start, leaf.size));
        at = start.checked_add(leaf.size.bytes()).unwrap();
    }
    found
}

/// A part of the kernel's space where much happens.
struct Window {
    start: u64,
    pages: Vec<Page>,
}

impl Window {
    fn page(&self, index: u64) -> VirtAddr {
        VirtAddr::new(self.start + index * PAGE_SIZE)
    }

    fn check<C: SimConfig>(&self, machine: &Machine<C>, indexes: impl Iterator<Item = u64>) {
        for index in indexes {
            let (at, page) = (self.page(index), self.pages[index as usize]);
            assert_eq!(allowed(machine, at), page.allows(), "{at:?}: {page:?}");
        }
    }
}

fn random_protection_agrees_with_a_list_of_pages<C: SimConfig>() {
    let mut random = Random::new(seed("set_memory"));
    for largest in [PageSize::Size1G, PageSize::Size2M] {
        let machine = Machine::<C>::with_ram(64 * MIB);
        let tables = kernel(&machine, largest);
        let before = machine.validate_page_table(&tables).unwrap();
        let sizes_before = sizes(&machine, &tables);
        let window = |start, bytes: u64, write| Window {
            start,
            pages: vec![
                Page {
                    write,
                    execute: !write,
                    present: true
                };
                (bytes / PAGE_SIZE) as usize
            ],
        };
        // Across a border of 1 GiB, and all of the image.
        let mut windows = [
            window(DIRECT + GIB - 4 * MIB, 8 * MIB, true),
            window(IMAGE, IMAGE_BYTES, false),
        ];
        let mut refused = 0;
        for round in 0..cases(400) {
            let window = &mut windows[random.below_index(2)];
            let count = window.pages.len() as u64;
            let unit = [1, 1, 16, 512][random.below_index(4)];
            let first = random.below(count) / unit * unit;
            let pages = (unit * (1 + random.below(3))).min(count - first);
            let range = range(window.page(first).as_u64(), pages * PAGE_SIZE);
            let name = Name::ALL[random.below_index(6)];
            let parts = first as usize..(first + pages) as usize;
            let is_wrong = |page: &Page| {
                let after = page.after(name);
                after != *page && after.write && after.execute
            };
            // As they are known before.
            window.check(&machine, first..first + pages.min(2));
            let wrong = window.pages[parts.clone()].iter().position(is_wrong);
            let outcome = name.call(&machine, range);
            match wrong {
                None => {
                    assert_eq!(outcome, Ok(()), "{name:?} of {range:?}");
                    for page in &mut window.pages[parts] {
                        *page = page.after(name);
                    }
                }
                Some(wrong) => {
                    let at = window.page(first + wrong as u64);
                    let Err(ProtectError::WriteExecute(found)) = outcome else {
                        panic!("{name:?} of {range:?}: {outcome:?}");
                    };
                    assert!(found <= at && at.as_u64() - found.as_u64() < GIB);
                    refused += 1;
                }
            }
            machine.hardware().check_tlbs().unwrap();
            let around = first.saturating_sub(2)..(first + pages + 2).min(count);
            window.check(&machine, around.step_by(1 + pages as usize / 16));
            if round % 100 == 0 {
                window.check(&machine, (0..count).step_by(7));
                machine.validate_page_table(&tables).unwrap();
            }
        }
        assert!(refused > 10);
        // Back to how it was: no table is left.
        for (window, names) in windows
            .iter()
            .zip([[Name::P, Name::Nx, Name::Rw], [Name::P, Name::Ro, Name::X]])
        {
            let all = range(window.start, window.pages.len() as u64 * PAGE_SIZE);
            for name in names {
                assert_eq!(name.call(&machine, all), Ok(()));
                machine.hardware().check_tlbs().unwrap();
            }
        }
        assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
        assert_eq!(sizes(&machine, &tables), sizes_before);
        end(machine, tables);
    }
}

fn no_page_can_be_both_written_and_executed<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = kernel(&machine, PageSize::Size1G);
    let before = machine.validate_page_table(&tables).unwrap();
    let data = range(DIRECT + 5 * MIB, 2 * PAGE_SIZE);
    let code = range(IMAGE + 3 * MIB, PAGE_SIZE);
    // What was split for the attempt is one page again.
    let refused = Name::X.call(&machine, data);
    assert_eq!(refused, Err(ProtectError::WriteExecute(data.start())));
    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
    let refused = Name::Rw.call(&machine, code);
    assert_eq!(refused, Err(ProtectError::WriteExecute(code.start())));
    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
    // Out of reach, rights stay noted: no way round.
    assert_eq!(Name::Np.call(&machine, data), Ok(()));
    assert!(matches!(
        Name::X.call(&machine, data),
        Err(ProtectError::WriteExecute(_))
    ));
    assert_eq!(allowed(&machine, data.start()), [false; 3]);
    assert_eq!(Name::P.call(&machine, data), Ok(()));
    // One right after the other is allowed.
    assert_eq!(Name::Ro.call(&machine, data), Ok(()));
    assert_eq!(Name::X.call(&machine, data), Ok(()));
    assert_eq!(allowed(&machine, data.start()), [true, false, true]);
    assert_eq!(
        machine.validate_page_table(&tables).unwrap(),
        before + 2,
        "two tables for two pages in 1 GiB"
    );
    let second = range(data.start().as_u64() + PAGE_SIZE, PAGE_SIZE);
    assert_eq!(Name::Nx.call(&machine, second), Ok(()));
    assert_eq!(Name::Nx.call(&machine, data), Ok(()));
    assert_eq!(Name::Rw.call(&machine, data), Ok(()));
    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
    assert_eq!(allowed(&machine, data.start()), [true, true, false]);
    machine.hardware().check_tlbs().unwrap();
    end(machine, tables);
}

fn ranges_that_are_not_the_kernels_are_refused<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let data = range(DIRECT, PAGE_SIZE);
    for name in Name::ALL {
        assert_eq!(name.call(&machine, data), Err(ProtectError::NoKernelSpace));
    }
    let tables = kernel(&machine, PageSize::Size1G);
    let before = machine.validate_page_table(&tables).unwrap();
    let sizes_before = sizes(&machine, &tables);
    let named = |start: u64, size| VirtRange::from_size(VirtAddr::new(start), size);
    // What wraps cannot be named.
    assert_eq!(named(u64::MAX - 0xfff, 0x2000), None);
    assert_eq!(named(DIRECT, u64::MAX), None);
    let is_range = |outcome, expected: fn(VirtRange) -> RangeError, range| {
        outcome == Err(ProtectError::Change(ChangeError::Range(expected(range))))
    };
    for name in Name::ALL {
        let call = |start, size| {
            let range = named(start, size).unwrap();
            (name.call(&machine, range), range)
        };
        for (start, size) in [(DIRECT, 0), (IMAGE, 0), (0, 0)] {
            let (outcome, range) = call(start, size);
            assert!(is_range(outcome, |_| RangeError::Empty, range));
        }
        for (start, size) in [
            (DIRECT + 1, 0x1000),
            (DIRECT, 0x1001),
            (IMAGE + 0x800, 0x800),
        ] {
            let (outcome, range) = call(start, size);
            assert!(is_range(outcome, RangeError::Misaligned, range));
        }
        for (start, size) in [
            (0x7fff_ffff_f000, 0x2000),
            (0x8000_0000_0000, 0x1000),
            (0xffff_7fff_ffff_f000, 0x2000),
            (0x1000, DIRECT),
        ] {
            let (outcome, range) = call(start, size);
            assert!(is_range(outcome, RangeError::NotCanonical, range));
        }
        for (start, size) in [
            (0, 0x1000),
            (0x7fff_ffff_f000, 0x1000),
            (0xffff_8000_0000_0000, 0x1000),
            (DIRECT - 0x1000, 0x1000),
            (DIRECT - 0x1000, 0x2000),
            (0xffff_c87f_ffff_f000, 0x2000),
            (0xffff_c900_0000_0000, 0x1000),
            (IMAGE - 0x1000, 0x2000),
            (IMAGE + (512 << 20) - 0x1000, 0x2000),
            (u64::MAX - 0x1fff, 0x1000),
            (DIRECT, IMAGE + 0x1000 - DIRECT),
        ] {
            let (outcome, range) = call(start, size);
            assert_eq!(outcome, Err(ProtectError::Outside(range)), "{range:?}");
        }
        // The kernel's, but not mapped; part of it is.
        for (start, size) in [
            (DIRECT + DIRECT_BYTES, 0x1000),
            (DIRECT + DIRECT_BYTES - 0x1000, 0x2000),
            (IMAGE + IMAGE_BYTES - 3 * 0x1000, 0x4000),
        ] {
            let (outcome, range) = call(start, size);
            let found = match outcome {
                Err(ProtectError::Change(ChangeError::NotMapped(found))) => found,
                other => panic!("{range:?}: {other:?}"),
            };
            assert!(range.contains(found));
        }
        assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
        assert_eq!(sizes(&machine, &tables), sizes_before);
    }
    machine.hardware().check_tlbs().unwrap();
    end(machine, tables);
}

fn without_memory_for_tables_nothing_is_protected<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(24 * MIB);
    let tables = kernel(&machine, PageSize::Size1G);
    let before = machine.validate_page_table(&tables).unwrap();
    let mut blocks = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::KERNEL | Gfp::MEMALLOC, Order::ZERO) {
        blocks.push(block);
    }
    let page = range(DIRECT + 5 * MIB, PAGE_SIZE);
    for name in [Name::Ro, Name::Nx, Name::Np] {
        let outcome = name.call(&machine, page);
        let expected = ProtectError::Change(ChangeError::OutOfTables);
        assert_eq!(outcome, Err(expected));
        assert_eq!(allowed(&machine, page.start()), [true, true, false]);
        // All of a large page takes none.
        assert_eq!(name.call(&machine, range(DIRECT + GIB, GIB)), Ok(()));
    }
    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
    drop(blocks);
    assert_eq!(Name::Ro.call(&machine, page), Ok(()));
    assert_eq!(allowed(&machine, page.start()), [true, false, false]);
    end(machine, tables);
}

fn small_pages_come_and_go_without_a_lock<C: SimConfig>() {
    let mut random = Random::new(seed("set_direct_map"));
    let machine = Machine::<C>::with_ram(64 * MIB);
    let frames = |first, count| PfnRange::from_count(Pfn::new(first), count).unwrap();
    let set = |range: PfnRange, access| {
        // SAFETY: nothing lies there for anybody but simulated CPUs.
        unsafe { machine.set_direct_map(range, access) }
    };
    let refused = set(frames(0, 1), PageAccess::None);
    assert_eq!(refused, Err(ProtectError::NoKernelSpace));
    let tables = small_kernel(&machine);
    let before = machine.validate_page_table(&tables).unwrap();
    let mut hidden = vec![false; SMALL as usize];
    for _ in 0..cases(300) {
        let first = random.below(SMALL);
        let count = (1 + [0, 3, 40, 700][random.below_index(4)]).min(SMALL - first);
        let at = |page: u64| VirtAddr::new(DIRECT + page * PAGE_SIZE);
        // As they are known before.
        for page in [first, first + count - 1] {
            let is_hidden = hidden[page as usize];
            assert_eq!(allowed(&machine, at(page)), [!is_hidden, !is_hidden, false]);
        }
        let is_hidden = random.below(2) == 0;
        let access = match is_hidden {
            true => PageAccess::None,
            false => PageAccess::ReadWrite,
        };
        assert_eq!(set(frames(first, count), access), Ok(()));
        hidden[first as usize..(first + count) as usize].fill(is_hidden);
        machine.hardware().check_tlbs().unwrap();
        for page in first.saturating_sub(1)..(first + count + 1).min(SMALL) {
            let is_hidden = hidden[page as usize];
            assert_eq!(allowed(&machine, at(page)), [!is_hidden, !is_hidden, false]);
        }
    }
    // Not mapped, and beyond the direct map.
    let not_mapped = ProtectError::Change(ChangeError::NotMapped(VirtAddr::new(
        DIRECT + SMALL * PAGE_SIZE,
    )));
    assert_eq!(set(frames(SMALL, 1), PageAccess::None), Err(not_mapped));
    let beyond = (64 << 40) / PAGE_SIZE;
    assert!(matches!(
        set(frames(beyond - 1, 2), PageAccess::None),
        Err(ProtectError::Outside(_))
    ));
    assert_eq!(set(frames(0, SMALL), PageAccess::ReadWrite), Ok(()));
    // Nothing is put together here.
    let all = range(DIRECT, SMALL * PAGE_SIZE);
    assert_eq!(Name::Ro.call(&machine, all), Ok(()));
    assert_eq!(Name::Rw.call(&machine, all), Ok(()));
    assert_eq!(machine.validate_page_table(&tables).unwrap(), before);
    end(machine, tables);
}

fn large_pages_do_not_come_and_go<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let tables = kernel(&machine, PageSize::Size2M);
    let frames = PfnRange::from_count(Pfn::new(512), 512).unwrap();
    // SAFETY: it is refused.
    let outcome = unsafe { machine.set_direct_map(frames, PageAccess::None) };
    assert!(matches!(outcome, Err(ProtectError::Outside(_))));
    assert_eq!(
        allowed(&machine, VirtAddr::new(DIRECT + 2 * MIB)),
        [true, true, false]
    );
    end(machine, tables);
}
