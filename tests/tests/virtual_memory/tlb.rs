//! The simulated TLB: it keeps what it has seen, and forgets what the manual says that an instruction makes it
//! forget. No CPU that the kernel is tested on has PCIDs: this is where they are.

use mm::addr::{Order, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::platform::{Platform, TlbFlush};
use mm_tests::sim::mmu::{Access, Fault, Registers, bit, code};
use mm_tests::sim::tlb::Invpcid;
use mm_tests::sim::{Checked, Machine};

use super::tables::{OPEN, Tables};

const MIB: u64 = 1 << 20;
const KERNEL: u64 = bit::P | bit::RW;

const fn addr(page: u64) -> VirtAddr {
    VirtAddr::new(0xffff_c900_0000_0000 + page * 4096)
}

/// A machine on whose tables the pages 0 and 1 are mapped, the latter globally.
fn on_machine(
    change: impl FnOnce(&mut Registers),
    body: impl FnOnce(&Machine<Checked>, &Tables<'_, Checked>),
) {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    {
        let tables = Tables::new(&machine, 4);
        tables.set(addr(0), 1, 0x10_0000 | KERNEL);
        tables.set(addr(1), 1, 0x20_0000 | KERNEL | bit::G);
        let mut registers = Registers::kernel(tables.root(), 4);
        change(&mut registers);
        machine
            .hardware()
            .switch_paging_on(registers, VirtRange::EMPTY);
        body(&machine, &tables);
        machine.hardware().flush_tlb_here(TlbFlush::All);
    }
    machine.finish();
}

fn read(machine: &Machine<Checked>, page: u64) -> Result<u64, Fault> {
    let found = machine.touch(addr(page), Access::READ);
    found.map(|found| found.as_u64())
}

/// Which of the two pages the CPU still has as they were, after both were mapped elsewhere.
fn kept(machine: &Machine<Checked>) -> [bool; 2] {
    [0, 1].map(|page| match read(machine, page) {
        Ok(0x10_0000 | 0x20_0000) => true,
        Ok(0x30_0000) => false,
        other => panic!("{other:x?}"),
    })
}

#[test]
fn it_goes_by_what_it_has_seen_until_it_is_told() {
    on_machine(
        |_| {},
        |machine, tables| {
            assert_eq!(read(machine, 0), Ok(0x10_0000));
            tables.set(addr(0), 1, 0);
            assert_eq!(read(machine, 0), Ok(0x10_0000), "it never forgets");
            assert!(machine.hardware().check_tlbs().is_err(), "O8");
            machine
                .hardware()
                .with_tlb(|registers, tlb| tlb.invlpg(registers, addr(0)));
            assert_eq!(read(machine, 0), Err(Fault::Page(0)));
            // What is not there is not remembered.
            tables.set(addr(0), 1, 0x30_0000 | bit::P);
            assert_eq!(read(machine, 0), Ok(0x30_0000));
            // A fault of rights is: the page is looked up the next time.
            tables.set(addr(0), 1, 0x30_0000 | KERNEL);
            let write = || machine.touch(addr(0), Access::WRITE).map(|at| at.as_u64());
            assert_eq!(write(), Err(Fault::Page(code::P | code::W)));
            assert_eq!(write(), Ok(0x30_0000));
            let odd = VirtAddr::new(0x8000_0000_0000);
            assert_eq!(machine.touch(odd, Access::READ), Err(Fault::NotCanonical));
        },
    );
}

/// What each instruction forgets: of a page of the own address space, and of a global one.
#[test]
fn instructions_forget_what_the_manual_says() {
    type Act = fn(&Machine<Checked>);
    let with = |act: Act| act;
    let cases: [(&str, Act, [bool; 2]); 9] = [
        ("nothing", with(|_| {}), [true, true]),
        (
            "INVLPG of the first",
            |machine| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.invlpg(registers, addr(0)))
            },
            [false, true],
        ),
        (
            "INVLPG of the global one",
            |machine| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.invlpg(registers, addr(1)))
            },
            [true, false],
        ),
        (
            "CR3",
            |machine| {
                machine.hardware().with_tlb(|registers, tlb| {
                    let value = registers.cr3;
                    tlb.load_cr3(registers, value);
                });
            },
            [false, true],
        ),
        (
            "CR4.PGE off and on",
            |machine| {
                machine.hardware().with_tlb(|registers, tlb| {
                    tlb.set_pge(registers, false);
                    tlb.set_pge(registers, true);
                });
            },
            [false, false],
        ),
        (
            "INVPCID of an address",
            |machine| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::Address(0, addr(0))))
            },
            [false, true],
        ),
        (
            "INVPCID of an address space",
            |machine| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::Single(0)))
            },
            [false, true],
        ),
        (
            "INVPCID of all",
            |machine| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::All))
            },
            [false, true],
        ),
        (
            "INVPCID of all and global ones",
            |machine| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::AllWithGlobals))
            },
            [false, false],
        ),
    ];
    for (name, act, expected) in cases {
        on_machine(
            |registers| registers.invpcid = true,
            |machine, tables| {
                assert!(read(machine, 0).is_ok() && read(machine, 1).is_ok());
                for page in 0..2 {
                    tables.set(addr(page), 1, 0x30_0000 | KERNEL);
                }
                act(machine);
                assert_eq!(kept(machine), expected, "{name}");
            },
        );
    }
}

