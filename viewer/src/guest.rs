//! A machine in a guest's RAM: what its inspection pages say of it.

use std::fmt;

use mm::addr::PhysAddr;
use mm::inspect::{Entry, EntryKind, Header, MAGIC, NotASheet, SampleLocation};

use crate::ram::Ram;

pub(crate) const PAGE: usize = 4096;
const FOUR_GIB: u64 = 1 << 32;
/// In an entry of a page table: it leads somewhere, …
pub(crate) const PRESENT: u64 = 1;
/// … to a page that is larger than usual.
pub(crate) const HUGE: u64 = 1 << 7;
/// The address in it.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// log2 of what a table of pages maps.
const TABLE: u32 = 21;
/// Inspection pages, at most: a chain that goes round ends here.
const PAGES: usize = 256;

/// Why there is no machine to be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// The RAM has no inspection page: nothing runs there, nothing with `mm`, or it has not come so far.
    Nothing,
    /// It has one that cannot be read here.
    Sheet(NotASheet),
    /// The machine has more memory than there is here.
    Cut {
        /// Bytes here.
        here: u64,
        /// Bytes that the machine has, at least.
        machine: u64,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str(
                "there is no inspection page in this memory: its kernel does not run mm, or has not brought memory up yet",
            ),
            Self::Sheet(error) => error.fmt(f),
            Self::Cut { here, machine } => write!(
                f,
                "here are {} MiB of memory, and the machine has at least {}: the file is cut off, or one is missing (a machine with nodes has a file for each)",
                here >> 20,
                machine >> 20
            ),
        }
    }
}

impl std::error::Error for AttachError {}

/// What maps 2 MiB.
enum Leaf {
    /// A table of pages.
    Table(PhysAddr),
    /// A large page, or a part of one.
    Large(PhysAddr),
}

/// A machine whose inspection pages were found.
#[derive(Debug)]
pub struct Guest {
    ram: Ram,
    header: Header,
    entries: Vec<Entry>,
    /// Whether the inspection page itself has told where the RAM is split.
    is_split_known: bool,
}

impl Guest {
    /// Looks for inspection pages.
    ///
    /// # Errors
    /// [`AttachError`], and the RAM back.
    pub fn attach(mut ram: Ram) -> Result<Self, (AttachError, Ram)> {
        let mut refused = None;
        let found = ram.find_page(|offset, page| {
            let is_one = page.starts_with(&MAGIC);
            let own = is_one.then(|| own_address(page)).flatten()?;
            // Memory at an address is as far into the files, or as much less as there is a hole below 4 GiB.
            let hole = own.checked_sub(offset)?;
            let is_here = hole == 0 || (own >= FOUR_GIB && hole < FOUR_GIB);
            match Header::read(page, PhysAddr::new(own)) {
                _ if !is_here => None,
                Ok(header) if header.direct_map != 0 => Some((header, hole)),
                Ok(_) | Err(NotASheet::Other) => None,
                Err(error) => {
                    refused = Some(error);
                    None
                }
            }
        });
        let Some((header, hole)) = found else {
            let error = refused.map_or(AttachError::Nothing, AttachError::Sheet);
            return Err((error, ram));
        };
        if hole > 0 {
            ram.split_at(FOUR_GIB - hole);
        }
        let mut guest = Self {
            ram,
            header,
            entries: Vec::new(),
            is_split_known: hole > 0,
        };
        guest.refresh();
        let zones = guest.of(EntryKind::Zone).map(|zone| zone.numbers[2]);
        let frames = zones.fold(0, u64::saturating_add);
        let (here, machine) = (guest.ram.size(), frames.saturating_mul(PAGE as u64));
        match machine > here {
            true => Err((AttachError::Cut { here, machine }, guest.ram)),
            false => Ok(guest),
        }
    }

    /// Where the RAM is split, if the inspection pages do not tell by where they are: by where the highest zone ends.
    fn find_split(&mut self) {
        let ends = self
            .of(EntryKind::Zone)
            .map(|zone| zone.numbers[1].saturating_mul(PAGE as u64));
        let end = ends.max().unwrap_or(0);
        if end > FOUR_GIB
            && let Some(low) = self.ram.size().checked_sub(end - FOUR_GIB)
        {
            self.ram.split_at(low.min(FOUR_GIB));
        }
    }

