//! The root table and the tables it names (5.2.6 to 5.2.8).

use crate::error::{AcpiError, Signature};
use crate::memory::{PhysMemory, array_at, checksum, u8_at, u32_at, u64_at};
use crate::rsdp::Rsdp;

/// Bytes of the header that every table starts with.
pub(crate) const HEADER_BYTES: usize = 36;
/// No table that is read here is longer; it bounds the work that a lying length can cause.
pub const MAX_TABLE_BYTES: u32 = 16 << 20;

/// A table: whole, with a valid checksum.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    at: u64,
    signature: Signature,
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    /// Reads the table at `at`.
    ///
    /// # Errors
    /// It cannot be read whole, or its checksum is wrong.
    pub fn read<M: PhysMemory + ?Sized>(memory: &'a M, at: u64) -> Result<Self, AcpiError> {
        let (signature, length) = Self::header(memory, at)?;
        let bad_length = AcpiError::BadLength {
            signature,
            at,
            length,
        };
        let size = usize::try_from(length).map_err(|_| bad_length)?;
        if size < HEADER_BYTES || length > MAX_TABLE_BYTES {
            return Err(bad_length);
        }
        let bytes = memory
            .bytes(at, size)
            .ok_or(AcpiError::Unreachable { at, length: size })?;
        if checksum(bytes) != 0 {
            return Err(AcpiError::BadChecksum { signature, at });
        }
        Ok(Self {
            at,
            signature,
            bytes,
        })
    }

    /// The name and the claimed length of the table at `at`.
    fn header<M: PhysMemory + ?Sized>(memory: &M, at: u64) -> Result<(Signature, u32), AcpiError> {
        let unreachable = AcpiError::Unreachable {
            at,
            length: HEADER_BYTES,
        };
        let header = memory.bytes(at, HEADER_BYTES).ok_or(unreachable)?;
        let name = array_at(header, 0).ok_or(unreachable)?;
        let length = u32_at(header, 4).ok_or(unreachable)?;
        Ok((Signature(name), length))
    }

    /// Its name.
    #[must_use]
    pub const fn signature(&self) -> Signature {
        self.signature
    }

    /// Where it lies.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.at
    }

    /// All of it, header included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The revision of its format.
    #[must_use]
    pub fn revision(&self) -> u8 {
        u8_at(self.bytes, 8).unwrap_or_default()
    }

    /// Fails if the table is shorter than `least` bytes.
    pub(crate) fn at_least(self, least: usize) -> Result<Self, AcpiError> {
        if self.bytes.len() < least {
            return Err(AcpiError::BadLength {
                signature: self.signature,
                at: self.at,
                length: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            });
        }
        Ok(self)
    }

    /// Fails if the table has another name.
    pub(crate) fn named(self, expected: Signature) -> Result<Self, AcpiError> {
        if self.signature != expected {
            return Err(AcpiError::WrongTable {
                expected,
                found: self.signature,
            });
        }
        Ok(self)
    }
}

/// The tables of a machine, by the root table.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a, M: ?Sized> {
    memory: &'a M,
    root: Table<'a>,
    wide: bool,
}

impl<'a, M: PhysMemory + ?Sized> Tables<'a, M> {
    /// Opens the root table: the XSDT, or the RSDT where there is no whole XSDT.
    ///
    /// # Errors
    /// Neither can be read; the reason is that of the last one tried.
    pub fn open(memory: &'a M, rsdp: &Rsdp) -> Result<Self, AcpiError> {
        let mut outcome = Err(AcpiError::Missing(Signature::RSDT));
        let candidates = [
            (rsdp.xsdt, Signature::XSDT, true),
            (u64::from(rsdp.rsdt), Signature::RSDT, false),
        ];
        for (at, signature, wide) in candidates {
            if at == 0 {
                continue;
            }
            outcome = Table::read(memory, at).and_then(|table| table.named(signature));
            if let Ok(root) = outcome {
                return Ok(Self { memory, root, wide });
            }
        }
        outcome.map(|root| Self {
            memory,
            root,
            wide: false,
        })
    }

