//! Headers and entries as bytes, both ways: the kernel writes what viewers read.
#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::PhysAddr;

/// What the first page of a sheet starts with.
pub const MAGIC: [u8; 16] = *b"mm::inspect\0page";
/// The version of what is behind it. Whoever knows another one knows nothing of this.
pub const VERSION: u32 = 1;

/// Why bytes are no sheet that can be read here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotASheet {
    /// They do not start with [`MAGIC`], or say that they are somewhere else: a copy.
    Other,
    /// The kernel speaks another version.
    Version(u32),
    /// There are fewer bytes than a page has, or more entries than a page holds.
    Cut,
}

impl fmt::Display for NotASheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("no inspection page"),
            Self::Version(version) => write!(
                f,
                "the kernel's inspection pages are of version {version}, and only {VERSION} is understood here"
            ),
            Self::Cut => f.write_str("an inspection page that is cut off"),
        }
    }
}

impl core::error::Error for NotASheet {}

/// A source location, and where its parts are: the language does not say how it lies in memory, so whoever wants to read others
/// looks for these numbers at its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SampleLocation {
    /// Where it is.
    pub at: u64,
    /// Where the text of its file name is.
    pub file: u64,
    /// Bytes of that.
    pub file_len: u64,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// The start of a page of a sheet; see the [module](super) for what is where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Bytes of a record of a frame.
    pub record_bytes: u32,
    /// Where the page is.
    pub own: PhysAddr,
    /// Where the next page is; 0: there is none.
    pub next: PhysAddr,
    /// Entries in the page.
    pub entries: u64,
    /// Where physical address 0 is in the direct map.
    pub direct_map: u64,
    /// The root of the kernel's page tables; 0: unknown.
    pub root: PhysAddr,
    /// Levels of page tables.
    pub levels: u64,
    /// All frame numbers are below.
    pub limit: u64,
    /// Frames of a section.
    pub section_frames: u64,
    /// 0 plain, 1 hardened, 2 debug.
    pub profile: u64,
    /// A source location.
    pub sample: SampleLocation,
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = 128;

    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut writer = Writer(&mut bytes);
        writer.put(&MAGIC);
        writer.put(&VERSION.to_le_bytes());
        writer.put(&self.record_bytes.to_le_bytes());
        let numbers = [
            self.own.as_u64(),
            self.next.as_u64(),
            self.entries,
            self.direct_map,
            self.root.as_u64(),
            self.levels,
            self.limit,
            self.section_frames,
            self.profile,
            self.sample.at,
            self.sample.file,
            self.sample.file_len,
        ];
        for number in numbers {
            writer.put(&number.to_le_bytes());
        }
        writer.put(&self.sample.line.to_le_bytes());
        writer.put(&self.sample.column.to_le_bytes());
        bytes
    }

    /// From the bytes of a page at a physical address.
    ///
    /// # Errors
    /// [`NotASheet`].
    pub fn read(page: &[u8], at: PhysAddr) -> Result<Self, NotASheet> {
        let mut reader = Reader(page);
        if reader.take::<16>() != Some(MAGIC) {
            return Err(NotASheet::Other);
        }
        let version = reader.u32().ok_or(NotASheet::Cut)?;
        let record_bytes = reader.u32().ok_or(NotASheet::Cut)?;
        let own = PhysAddr::new(reader.u64().ok_or(NotASheet::Cut)?);
        if own != at {
            return Err(NotASheet::Other);
        }
        if version != VERSION {
            return Err(NotASheet::Version(version));
        }
        let mut number = || reader.u64().ok_or(NotASheet::Cut);
        let next = PhysAddr::new(number()?);
        let [entries, direct_map] = [number()?, number()?];
        let root = PhysAddr::new(number()?);
        let [levels, limit, section_frames, profile] = [number()?, number()?, number()?, number()?];
        let [at, file, file_len] = [number()?, number()?, number()?];
        let line = reader.u32().ok_or(NotASheet::Cut)?;
        let column = reader.u32().ok_or(NotASheet::Cut)?;
        Ok(Self {
            record_bytes,
            own,
            next,
            entries,
            direct_map,
            root,
            levels,
            limit,
            section_frames,
            profile,
            sample: SampleLocation {
                at,
                file,
                file_len,
                line,
                column,
            },
        })
    }
}

