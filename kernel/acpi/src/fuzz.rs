//! Whatever lies in memory, parsing it ends, and ends in a value.

use crate::build::{Image, fix_byte, table};
use crate::memory::SliceMemory;
use crate::tables::Table;
use crate::{Madt, Rsdp, Slit, Srat, Tables, find_rsdp};
use proptest::collection::vec;
use proptest::prelude::{Just, any, prop_oneof};
use proptest::sample::Index;
use proptest::{prop_assert, proptest};
use std::vec::Vec;

/// What was read out of `bytes`: walks everything there is, and counts it.
fn walk(bytes: &[u8], base: u64) -> usize {
    let memory = SliceMemory::new(base, bytes);
    let mut seen = usize::from(find_rsdp(&memory).is_ok());
    let Ok(rsdp) = Rsdp::read(&memory, base) else {
        return seen;
    };
    let Ok(tables) = Tables::open(&memory, &rsdp) else {
        return seen;
    };
    seen += tables.list().count();
    if let Ok(madt) = Madt::find(&tables) {
        seen += madt.entries().count() + madt.cpus().count();
        seen += usize::from(madt.local_apic_address() != 0);
    }
    if let Ok(srat) = Srat::find(&tables) {
        seen += srat.entries().count() + srat.memory().count() + srat.cpus().count();
    }
    if let Ok(slit) = Slit::find(&tables) {
        let nodes = slit.nodes();
        assert!((0..nodes).all(|from| (0..nodes).all(|to| slit.distance(from, to).is_some())));
        seen += nodes;
    }
    seen
}

/// What a small machine with two nodes has.
fn machine() -> Image {
    let madt = [
        &[0, 0, 0xe0, 0xfe, 1, 0, 0, 0][..],
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[9, 16, 0, 0, 2, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
        &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
    ];
    let mut srat = Vec::from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    srat.extend([0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    srat.extend([1, 40, 1, 0]);
    srat.extend([1; 36]);
    srat.extend([2, 24, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    srat.extend([1; 12]);
    let slit = [2, 0, 0, 0, 0, 0, 0, 0, 10, 20, 20, 10];
    Image::new(
        2,
        &[
            table(b"FACP", 1, &[0; 80]),
            table(b"APIC", 3, &madt.concat()),
            table(b"SRAT", 3, &srat),
            table(b"SLIT", 1, &slit),
        ],
    )
}

#[test]
fn a_whole_machine_is_read() {
    // Four tables; five records, three CPUs, an address; three records, one of each; two nodes.
    assert_eq!(walk(&machine().bytes, Image::BASE), 4 + 9 + 6 + 2);
}

#[test]
fn truncation_at_every_offset_ends() {
    let image = machine();
    for length in 0..image.bytes.len() {
        let seen = walk(&image.bytes[..length], Image::BASE);
        assert!(seen < 21, "{length}");
    }
}

#[test]
fn every_bit_flip_ends() {
    let mut image = machine();
    for bit in 0..image.bytes.len() * 8 {
        image.bytes[bit / 8] ^= 1 << (bit % 8);
        walk(&image.bytes, Image::BASE);
        image.bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #[test]
    fn random_bytes_end(bytes in vec(any::<u8>(), 0..4096), base in any::<u64>()) {
        walk(&bytes, base);
    }

    /// Tables whose checksums are right whatever they hold.
    #[test]
    fn random_bodies_end(
        bodies in vec((prop_oneof![Just(b"APIC"), Just(b"SRAT"), Just(b"SLIT")],
            any::<u8>(), vec(prop_oneof![0_u8..20, any::<u8>()], 0..300)), 0..6),
        revision in 0_u8..4,
    ) {
        let tables: Vec<_> = bodies
            .iter()
            .map(|(name, revision, body)| table(name, *revision, body))
            .collect();
        let image = Image::new(revision, &tables);
        prop_assert!(walk(&image.bytes, Image::BASE) >= tables.len());
    }

    /// Changes that the checksum does not notice, because it is put right after.
    #[test]
    fn damage_with_a_right_checksum_ends(
        changes in vec((any::<Index>(), any::<u8>()), 1..20),
        which in 0_usize..4,
    ) {
        let mut image = machine();
        let memory = image.memory();
        let tables = Tables::open(&memory, &image.rsdp()).unwrap();
        let at = tables.addresses().nth(which).unwrap();
        let length = Table::read(&memory, at).unwrap().bytes().len();
        let start = usize::try_from(at - Image::BASE).unwrap();
        let bytes = &mut image.bytes[start..start + length];
        for (index, value) in &changes {
            bytes[index.index(length)] = *value;
        }
        fix_byte(bytes, 9);
        walk(&image.bytes, Image::BASE);
    }
}
