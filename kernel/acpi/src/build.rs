//! Tables for tests, made by hand.

use crate::memory::{SliceMemory, checksum};
use crate::rsdp::Rsdp;
use std::vec::Vec;

/// Makes all bytes add up to zero by changing the one at `index`.
pub(crate) fn fix_byte(bytes: &mut [u8], index: usize) {
    bytes[index] = 0;
    bytes[index] = checksum(bytes).wrapping_neg();
}

/// A root pointer with valid checksums; 20 bytes for revision 0.
pub(crate) fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = Vec::from(*b"RSD PTR \0TESTER");
    bytes.push(revision);
    bytes.extend(rsdt.to_le_bytes());
    fix_byte(&mut bytes, 8);
    if revision >= 2 {
        bytes.extend(36_u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.extend([0; 4]);
        fix_byte(&mut bytes, 32);
    }
    bytes
}

/// A table with a valid header around `body`.
pub(crate) fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(*signature);
    bytes.extend(u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.resize(36, b'x');
    bytes.extend(body);
    fix_byte(&mut bytes, 9);
    bytes
}

/// A machine's tables: the root pointer at the start, both root tables, then the others.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
}

impl Image {
    /// Where it lies in physical memory.
    pub(crate) const BASE: u64 = 0x7ff0_0000;

    pub(crate) fn new(revision: u8, tables: &[Vec<u8>]) -> Self {
        let count = tables.len();
        let rsdt_at = Self::BASE + 36;
        let xsdt_at = rsdt_at + u64::try_from(36 + 4 * count).unwrap();
        let mut at = xsdt_at + u64::try_from(36 + 8 * count).unwrap();
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        for table in tables {
            narrow.extend(u32::try_from(at).unwrap().to_le_bytes());
            wide.extend(at.to_le_bytes());
            at += u64::try_from(table.len()).unwrap();
        }
        let mut bytes = rsdp(revision, u32::try_from(rsdt_at).unwrap(), xsdt_at);
        bytes.resize(36, 0);
        bytes.extend(table(b"RSDT", 1, &narrow));
        bytes.extend(table(b"XSDT", 1, &wide));
        tables.iter().for_each(|table| bytes.extend(table));
        Self { bytes }
    }

    pub(crate) fn memory(&self) -> SliceMemory<'_> {
        SliceMemory::new(Self::BASE, &self.bytes)
    }

    pub(crate) fn rsdp(&self) -> Rsdp {
        Rsdp::read(&self.memory(), Self::BASE).unwrap()
    }
}
