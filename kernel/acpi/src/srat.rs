//! The system resource affinity table: which node CPUs and memory belong to (5.2.16).
//!
//! Nodes have *proximity domain* numbers here, in no order and with gaps. Before revision 2 of
//! the table they have eight bits, and what stands in the others is noise (as Linux reads them).

use crate::error::{AcpiError, RecordError, Signature};
use crate::memory::{PhysMemory, array_at, u8_at, u32_at, u64_at};
use crate::records::{Record, Records};
use crate::tables::{Table, Tables};

/// Where the first record starts.
const FIRST_RECORD: usize = 48;

/// The table.
#[derive(Clone, Copy, Debug)]
pub struct Srat<'a> {
    table: Table<'a>,
}

/// A record of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Where a CPU belongs.
    Cpu(CpuAffinity),
    /// Where a range of memory belongs.
    Memory(MemoryAffinity),
    /// A kind that is of no use here.
    Other {
        /// Its number.
        kind: u8,
    },
}

/// Where a CPU belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuAffinity {
    /// The CPU's APIC identifier.
    pub apic_id: u32,
    /// Its proximity domain.
    pub domain: u32,
    /// The record counts; one that does not is a placeholder.
    pub is_enabled: bool,
}

/// Where a range of memory belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAffinity {
    /// Start of the range.
    pub base: u64,
    /// Bytes of the range; as written, so that the end may lie beyond the last address.
    pub length: u64,
    /// Its proximity domain.
    pub domain: u32,
    /// The record counts; one that does not is a placeholder.
    pub is_enabled: bool,
    /// The memory may go, or come later.
    pub is_hot_pluggable: bool,
    /// The memory keeps its contents.
    pub is_non_volatile: bool,
}

impl MemoryAffinity {
    /// One past the last byte; `None` if the range has no bytes or runs past the last address.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        if self.length == 0 {
            return None;
        }
        self.base.checked_add(self.length)
    }
}

impl<'a> Srat<'a> {
    /// Finds the table.
    ///
    /// # Errors
    /// There is no whole one.
    pub fn find<M: PhysMemory + ?Sized>(tables: &Tables<'a, M>) -> Result<Self, AcpiError> {
        Self::new(tables.find(Signature::SRAT)?)
    }

    /// Takes a table for what it says it is.
    ///
    /// # Errors
    /// It is another table, or shorter than its head.
    pub fn new(table: Table<'a>) -> Result<Self, AcpiError> {
        let table = table.named(Signature::SRAT)?.at_least(FIRST_RECORD)?;
        Ok(Self { table })
    }

    /// The records, in the table's order, those that do not count included.
    pub fn entries(&self) -> impl Iterator<Item = Result<Affinity, RecordError>> + use<'a> {
        let wide = self.table.revision() >= 2;
        let records = Records::new(self.table.bytes(), FIRST_RECORD);
        records.map(move |record| {
            let record = record?;
            record.parsed(affinity(&record, wide))
        })
    }

    /// The CPUs whose records count.
    pub fn cpus(&self) -> impl Iterator<Item = CpuAffinity> + use<'a> {
        self.entries().filter_map(|entry| match entry {
            Ok(Affinity::Cpu(cpu)) if cpu.is_enabled => Some(cpu),
            _ => None,
        })
    }

    /// The memory whose records count.
    pub fn memory(&self) -> impl Iterator<Item = MemoryAffinity> + use<'a> {
        self.entries().filter_map(|entry| match entry {
            Ok(Affinity::Memory(memory)) if memory.is_enabled => Some(memory),
            _ => None,
        })
    }
}

