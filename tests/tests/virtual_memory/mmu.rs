//! The simulated MMU against the manual: what is allowed to whom, which error code a fault has, what is marked.

use std::sync::atomic::Ordering;

use mm::addr::{PhysAddr, VirtAddr};
use mm_tests::sim::mmu::{Access, Fault, Kind, Mode, Registers, bit, code, top, walk};
use mm_tests::sim::{Machine, Usual};

use super::tables::{OPEN, Tables};

const MIB: u64 = 1 << 20;
const ADDR: VirtAddr = VirtAddr::new(0xffff_c900_1234_5678);
const PAGE: u64 = 0x2345_6000;

struct World<'m> {
    machine: &'m Machine<Usual>,
    tables: Tables<'m, Usual>,
    registers: Registers,
}

impl World<'_> {
    fn walk(&self, addr: VirtAddr, access: Access) -> Result<u64, Fault> {
        let ram = self.machine.hardware().ram();
        let start = top(&self.registers);
        let walk = walk(ram, &self.registers, start, addr, access)?;
        Ok(walk.page().as_u64())
    }
}

fn on_machine(levels: u32, body: impl FnOnce(&mut World<'_>)) {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let tables = Tables::new(&machine, levels);
    let registers = Registers::kernel(tables.root(), levels);
    body(&mut World {
        machine: &machine,
        tables,
        registers,
    });
    machine.finish();
}

/// What the manual says of an access to a page that is there: by three bits of its entries and three of
/// registers. Written as the tables of its chapter on access rights are, not as code that walks.
fn is_allowed(entry: u64, access: Access, registers: &Registers) -> bool {
    let (user, write) = (entry & bit::US != 0, entry & bit::RW != 0);
    let execute = entry & bit::XD == 0;
    match (access.mode, access.kind) {
        (Mode::User, _) if !user => false,
        (Mode::User, Kind::Read) => true,
        (Mode::User, Kind::Write) => write,
        (Mode::User, Kind::Fetch) => execute,
        (_, Kind::Fetch) if user && registers.smep => false,
        (_, Kind::Fetch) => execute,
        (Mode::Supervisor, _) if user && registers.smap => false,
        (_, Kind::Read) => true,
        (_, Kind::Write) => write || !registers.wp,
    }
}

#[test]
fn every_access_is_allowed_or_has_its_error_code() {
    on_machine(4, |world| {
        let mut cases = 0;
        for bits in 0_u64..8 {
            let mut entry = PAGE | bit::P;
            for (place, flag) in [bit::RW, bit::US, bit::XD].into_iter().enumerate() {
                entry |= if bits & 1 << place != 0 { flag } else { 0 };
            }
            for features in 0_u32..8 {
                world.registers.wp = features & 1 != 0;
                world.registers.smep = features & 2 != 0;
                world.registers.smap = features & 4 != 0;
                for mode in [Mode::User, Mode::Supervisor, Mode::SupervisorAc] {
                    for kind in [Kind::Read, Kind::Write, Kind::Fetch] {
                        let access = Access { kind, mode };
                        world.tables.set(ADDR, 1, entry);
                        let found = world.walk(ADDR, access);
                        let mut expected_code = code::P;
                        expected_code |= if mode == Mode::User { code::U } else { 0 };
                        expected_code |= match kind {
                            Kind::Read => 0,
                            Kind::Write => code::W,
                            Kind::Fetch => code::I,
                        };
                        let expected = match is_allowed(entry, access, &world.registers) {
                            true => Ok(PAGE),
                            false => Err(Fault::Page(expected_code)),
                        };
                        assert_eq!(found, expected, "{entry:#x} {access:?} {features:#b}");
                        // Marked only where it took place.
                        let now = world.tables.entry(ADDR, 1).load(Ordering::Relaxed);
                        let marks = match (&found, kind) {
                            (Err(_), _) => 0,
                            (Ok(_), Kind::Write) => bit::A | bit::D,
                            (Ok(_), _) => bit::A,
                        };
                        assert_eq!(now, entry | marks);
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, 8 * 8 * 9);
    });
}

#[test]
fn rights_are_those_of_all_levels_and_a_level_that_is_missing_faults() {
    for levels in [4, 5] {
        on_machine(levels, |world| {
            world.tables.set(ADDR, 1, PAGE | OPEN);
            let user = |kind| Access {
                kind,
                mode: Mode::User,
            };
            assert_eq!(world.walk(ADDR, user(Kind::Write)), Ok(PAGE));
            for level in 1..=levels {
                let entry = world.tables.entry(ADDR, level);
                let before = entry.load(Ordering::Relaxed);
                assert_ne!(before & bit::A, 0, "level {level} was used");
                entry.store(before & !bit::RW, Ordering::Relaxed);
                let fault = Fault::Page(code::P | code::W | code::U);
                assert_eq!(world.walk(ADDR, user(Kind::Write)), Err(fault));
                entry.store(before & !bit::US, Ordering::Relaxed);
                let fault = Fault::Page(code::P | code::U);
                assert_eq!(world.walk(ADDR, user(Kind::Read)), Err(fault));
                entry.store(before | bit::XD, Ordering::Relaxed);
                let fault = Fault::Page(code::P | code::U | code::I);
                assert_eq!(world.walk(ADDR, user(Kind::Fetch)), Err(fault));
                entry.store(before & !bit::P, Ordering::Relaxed);
                assert_eq!(world.walk(ADDR, Access::READ), Err(Fault::Page(0)));
                assert_eq!(
                    world.walk(ADDR, user(Kind::Write)),
                    Err(Fault::Page(code::W | code::U))
                );
                entry.store(before, Ordering::Relaxed);
            }
        });
    }
}

#[test]
fn large_pages_are_found_above_and_their_reserved_bits_fault() {
    on_machine(4, |world| {
        world.registers.smap = false;
        let large = bit::PS | OPEN;
        // Bit 12 of a large page is no part of its address: PAT.
        for (level, page) in [(2, 0x4060_0000_u64), (3, 0xc000_0000)] {
            let addr = VirtAddr::new(ADDR.as_u64() + (u64::from(level) << 40));
            world.tables.set(addr, level, page | 1 << 12 | large);
            assert_eq!(world.walk(addr, Access::WRITE), Ok(page));
            let top = 12 + 9 * (level - 1);
            for place in (13..top).chain(46..52) {
                world.tables.set(addr, level, page | 1 << place | large);
                let fault = Fault::Page(code::P | code::RSVD);
                assert_eq!(world.walk(addr, Access::READ), Err(fault), "bit {place}");
            }
        }
        // Where there are no such pages the bit is reserved, as it is on the highest level.
        let addr = VirtAddr::new(ADDR.as_u64() + (3 << 40));
        world.tables.set(addr, 3, 0xc000_0000 | large);
        world.registers.gib_pages = false;
        let fault = Fault::Page(code::P | code::RSVD | code::W);
        assert_eq!(world.walk(addr, Access::WRITE), Err(fault));
        world.tables.set(ADDR, 1, PAGE | OPEN);
        let entry = world.tables.entry(ADDR, 4);
        let before = entry.fetch_or(bit::PS, Ordering::Relaxed);
        let fault = Fault::Page(code::P | code::RSVD);
        assert_eq!(world.walk(ADDR, Access::READ), Err(fault));
        entry.store(before, Ordering::Relaxed);
    });
}

#[test]
fn without_nxe_the_bit_is_reserved_and_fetches_do_not_say_that_they_are() {
    on_machine(4, |world| {
        world.tables.set(ADDR, 1, PAGE | bit::P | bit::XD);
        world.registers.nxe = false;
        world.registers.smep = false;
        let fault = Fault::Page(code::P | code::RSVD);
        assert_eq!(world.walk(ADDR, Access::FETCH), Err(fault));
        world.tables.set(ADDR, 1, 0);
        assert_eq!(world.walk(ADDR, Access::FETCH), Err(Fault::Page(0)));
        world.registers.smep = true;
        assert_eq!(world.walk(ADDR, Access::FETCH), Err(Fault::Page(code::I)));
    });
}

#[test]
fn physical_addresses_end_where_the_cpu_says() {
    on_machine(4, |world| {
        for bits in [36, 40, 46, 52] {
            world.registers.phys_bits = bits;
            for place in 12..52 {
                world.tables.set(ADDR, 1, 1 << place | bit::P);
                let expected = match place < bits {
                    true => Ok(PhysAddr::new(1 << place).as_u64()),
                    false => Err(Fault::Page(code::P | code::RSVD)),
                };
                assert_eq!(world.walk(ADDR, Access::READ), expected, "{bits}, {place}");
            }
        }
    });
}