#[test]
fn address_spaces_with_numbers_are_kept_apart() {
    on_machine(
        |registers| {
            registers.pcide = true;
            registers.invpcid = true;
            registers.cr3 |= 1;
        },
        |machine, tables| {
            const KEEP: u64 = 1 << 63;
            let root = tables.root().as_u64();
            let load = |pcid: u64| {
                machine
                    .hardware()
                    .with_tlb(|registers, tlb| tlb.load_cr3(registers, root | pcid));
            };
            assert!(read(machine, 0).is_ok() && read(machine, 1).is_ok());
            for page in 0..2 {
                tables.set(addr(page), 1, 0x30_0000 | KERNEL);
            }
            // Another number: what is global is everybody's.
            load(2 | KEEP);
            assert_eq!(kept(machine), [false, true]);
            load(1 | KEEP);
            assert_eq!(kept(machine), [true, true]);
            // INVLPG is about the current one.
            load(2 | KEEP);
            machine
                .hardware()
                .with_tlb(|registers, tlb| tlb.invlpg(registers, addr(0)));
            load(1 | KEEP);
            assert_eq!(kept(machine), [true, true]);
            machine
                .hardware()
                .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::Address(2, addr(0))));
            assert_eq!(kept(machine), [true, true]);
            machine
                .hardware()
                .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::Single(1)));
            assert_eq!(kept(machine), [false, true]);
        },
    );
}

#[test]
#[should_panic(expected = "#UD")]
fn an_instruction_that_the_cpu_does_not_have_fails_the_test() {
    on_machine(
        |_| {},
        |machine, _| {
            machine
                .hardware()
                .with_tlb(|registers, tlb| tlb.invpcid(registers, Invpcid::All));
        },
    );
}

#[test]
fn a_large_page_goes_by_any_of_its_addresses() {
    on_machine(
        |_| {},
        |machine, tables| {
            let large = VirtAddr::new(0xffff_c900_4000_0000);
            tables.set(large, 2, 0x20_0000 | KERNEL | bit::PS);
            let inside = VirtAddr::new(large.as_u64() + 0x12_3456);
            let found = || machine.touch(inside, Access::READ).map(|at| at.as_u64());
            assert_eq!(found(), Ok(0x32_3456));
            tables.set(large, 2, 0);
            assert_eq!(found(), Ok(0x32_3456));
            let other = VirtAddr::new(large.as_u64() + 0x1f_0000);
            machine
                .hardware()
                .with_tlb(|registers, tlb| tlb.invlpg(registers, other));
            assert_eq!(found(), Err(Fault::Page(0)));
        },
    );
}

#[test]
#[should_panic(expected = "stale translation")]
fn a_hit_on_a_frame_that_was_freed_fails_the_test() {
    on_machine(
        |_| {},
        |machine, tables| {
            let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
            tables.set(addr(9), 1, page.pfn().addr().as_u64() | KERNEL);
            assert!(read(machine, 9).is_ok());
            tables.set(addr(9), 1, 0);
            drop(page);
            // The next one may have it.
            drop(machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap());
            let _ = read(machine, 9);
        },
    );
}

#[test]
#[should_panic(expected = "stale walk")]
fn a_walk_by_a_table_that_was_freed_fails_the_test() {
    on_machine(
        |_| {},
        |machine, tables| {
            tables.set(addr(9), 1, 0x10_0000 | OPEN);
            assert!(machine.touch(addr(1), Access::READ).is_ok());
            drop(tables.take_table(addr(9), 1));
            let _ = read(machine, 8);
        },
    );
}
