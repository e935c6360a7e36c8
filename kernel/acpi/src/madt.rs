//! The multiple APIC description table: CPUs and interrupt controllers (5.2.12).

use crate::error::{AcpiError, RecordError, Signature};
use crate::memory::{PhysMemory, u8_at, u16_at, u32_at, u64_at};
use crate::records::{Record, Records};
use crate::tables::{Table, Tables};

/// Where the first record starts.
const FIRST_RECORD: usize = 44;

/// The table.
#[derive(Clone, Copy, Debug)]
pub struct Madt<'a> {
    table: Table<'a>,
}

/// A record of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A CPU by its 8-bit APIC identifier, or by a larger one (x2APIC).
    Cpu(CpuEntry),
    /// An I/O APIC.
    IoApic {
        /// Its identifier.
        id: u8,
        /// Where its registers lie.
        address: u32,
        /// Number of its first input among all inputs of the system.
        first_gsi: u32,
    },
    /// An ISA interrupt that is wired to another input than its number says.
    Override {
        /// The ISA interrupt.
        source: u8,
        /// The input.
        gsi: u32,
        /// Polarity in bits 0–1 and trigger mode in bits 2–3, as the specification has them.
        flags: u16,
    },
    /// The local APICs' registers lie here, whatever the table's head says.
    LocalApicAddress(u64),
    /// A kind that is of no use here.
    Other {
        /// Its number.
        kind: u8,
    },
}

/// A CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuEntry {
    /// The name that the firmware's code uses for it.
    pub acpi_id: u32,
    /// Its APIC identifier.
    pub apic_id: u32,
    /// It can be started.
    pub is_enabled: bool,
    /// It is not there now, but may come.
    pub is_online_capable: bool,
}

impl CpuEntry {
    fn new(acpi_id: u32, apic_id: u32, flags: u32) -> Self {
        Self {
            acpi_id,
            apic_id,
            is_enabled: flags & 1 != 0,
            is_online_capable: flags & 2 != 0,
        }
    }

    /// Whether the entry names a CPU at all: all ones is nobody's identifier.
    fn is_named(&self, nobody: u32) -> bool {
        self.apic_id != nobody
    }
}

impl<'a> Madt<'a> {
    /// Finds the table.
    ///
    /// # Errors
    /// There is no whole one.
    pub fn find<M: PhysMemory + ?Sized>(tables: &Tables<'a, M>) -> Result<Self, AcpiError> {
        Self::new(tables.find(Signature::MADT)?)
    }

    /// Takes a table for what it says it is.
    ///
    /// # Errors
    /// It is another table, or shorter than its head.
    pub fn new(table: Table<'a>) -> Result<Self, AcpiError> {
        let table = table.named(Signature::MADT)?.at_least(FIRST_RECORD)?;
        Ok(Self { table })
    }

    /// Where the local APICs' registers lie: as the last record about it says, else the head.
    #[must_use]
    pub fn local_apic_address(&self) -> u64 {
        let head = u32_at(self.table.bytes(), 36).unwrap_or_default();
        let moved = self.entries().filter_map(|entry| match entry {
            Ok(Entry::LocalApicAddress(address)) => Some(address),
            _ => None,
        });
        moved.last().unwrap_or(u64::from(head))
    }

    /// Whether the machine also has the two 8259 controllers of old.
    #[must_use]
    pub fn has_legacy_pics(&self) -> bool {
        u32_at(self.table.bytes(), 40).unwrap_or_default() & 1 != 0
    }

    /// The records, in the table's order.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, RecordError>> + use<'a> {
        let records = Records::new(self.table.bytes(), FIRST_RECORD);
        records.map(|record| {
            let record = record?;
            record.parsed(entry(&record))
        })
    }

    /// The CPUs that the table names, in its order; a CPU may come twice.
    pub fn cpus(&self) -> impl Iterator<Item = CpuEntry> + use<'a> {
        self.entries().filter_map(|entry| match entry {
            Ok(Entry::Cpu(cpu)) => Some(cpu),
            _ => None,
        })
    }
}