    /// The root table.
    #[must_use]
    pub const fn root(&self) -> &Table<'a> {
        &self.root
    }

    /// Where the tables lie that the root names, in its order. Nothing is checked yet.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + use<'a, M> {
        let entries = self.root.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let wide = self.wide;
        // A rest that is no whole entry names nothing.
        let size = if wide { 8 } else { 4 };
        entries.chunks_exact(size).filter_map(move |entry| {
            if wide {
                u64_at(entry, 0)
            } else {
                u32_at(entry, 0).map(u64::from)
            }
        })
    }

    /// Every table that the root names and that has a header, by name.
    pub fn list(&self) -> impl Iterator<Item = (Signature, u64)> + use<'a, M> {
        let memory = self.memory;
        self.addresses().filter_map(move |at| {
            let (signature, _) = Table::header(memory, at).ok()?;
            Some((signature, at))
        })
    }

    /// The first whole table called `signature`.
    ///
    /// # Errors
    /// The root names none; or none is whole, then with what is wrong with the first.
    pub fn find(&self, signature: Signature) -> Result<Table<'a>, AcpiError> {
        let mut first = None;
        for (_, at) in self.list().filter(|(name, _)| *name == signature) {
            match Table::read(self.memory, at) {
                Ok(table) => return Ok(table),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(AcpiError::Missing(signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Image, fix_byte, table};
    use crate::memory::SliceMemory;
    use std::vec::Vec;

    fn names(image: &Image) -> Vec<Signature> {
        let memory = image.memory();
        let tables = Tables::open(&memory, &image.rsdp()).unwrap();
        tables.list().map(|(name, _)| name).collect()
    }

    #[test]
    fn both_root_tables_lead_to_the_same_tables() {
        let bodies = [table(b"FACP", 1, &[]), table(b"APIC", 1, &[0; 8])];
        for revision in [0, 2] {
            let image = Image::new(revision, &bodies);
            assert_eq!(names(&image), [Signature(*b"FACP"), Signature::MADT]);
            let memory = image.memory();
            let tables = Tables::open(&memory, &image.rsdp()).unwrap();
            let madt = tables.find(Signature::MADT).unwrap();
            assert_eq!((madt.revision(), madt.bytes().len()), (1, 44));
            let missing = tables.find(Signature::SLIT).unwrap_err();
            assert_eq!(missing, AcpiError::Missing(Signature::SLIT));
        }
    }

    #[test]
    fn a_damaged_xsdt_leaves_the_rsdt() {
        let mut image = Image::new(2, &[table(b"APIC", 1, &[0; 8])]);
        let xsdt = usize::try_from(image.rsdp().xsdt - Image::BASE).unwrap();
        image.bytes[xsdt + 20] ^= 1;
        assert_eq!(names(&image), [Signature::MADT]);
    }

    #[test]
    fn of_two_tables_of_a_name_the_whole_one_is_taken() {
        let mut broken = table(b"APIC", 1, &[0; 8]);
        broken[40] ^= 1;
        let image = Image::new(2, &[broken.clone(), table(b"APIC", 3, &[0; 8])]);
        let memory = image.memory();
        let tables = Tables::open(&memory, &image.rsdp()).unwrap();
        assert_eq!(tables.find(Signature::MADT).unwrap().revision(), 3);
        let image = Image::new(2, &[broken]);
        let memory = image.memory();
        let tables = Tables::open(&memory, &image.rsdp()).unwrap();
        let error = tables.find(Signature::MADT).unwrap_err();
        assert!(matches!(error, AcpiError::BadChecksum { .. }));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for length in [0_u32, 35, 1 << 20, MAX_TABLE_BYTES + 1, u32::MAX] {
            let mut bytes = table(b"APIC", 1, &[0; 8]);
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            fix_byte(&mut bytes, 9);
            assert!(Table::read(&SliceMemory::new(0, &bytes), 0).is_err());
        }
    }

    #[test]
    fn a_root_that_names_itself_or_nothing_ends() {
        let mut image = Image::new(2, &[table(b"APIC", 1, &[0; 8])]);
        let root = image.rsdp().xsdt;
        let xsdt = usize::try_from(root - Image::BASE).unwrap();
        image.bytes[xsdt + 36..xsdt + 44].copy_from_slice(&root.to_le_bytes());
        fix_byte(&mut image.bytes[xsdt..xsdt + 44], 9);
        assert_eq!(names(&image), [Signature::XSDT]);
        let none = Rsdp {
            revision: 2,
            rsdt: 0,
            xsdt: 0,
        };
        let error = Tables::open(&image.memory(), &none).err();
        assert_eq!(error, Some(AcpiError::Missing(Signature::RSDT)));
    }
}
