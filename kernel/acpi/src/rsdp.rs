//! The root system description pointer: where the search for tables starts (5.2.5).

use crate::error::{AcpiError, Signature};
use crate::memory::{PhysMemory, checksum, u8_at, u16_at, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"RSD PTR ";
/// Bytes of revision 0, all that its checksum covers.
const FIRST_BYTES: usize = 20;
/// Bytes since revision 2.
const SECOND_BYTES: usize = 36;
/// No root pointer of any revision is longer.
const MOST_BYTES: u32 = 4096;
/// It lies on a 16-byte boundary.
const STEP: u64 = 16;

/// Where the BIOS keeps the segment of its extended data area.
const EBDA_SEGMENT: u64 = 0x40e;
const EBDA_SEARCHED: u64 = 1024;
/// The read-only memory that a BIOS may have the root pointer in.
const BIOS: (u64, u64) = (0xe_0000, 0x10_0000);

const SIGNATURE: Signature = Signature(*b"RSD ");

/// The root pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    /// 0 is ACPI 1.0, 2 all later ones.
    pub revision: u8,
    /// Where the RSDT lies; 0 for none.
    pub rsdt: u32,
    /// Where the XSDT lies; 0 for none.
    pub xsdt: u64,
}

impl Rsdp {
    /// Reads the root pointer at `at`.
    ///
    /// A revision whose extended part is damaged counts as revision 0 if that is whole: the
    /// machine then has its RSDT.
    ///
    /// # Errors
    /// There is none at `at`, or not even its first part is whole.
    pub fn read(memory: &(impl PhysMemory + ?Sized), at: u64) -> Result<Self, AcpiError> {
        let unreachable = AcpiError::Unreachable {
            at,
            length: FIRST_BYTES,
        };
        let first = memory.bytes(at, FIRST_BYTES).ok_or(unreachable)?;
        if !first.starts_with(MAGIC) {
            return Err(AcpiError::NoRsdp);
        }
        let (Some(revision), Some(rsdt)) = (u8_at(first, 15), u32_at(first, 16)) else {
            return Err(unreachable);
        };
        if checksum(first) != 0 {
            return Err(AcpiError::BadChecksum {
                signature: SIGNATURE,
                at,
            });
        }
        let extended = (revision >= 2).then(|| Self::xsdt(memory, at)).flatten();
        Ok(Self {
            revision: if extended.is_some() { revision } else { 0 },
            rsdt,
            xsdt: extended.unwrap_or_default(),
        })
    }

    /// What the extended part says, if it is whole.
    fn xsdt(memory: &(impl PhysMemory + ?Sized), at: u64) -> Option<u64> {
        let bytes = memory.bytes(at, SECOND_BYTES)?;
        let length = u32_at(bytes, 20).filter(|length| *length <= MOST_BYTES)?;
        let length = usize::try_from(length).ok()?;
        if length < SECOND_BYTES || checksum(memory.bytes(at, length)?) != 0 {
            return None;
        }
        u64_at(bytes, 24)
    }
}

/// Looks for the root pointer where a PC's BIOS has it (5.2.5.1): in the first KiB of the extended
/// BIOS data area, then from 0xe0000 to 1 MiB. Answers its address too.
///
/// # Errors
/// [`AcpiError::NoRsdp`].
pub fn find_rsdp(memory: &(impl PhysMemory + ?Sized)) -> Result<(u64, Rsdp), AcpiError> {
    let segment = memory
        .bytes(EBDA_SEGMENT, 2)
        .and_then(|bytes| u16_at(bytes, 0))
        .unwrap_or_default();
    let ebda = u64::from(segment) << 4;
    // Without such an area the word is 0, and page 0 holds no root pointer.
    let first = (ebda > EBDA_SEGMENT).then_some((ebda, ebda.saturating_add(EBDA_SEARCHED)));
    for (start, end) in first.into_iter().chain([BIOS]) {
        let mut at = start;
        while at < end {
            if let Ok(rsdp) = Rsdp::read(memory, at) {
                return Ok((at, rsdp));
            }
            at = at.saturating_add(STEP);
        }
    }
    Err(AcpiError::NoRsdp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{fix_byte, rsdp};
    use crate::memory::SliceMemory;
    use std::vec;

    #[test]
    fn both_revisions_are_read() {
        for (revision, xsdt) in [(0, 0), (2, 0x1_2345_6780)] {
            let bytes = rsdp(revision, 0x7000, 0x1_2345_6780);
            let memory = SliceMemory::new(0x1000, &bytes);
            let expected = Rsdp {
                revision,
                rsdt: 0x7000,
                xsdt,
            };
            assert_eq!(Rsdp::read(&memory, 0x1000), Ok(expected));
        }
    }

    #[test]
    fn a_damaged_extension_leaves_the_rsdt() {
        let mut bytes = rsdp(2, 0x7000, 0x8000);
        bytes[30] ^= 1;
        let read = Rsdp::read(&SliceMemory::new(0, &bytes), 0).unwrap();
        assert_eq!((read.revision, read.rsdt, read.xsdt), (0, 0x7000, 0));
        // A length that lies, in either direction.
        for length in [0_u32, 35, u32::MAX] {
            let mut bytes = rsdp(2, 0x7000, 0x8000);
            bytes[20..24].copy_from_slice(&length.to_le_bytes());
            fix_byte(&mut bytes, 32);
            let read = Rsdp::read(&SliceMemory::new(0, &bytes), 0).unwrap();
            assert_eq!(read.xsdt, 0, "{length}");
        }
    }

    #[test]
    fn what_is_no_root_pointer_is_refused() {
        let good = rsdp(0, 0x7000, 0);
        let mut bad = good.clone();
        bad[17] ^= 0x10;
        let error = Rsdp::read(&SliceMemory::new(0, &bad), 0).unwrap_err();
        assert_eq!(
            error,
            AcpiError::BadChecksum {
                signature: SIGNATURE,
                at: 0
            }
        );
        assert!(Rsdp::read(&SliceMemory::new(0, &good[..19]), 0).is_err());
        assert!(Rsdp::read(&SliceMemory::new(0, &good), u64::MAX).is_err());
        let zeroes = [0; 64];
        let error = Rsdp::read(&SliceMemory::new(0, &zeroes), 0);
        assert_eq!(error, Err(AcpiError::NoRsdp));
    }

    #[test]
    fn it_is_found_in_the_data_area_and_in_the_bios() {
        for (place, ebda) in [(0x9_fc10, 0x9fc0_u16), (0xf_5ab0, 0), (0xe_0000, 0x9fc0)] {
            let mut low = vec![0_u8; 1 << 20];
            low[0x40e..0x410].copy_from_slice(&ebda.to_le_bytes());
            low[place..place + 36].copy_from_slice(&rsdp(2, 1, 2));
            let (at, found) = find_rsdp(&SliceMemory::new(0, &low)).unwrap();
            assert_eq!((at, found.xsdt), (u64::try_from(place).unwrap(), 2));
        }
        let nothing = vec![0_u8; 1 << 20];
        let memory = SliceMemory::new(0, &nothing);
        assert_eq!(find_rsdp(&memory), Err(AcpiError::NoRsdp));
        assert_eq!(find_rsdp(&SliceMemory::new(0, &[])), Err(AcpiError::NoRsdp));
    }
}