/// What a record says; `None` if it is too short for its kind.
fn affinity(record: &Record<'_>, wide: bool) -> Option<Affinity> {
    let bytes = record.bytes;
    let domain = |number: u32| if wide { number } else { number & 0xff };
    let is_set = |flags: u32, bit: u32| (flags >> bit) & 1 != 0;
    Some(match record.kind {
        0 => {
            let low = u8_at(bytes, 2)?;
            let [a, b, c] = array_at(bytes, 9)?;
            Affinity::Cpu(CpuAffinity {
                apic_id: u8_at(bytes, 3)?.into(),
                domain: domain(u32::from_le_bytes([low, a, b, c])),
                is_enabled: is_set(u32_at(bytes, 4)?, 0),
            })
        }
        1 => {
            let flags = u32_at(bytes, 28)?;
            Affinity::Memory(MemoryAffinity {
                base: u64_at(bytes, 8)?,
                length: u64_at(bytes, 16)?,
                domain: domain(u32_at(bytes, 2)?),
                is_enabled: is_set(flags, 0),
                is_hot_pluggable: is_set(flags, 1),
                is_non_volatile: is_set(flags, 2),
            })
        }
        2 => Affinity::Cpu(CpuAffinity {
            domain: domain(u32_at(bytes, 4)?),
            apic_id: u32_at(bytes, 8)?,
            is_enabled: is_set(u32_at(bytes, 12)?, 0),
        }),
        kind => Affinity::Other { kind },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::table;
    use crate::memory::SliceMemory;
    use std::vec::Vec;

    fn cpu(domain: u32, apic_id: u8, flags: u8) -> Vec<u8> {
        let [low, a, b, c] = domain.to_le_bytes();
        let mut record = Vec::from([0, 16, low, apic_id, flags, 0, 0, 0, 0, a, b, c]);
        record.resize(16, 0);
        record
    }

    fn memory(domain: u32, base: u64, length: u64, flags: u8) -> Vec<u8> {
        let mut record = Vec::from([1, 40]);
        record.extend(domain.to_le_bytes());
        record.extend([0; 2]);
        record.extend(base.to_le_bytes());
        record.extend(length.to_le_bytes());
        record.extend([0; 4]);
        record.extend([flags, 0, 0, 0]);
        record.resize(40, 0);
        record
    }

    fn x2apic(domain: u32, apic_id: u32, flags: u8) -> Vec<u8> {
        let mut record = Vec::from([2, 24, 0, 0]);
        record.extend(domain.to_le_bytes());
        record.extend(apic_id.to_le_bytes());
        record.extend([flags, 0, 0, 0]);
        record.resize(24, 0);
        record
    }

    fn srat(revision: u8, records: &[Vec<u8>]) -> Vec<u8> {
        let mut body = Vec::from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        records.iter().for_each(|record| body.extend(record));
        table(b"SRAT", revision, &body)
    }

    fn entries(bytes: &[u8]) -> Vec<Result<Affinity, RecordError>> {
        let memory = SliceMemory::new(0, bytes);
        let srat = Srat::new(Table::read(&memory, 0).unwrap()).unwrap();
        assert!(srat.cpus().all(|cpu| cpu.is_enabled));
        assert!(srat.memory().all(|memory| memory.is_enabled));
        srat.entries().collect()
    }

    #[test]
    fn every_kind_and_flag_is_read() {
        let bytes = srat(
            3,
            &[
                cpu(0x0102_0304, 9, 1),
                cpu(5, 10, 0),
                memory(6, 0x1_0000_0000, 0x4000_0000, 7),
                memory(7, 0, 0xa_0000, 0),
                x2apic(8, 0x1234, 1),
                Vec::from([3, 4, 0, 0]),
            ],
        );
        let cpu = |apic_id, domain, is_enabled| {
            Affinity::Cpu(CpuAffinity {
                apic_id,
                domain,
                is_enabled,
            })
        };
        let memory = |base, length, domain, all: bool| {
            Affinity::Memory(MemoryAffinity {
                base,
                length,
                domain,
                is_enabled: all,
                is_hot_pluggable: all,
                is_non_volatile: all,
            })
        };
        let expected = [
            cpu(9, 0x0102_0304, true),
            cpu(10, 5, false),
            memory(0x1_0000_0000, 0x4000_0000, 6, true),
            memory(0, 0xa_0000, 7, false),
            cpu(0x1234, 8, true),
            Affinity::Other { kind: 3 },
        ];
        assert_eq!(entries(&bytes), expected.map(Ok));
    }

    #[test]
    fn an_old_table_has_domains_of_eight_bits() {
        let records = [
            cpu(0xdead_be01, 9, 1),
            memory(0xdead_be02, 0, 1, 1),
            x2apic(0xdead_be03, 1, 1),
        ];
        let domains = |revision| -> Vec<u32> {
            let entries = entries(&srat(revision, &records)).into_iter();
            let domain = |entry| match entry {
                Ok(Affinity::Cpu(cpu)) => cpu.domain,
                Ok(Affinity::Memory(memory)) => memory.domain,
                other => panic!("{other:?}"),
            };
            entries.map(domain).collect()
        };
        assert_eq!(domains(1), [1, 2, 3]);
        assert_eq!(domains(2), [0xdead_be01, 0xdead_be02, 0xdead_be03]);
    }

    #[test]
    fn ranges_without_an_end_are_known() {
        let range = |base, length| MemoryAffinity {
            base,
            length,
            domain: 0,
            is_enabled: true,
            is_hot_pluggable: false,
            is_non_volatile: false,
        };
        assert_eq!(range(0x1000, 0x1000).end(), Some(0x2000));
        assert_eq!(range(0x1000, 0).end(), None);
        assert_eq!(range(0x1000, u64::MAX).end(), None);
    }
}