    /// Reads what is written down anew: caches and records of areas come and go.
    pub fn refresh(&mut self) {
        let mut entries = Vec::new();
        let mut page = vec![0; PAGE];
        let mut at = self.header.own;
        for _ in 0..PAGES {
            if !self.ram.read(at, &mut page) {
                break;
            }
            let Ok(header) = Header::read(&page, at) else {
                break;
            };
            let rest = page.get(Header::BYTES..).unwrap_or_default();
            let rows = rest.chunks_exact(Entry::BYTES);
            let count = usize::try_from(header.entries).unwrap_or(0);
            entries.extend(rows.take(count).filter_map(Entry::read));
            if at == self.header.own {
                self.header = header;
            }
            at = header.next;
            if at == PhysAddr::ZERO {
                break;
            }
        }
        self.entries = entries;
        // Again and again: when it was attached to, the kernel may have been in the middle of writing zones down.
        if !self.is_split_known {
            self.find_split();
        }
    }

    /// The RAM.
    #[must_use]
    pub const fn ram(&self) -> &Ram {
        &self.ram
    }

    /// What the first inspection page starts with.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// One more than the number of any frame that there can be, whatever is written down.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        let most = (self.ram.size() + FOUR_GIB) / PAGE as u64;
        if self.header.limit < most {
            self.header.limit
        } else {
            most
        }
    }

    /// Frames of a section; what cannot be is one.
    #[must_use]
    pub const fn section_frames(&self) -> u64 {
        match self.header.section_frames {
            frames @ 1..=0x10_0000 => frames,
            _ => 1,
        }
    }

    /// What is written down about things of a kind.
    pub fn of(&self, kind: EntryKind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    /// The physical address of a kernel's one.
    #[must_use]
    pub fn translate(&self, at: u64) -> Option<PhysAddr> {
        let direct = PhysAddr::new(at.wrapping_sub(self.header.direct_map));
        match self.ram.offset(direct) {
            Some(_) => Some(direct),
            None => self.walk(at),
        }
    }

    /// The same by the kernel's page tables.
    #[must_use]
    pub fn walk(&self, at: u64) -> Option<PhysAddr> {
        match self.leaf_table(at)? {
            Leaf::Large(first) => first.checked_add(at & ((1 << TABLE) - 1)),
            Leaf::Table(table) => {
                let slot = table.checked_add((at >> 12 & 0x1ff) * 8)?;
                let entry = self.u64_at_phys(slot)?;
                let page = (entry & PRESENT != 0).then_some(entry & ADDRESS)?;
                Some(PhysAddr::new(page | (at & (PAGE as u64 - 1))))
            }
        }
    }

    /// Shows the pages that are mapped from `start` to `end`: where, and the frame. Pages of 4 KiB, a table of them at a time.
    pub fn pages(&self, start: u64, end: u64, mut sink: impl FnMut(u64, u64)) {
        let mut table = vec![0; PAGE];
        let mut at = start;
        while at < end {
            let behind = (at | ((1 << TABLE) - 1)).saturating_add(1).min(end);
            match self.leaf_table(at) {
                Some(Leaf::Table(phys)) if self.ram.read(phys, &mut table) => {
                    for page in (at..behind).step_by(PAGE) {
                        let place = (page >> 12 & 0x1ff) as usize * 8;
                        let entry = word(&table, place).unwrap_or(0);
                        if entry & PRESENT != 0 {
                            sink(page, (entry & ADDRESS) >> 12);
                        }
                    }
                }
                Some(Leaf::Large(phys)) => {
                    for page in (at..behind).step_by(PAGE) {
                        let offset = page & ((1 << TABLE) - 1);
                        sink(page, (phys.as_u64() + offset) >> 12);
                    }
                }
                _ => {}
            }
            at = behind;
        }
    }

    /// What maps the 2 MiB around an address.
    fn leaf_table(&self, at: u64) -> Option<Leaf> {
        let levels = u32::try_from(self.header.levels).ok()?;
        if !(4..=5).contains(&levels) {
            return None;
        }
        let mut table = self.header.root;
        for level in (2..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let slot = table.checked_add((at >> shift & 0x1ff) * 8)?;
            let entry = self.u64_at_phys(slot)?;
            if entry & PRESENT == 0 {
                return None;
            }
            let next = entry & ADDRESS;
            if level <= 3 && entry & HUGE != 0 {
                let inside = at & ((1 << shift) - 1) & !((1 << TABLE) - 1);
                return Some(Leaf::Large(PhysAddr::new(
                    (next >> shift << shift) | inside,
                )));
            }
            table = PhysAddr::new(next);
        }
        Some(Leaf::Table(table))
    }

    /// Fills `bytes` with what is at a kernel's address; in areas, a page at a time.
    #[must_use]
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> bool {
        let direct = PhysAddr::new(at.wrapping_sub(self.header.direct_map));
        if self.ram.offset(direct).is_some() {
            return self.ram.read(direct, bytes);
        }
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_page = PAGE - (at % PAGE as u64) as usize;
            let (part, others) = rest.split_at_mut(in_page.min(rest.len()));
            let is_read = self.walk(at).is_some_and(|at| self.ram.read(at, part));
            if !is_read {
                return false;
            }
            at = at.wrapping_add(part.len() as u64);
            rest = others;
        }
        true
    }

    fn u64_at_phys(&self, at: PhysAddr) -> Option<u64> {
        let mut bytes = [0; 8];
        self.ram
            .read(at, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// A word at a kernel's address.
    #[must_use]
    pub fn u64_at(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    /// The value of an entry that is a number.
    #[must_use]
    pub fn value(&self, entry: &Entry) -> Option<u64> {
        let mut bytes = [0; 8];
        let width = usize::try_from(entry.width).ok()?;
        let place = bytes.get_mut(..width)?;
        self.read(entry.at, place)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// The source location at a kernel's address: file and line.
    #[must_use]
    pub fn location(&self, at: u64) -> Option<String> {
        let shape = LocationShape::of(self)?;
        let mut bytes = [0; LocationShape::BYTES];
        if at == 0 || !self.read(at, &mut bytes) {
            return None;
        }
        let file = word(&bytes, shape.file)?;
        let len = usize::try_from(word(&bytes, shape.len)?).ok()?;
        let line = u32::from_le_bytes(*bytes.get(shape.line..)?.first_chunk()?);
        // A path is short; anything else is no location.
        let mut name = vec![0; Some(len).filter(|&len| len > 0 && len < 512)?];
        if !self.read(file, &mut name) {
            return None;
        }
        let name = String::from_utf8(name).ok()?;
        // With or without a zero behind it: the language says neither.
        Some(format!("{}:{line}", name.trim_end_matches('\0')))
    }
}

#[cfg(test)]
mod tests;

/// Where the address is that a page says it has.
fn own_address(page: &[u8]) -> Option<u64> {
    let bytes = page.get(24..32)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where in a source location its parts are: looked for in the example that the kernel gives.
struct LocationShape {
    file: usize,
    len: usize,
    line: usize,
}

impl LocationShape {
    /// Bytes of a location: an address, a length and two numbers.
    const BYTES: usize = 24;

    fn of(guest: &Guest) -> Option<Self> {
        let SampleLocation {
            at,
            file,
            file_len,
            line,
            column: _,
        } = guest.header.sample;
        let mut bytes = [0; Self::BYTES];
        if !guest.read(at, &mut bytes) {
            return None;
        }
        let words = (0..Self::BYTES).step_by(8);
        let found = |wanted: &[u64]| {
            let mut words = words.clone();
            words.find(|&place| word(&bytes, place).is_some_and(|word| wanted.contains(&word)))
        };
        let mut halves = (0..Self::BYTES).step_by(4);
        let line =
            halves.find(|&place| bytes.get(place..place + 4) == Some(&line.to_le_bytes()[..]));
        Some(Self {
            file: found(&[file])?,
            // Some versions of the language count a zero behind the name.
            len: found(&[file_len, file_len + 1])?,
            line: line?,
        })
    }
}
