//! Address translation on the small machine of the textbooks: everything fits on a page.
//!
//! Virtual addresses of 14 bits, physical ones of 12, pages of 64 bytes; a TLB with 16 entries in four ways, a page table of one
//! level, and a cache of 16 lines of four bytes (Bryant and O'Hallaron, *Computer Systems: A Programmer's Perspective*,
//! 9.6.4, whose tables these are).
#![forbid(unsafe_code)]

use core::fmt;

const OFFSET_BITS: u32 = 6;
const VIRTUAL_BITS: u32 = 14;
const SET_BITS: u32 = 2;

/// Valid entries of the TLB: set, tag, frame.
const TLB: [(u16, u16, u16); 5] = [
    (0, 0x09, 0x0d),
    (0, 0x07, 0x02),
    (1, 0x03, 0x2d),
    (3, 0x03, 0x0d),
    (3, 0x0a, 0x34),
];

/// The page table's first 16 entries: frames, or nothing.
const PAGE_TABLE: [Option<u16>; 16] = [
    Some(0x28),
    None,
    Some(0x33),
    Some(0x02),
    None,
    Some(0x16),
    None,
    None,
    Some(0x13),
    Some(0x17),
    Some(0x09),
    None,
    None,
    Some(0x2d),
    Some(0x11),
    Some(0x0d),
];

/// Valid lines of the cache: index, tag, bytes.
const CACHE: [(u16, u16, [u8; 4]); 9] = [
    (0x0, 0x19, [0x99, 0x11, 0x23, 0x11]),
    (0x2, 0x1b, [0x00, 0x02, 0x04, 0x08]),
    (0x4, 0x32, [0x43, 0x6d, 0x8f, 0x09]),
    (0x5, 0x0d, [0x36, 0x72, 0xf0, 0x1d]),
    (0x7, 0x16, [0x11, 0xc2, 0xdf, 0x03]),
    (0x8, 0x24, [0x3a, 0x00, 0x51, 0x89]),
    (0xa, 0x2d, [0x93, 0x15, 0xda, 0x3b]),
    (0xd, 0x16, [0x04, 0x96, 0x34, 0x15]),
    (0xe, 0x13, [0x83, 0x77, 0x1b, 0xd3]),
];

/// How an address was translated on the small machine, and what lies there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextbookWalk {
    /// The virtual address.
    pub virt: u16,
    /// The page's number.
    pub page: u16,
    /// Set and tag in the TLB.
    pub tlb: (u16, u16),
    /// The frame, if the TLB has it.
    pub tlb_hit: Option<u16>,
    /// The frame, by the TLB or the page table; none is a page fault.
    pub frame: Option<u16>,
    /// Index and tag in the cache, if there is a frame.
    pub cache: Option<(u16, u16)>,
    /// The byte, if the cache has it.
    pub byte: Option<u8>,
}

impl TextbookWalk {
    /// Translates an address; `None` above 14 bits. Context: any.
    #[must_use]
    pub fn new(virt: u16) -> Option<Self> {
        if virt >> VIRTUAL_BITS != 0 {
            return None;
        }
        let page = virt >> OFFSET_BITS;
        let tlb = (page & 3, page >> SET_BITS);
        let entry = TLB.iter().find(|entry| (entry.0, entry.1) == tlb);
        let tlb_hit = entry.map(|entry| entry.2);
        let mapped = PAGE_TABLE.get(usize::from(page)).copied().flatten();
        let frame = tlb_hit.or(mapped);
        let mut walk = Self {
            virt,
            page,
            tlb,
            tlb_hit,
            frame,
            cache: None,
            byte: None,
        };
        if let Some(phys) = walk.phys() {
            let (index, tag) = (phys >> 2 & 0xf, phys >> OFFSET_BITS);
            walk.cache = Some((index, tag));
            let line = CACHE.iter().find(|line| (line.0, line.1) == (index, tag));
            walk.byte = line.and_then(|line| line.2.get(usize::from(phys & 3)).copied());
        }
        Some(walk)
    }

    /// The physical address; none is a page fault. Context: any.
    #[must_use]
    pub fn phys(&self) -> Option<u16> {
        let offset = self.virt & 0x3f;
        self.frame.map(|frame| frame << OFFSET_BITS | offset)
    }
}

impl fmt::Display for TextbookWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (set, tag) = self.tlb;
        writeln!(
            f,
            "virtual {:#06x} = page {:#04x}, offset {:#04x}",
            self.virt,
            self.page,
            self.virt & 0x3f
        )?;
        write!(f, "  TLB         set {set}, tag {tag:#04x}: ")?;
        match self.tlb_hit {
            Some(frame) => writeln!(f, "hit, frame {frame:#04x}")?,
            None => writeln!(f, "miss")?,
        }
        if self.tlb_hit.is_none() {
            write!(f, "  page table  entry {:#04x}: ", self.page)?;
            match self.frame {
                Some(frame) => writeln!(f, "frame {frame:#04x}")?,
                None => return writeln!(f, "not valid: page fault"),
            }
        }
        let (Some(phys), Some((index, tag))) = (self.phys(), self.cache) else {
            return Ok(());
        };
        writeln!(f, "physical {phys:#05x}")?;
        write!(f, "  cache       line {index:#03x}, tag {tag:#04x}: ")?;
        match self.byte {
            Some(byte) => writeln!(f, "hit, byte {byte:#04x}"),
            None => writeln!(f, "miss"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(virt: u16) -> TextbookWalk {
        TextbookWalk::new(virt).unwrap()
    }

    #[test]
    fn a_page_that_the_table_has_is_found_there() {
        let found = walk(0x0255);
        assert_eq!((found.page, found.tlb, found.tlb_hit), (0x09, (1, 2), None));
        assert_eq!(found.phys(), Some(0x5d5));
        assert_eq!((found.cache, found.byte), (Some((5, 0x17)), None));
    }

    #[test]
    fn a_page_that_nobody_has_is_a_page_fault() {
        let found = walk(0x0334);
        assert_eq!((found.page, found.phys()), (0x0c, None));
        assert!(found.to_string().ends_with("not valid: page fault\n"));
    }

    #[test]
    fn the_worked_example_of_the_book_comes_out() {
        let found = walk(0x03d4);
        assert_eq!((found.tlb, found.tlb_hit), ((3, 3), Some(0x0d)));
        assert_eq!((found.phys(), found.byte), (Some(0x354), Some(0x36)));
        assert_eq!(TextbookWalk::new(0x4000), None);
    }

    #[test]
    fn the_tlb_never_disagrees_with_the_table() {
        for (set, tag, frame) in TLB {
            let page = usize::from(tag << SET_BITS | set);
            if let Some(mapped) = PAGE_TABLE.get(page) {
                assert_eq!(*mapped, Some(frame));
            }
        }
    }
}