/// What an entry is about, and what its numbers mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum EntryKind {
    /// Where the records of frames are: `at` is an array of so many pointers (`numbers[0]`), one for each section, null where there
    /// are no records.
    Sections = 1,
    /// A zone: `index` is its number here, `owner` its node, `width` its index there, which records name; the numbers are its
    /// first frame, the first one behind it, and the frames of RAM in it.
    Zone = 2,
    /// Types of a zone's pageblocks: `at` is an array of pointers, one for each section from `numbers[1]` on (`numbers[0]` of them,
    /// null where the zone has nothing); where each leads there is a byte for each pageblock, the first after `numbers[2]` bytes, and
    /// then every `width` bytes. `owner` is the zone's number.
    Pageblocks = 3,
    /// A number of a zone (`owner`): `width` bytes at `at`.
    OfZone = 4,
    /// A number of what a CPU (`index`) has at hand of a zone (`owner`).
    OfCpu = 5,
    /// A number of the machine.
    OfMachine = 6,
    /// A cache of objects: `index` is its number, which records of slabs name; the numbers are the bytes of an object, how many
    /// there are in a usual slab, and the slab's order. No name: there is no such cache now.
    Cache = 7,
    /// Records of areas of kernel addresses: `numbers[0]` of them from `at` on, `width` bytes each. The bytes of `numbers[1]` say
    /// where in a record its fields are: two bytes each for first address, end, state word (bits 0 to 7: 1 in use, 2 waits for
    /// a purge, 3 lies ready; from bit 8 on what it is for: [`AreaKind`](crate::kspace::AreaKind)), bytes asked for. Those of
    /// `numbers[2]`: the address of the source location of who asked.
    Areas = 8,
    /// Who allocated frames: `at` is an array of so many (`numbers[0]`) arrays, one for each section: pointer and length, after
    /// `numbers[1]` bytes of `width`. Each holds for every frame the address of a source location, or 0.
    Origins = 9,
    /// Frames that are free as long as their section has no records: from `numbers[0]` on, up to `numbers[1]`. But for
    /// `numbers[2]` of each section, for its records, at the end of its highest range with room for them.
    Latent = 10,
    /// What happened on a CPU (`index`), in a [ring](super::EventRing): `at` is where the number of events is that were
    /// recorded so far, `numbers[0]` where the cells are, of `width` bytes each, `numbers[1]` how many there are, and
    /// `numbers[2]` how many units of time are a second, or 0.
    Events = 11,
    /// Who gave frames back last: as [`Origins`](Self::Origins), but for every frame there are `numbers[2]` words. The first: bit
    /// 63, something is known; from bit 46 on, 16 bits, the CPU; below, the task, or 0. The others: return addresses,
    /// the latest call first, 0 behind the last.
    LastFrees = 12,
}

impl EntryKind {
    const ALL: [Self; 12] = [
        Self::Sections,
        Self::Zone,
        Self::Pageblocks,
        Self::OfZone,
        Self::OfCpu,
        Self::OfMachine,
        Self::Cache,
        Self::Areas,
        Self::Origins,
        Self::Latent,
        Self::Events,
        Self::LastFrees,
    ];

    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    const fn number(self) -> u32 {
        self as u32
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Something that there is, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is about.
    pub kind: EntryKind,
    /// Which one.
    pub index: u32,
    /// Of what.
    pub owner: u32,
    /// Bytes.
    pub width: u32,
    /// A name, cut off where it is longer, with zeroes behind it.
    pub name: [u8; 16],
    /// Where it is: a virtual address.
    pub at: u64,
    /// Whatever else there is to say.
    pub numbers: [u64; 3],
}

impl Entry {
    /// Bytes of an entry.
    pub const BYTES: usize = 64;