/// What a record says; `None` if it is too short for its kind.
fn entry(record: &Record<'_>) -> Option<Entry> {
    let bytes = record.bytes;
    let other = Entry::Other { kind: record.kind };
    Some(match record.kind {
        0 => {
            let (acpi_id, apic_id) = (u8_at(bytes, 2)?, u8_at(bytes, 3)?);
            let cpu = CpuEntry::new(acpi_id.into(), apic_id.into(), u32_at(bytes, 4)?);
            if cpu.is_named(0xff) {
                Entry::Cpu(cpu)
            } else {
                other
            }
        }
        1 => Entry::IoApic {
            id: u8_at(bytes, 2)?,
            address: u32_at(bytes, 4)?,
            first_gsi: u32_at(bytes, 8)?,
        },
        2 => Entry::Override {
            source: u8_at(bytes, 3)?,
            gsi: u32_at(bytes, 4)?,
            flags: u16_at(bytes, 8)?,
        },
        5 => Entry::LocalApicAddress(u64_at(bytes, 4)?),
        9 => {
            let (apic_id, flags) = (u32_at(bytes, 4)?, u32_at(bytes, 8)?);
            let cpu = CpuEntry::new(u32_at(bytes, 12)?, apic_id, flags);
            if cpu.is_named(u32::MAX) {
                Entry::Cpu(cpu)
            } else {
                other
            }
        }
        _ => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::table;
    use crate::memory::SliceMemory;
    use std::vec::Vec;

    /// Two CPUs, one disabled, one that may come, an x2APIC CPU, an I/O APIC, an override.
    const RECORDS: &[&[u8]] = &[
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 2, 0, 0, 0, 0],
        &[0, 8, 2, 4, 2, 0, 0, 0],
        &[0, 8, 3, 0xff, 1, 0, 0, 0],
        &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
        &[1, 12, 5, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0x0d, 0],
        &[5, 12, 0, 0, 0, 0, 0xe1, 0xfe, 1, 0, 0, 0],
        &[0x7f, 3, 9],
    ];

    fn madt(records: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::from([0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
        records.iter().for_each(|record| body.extend(*record));
        table(b"APIC", 3, &body)
    }

    fn entries(bytes: &[u8]) -> Vec<Result<Entry, RecordError>> {
        let memory = SliceMemory::new(0, bytes);
        let table = Table::read(&memory, 0).unwrap();
        Madt::new(table).unwrap().entries().collect()
    }

    const fn cpu(acpi_id: u32, apic_id: u32, flags: u32) -> Entry {
        Entry::Cpu(CpuEntry {
            acpi_id,
            apic_id,
            is_enabled: flags & 1 != 0,
            is_online_capable: flags & 2 != 0,
        })
    }

    #[test]
    fn every_kind_is_read() {
        let expected = [
            cpu(0, 0, 1),
            cpu(1, 2, 0),
            cpu(2, 4, 2),
            Entry::Other { kind: 0 },
            cpu(7, 0x12c, 1),
            Entry::IoApic {
                id: 5,
                address: 0xfec0_0000,
                first_gsi: 24,
            },
            Entry::Override {
                source: 0,
                gsi: 2,
                flags: 13,
            },
            Entry::LocalApicAddress(0x1_fee1_0000),
            Entry::Other { kind: 0x7f },
        ];
        assert_eq!(entries(&madt(RECORDS)), expected.map(Ok));
    }

    #[test]
    fn the_head_says_where_the_apics_are_unless_a_record_does() {
        for (count, address) in [(7, 0xfee0_0000), (8, 0x1_fee1_0000)] {
            let bytes = madt(&RECORDS[..count]);
            let memory = SliceMemory::new(0, &bytes);
            let madt = Madt::new(Table::read(&memory, 0).unwrap()).unwrap();
            assert_eq!(madt.local_apic_address(), address);
            assert!(madt.has_legacy_pics());
            assert_eq!(madt.cpus().count(), 4);
        }
    }

    #[test]
    fn a_record_without_a_length_ends_the_list_and_a_short_one_does_not() {
        let bytes = madt(&[
            &[0, 4, 1, 1],
            RECORDS[0],
            &[0, 0, 1, 1, 1, 0, 0, 0],
            RECORDS[0],
        ]);
        let expected = [
            Err(RecordError::TooShort {
                offset: 44,
                kind: 0,
            }),
            Ok(cpu(0, 0, 1)),
            Err(RecordError::NoLength { offset: 56 }),
        ];
        assert_eq!(entries(&bytes), expected);
        let bytes = madt(&[RECORDS[0], &[0, 9, 1, 1, 1, 0, 0, 0]]);
        let truncated = Err(RecordError::Truncated { offset: 52 });
        assert_eq!(entries(&bytes), [Ok(cpu(0, 0, 1)), truncated]);
        let bytes = madt(&[&[0]]);
        let truncated = Err(RecordError::Truncated { offset: 44 });
        assert_eq!(entries(&bytes), [truncated]);
    }

    #[test]
    fn a_table_without_a_whole_head_is_refused() {
        let bytes = table(b"APIC", 1, &[0; 7]);
        let memory = SliceMemory::new(0, &bytes);
        let error = Madt::new(Table::read(&memory, 0).unwrap()).unwrap_err();
        assert!(matches!(error, AcpiError::BadLength { length: 43, .. }));
        let bytes = table(b"SRAT", 1, &[0; 8]);
        let memory = SliceMemory::new(0, &bytes);
        let error = Madt::new(Table::read(&memory, 0).unwrap()).unwrap_err();
        assert!(matches!(error, AcpiError::WrongTable { .. }));
    }
}