    /// Something with a name, and nothing else said of it.
    #[must_use]
    pub fn new(kind: EntryKind, name: &str) -> Self {
        let mut short = [0; 16];
        for (place, byte) in short.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Self {
            kind,
            index: 0,
            owner: 0,
            width: 0,
            name: short,
            at: 0,
            numbers: [0; 3],
        }
    }

    /// The name; nothing, if it is no text.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0);
        let name = self.name.get(..end.unwrap_or(self.name.len()));
        name.and_then(|name| core::str::from_utf8(name).ok())
            .unwrap_or("")
    }

    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut writer = Writer(&mut bytes);
        for number in [self.kind.number(), self.index, self.owner, self.width] {
            writer.put(&number.to_le_bytes());
        }
        writer.put(&self.name);
        writer.put(&self.at.to_le_bytes());
        for number in self.numbers {
            writer.put(&number.to_le_bytes());
        }
        bytes
    }

    /// From bytes; `None` if this version knows nothing like it.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let kind = EntryKind::from_number(reader.u32()?)?;
        Some(Self {
            kind,
            index: reader.u32()?,
            owner: reader.u32()?,
            width: reader.u32()?,
            name: reader.take()?,
            at: reader.u64()?,
            numbers: [reader.u64()?, reader.u64()?, reader.u64()?],
        })
    }
}

/// Bytes still to be written.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    /// What does not fit is left out: the sizes are constants that fit.
    fn put(&mut self, bytes: &[u8]) {
        if let Some((place, rest)) = core::mem::take(&mut self.0).split_at_mut_checked(bytes.len())
        {
            place.copy_from_slice(bytes);
            self.0 = rest;
        }
    }
}

/// Bytes still to be read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let header = Header {
            record_bytes: 32,
            own: PhysAddr::new(0x12_3000),
            next: PhysAddr::new(0x45_6000),
            entries: 7,
            direct_map: 0xffff_8880_0000_0000,
            root: PhysAddr::new(0x1000),
            levels: 4,
            limit: 1 << 20,
            section_frames: 32_768,
            profile: 2,
            sample: SampleLocation {
                at: 1,
                file: 2,
                file_len: 3,
                line: 4,
                column: 5,
            },
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::read(&bytes, header.own), Ok(header));
        for kind in EntryKind::ALL {
            let mut entry = Entry::new(kind, "high_atomic_free_frames");
            entry.numbers = [1, 2, u64::MAX];
            (entry.index, entry.owner, entry.width) = (3, 4, 5);
            entry.at = 0xdead_beef;
            assert_eq!(Entry::read(&entry.to_bytes()), Some(entry));
            assert_eq!(entry.name(), "high_atomic_free");
        }
    }

    #[test]
    fn what_is_no_sheet_says_so() {
        let own = PhysAddr::new(0x1000);
        let header = Header {
            own,
            ..Header::default()
        };
        let bytes = header.to_bytes();
        let copy = PhysAddr::new(0x2000);
        assert_eq!(Header::read(&bytes, copy), Err(NotASheet::Other));
        assert_eq!(Header::read(&[0; 128], own), Err(NotASheet::Other));
        for cut in 16..bytes.len() {
            assert_eq!(Header::read(&bytes[..cut], own), Err(NotASheet::Cut));
        }
        let mut newer = bytes;
        newer[16] = 2;
        let error = Header::read(&newer, own).unwrap_err();
        assert_eq!(error, NotASheet::Version(2));
        assert!(error.to_string().contains("version 2"));
        assert_eq!(Entry::read(&[0; 64]), None);
        assert_eq!(Entry::read(&[1; 63]), None);
    }
}
