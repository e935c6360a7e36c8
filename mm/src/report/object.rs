//! What is told of objects: bytes that somebody wrote to who does not own them.
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use crate::addr::Pfn;
use crate::platform::CpuId;

/// Bytes of a name that are kept.
const NAME_BYTES: usize = 31;

/// What a cache is called, cut to what fits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CacheName {
    bytes: [u8; NAME_BYTES],
    len: u8,
}

impl CacheName {
    pub(crate) const NONE: Self = Self {
        bytes: [0; NAME_BYTES],
        len: 0,
    };

    /// `parts`, one after the other.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let mut name = Self::NONE;
        for letter in parts.iter().flat_map(|part| part.chars()) {
            let mut bytes = [0; 4];
            let bytes = letter.encode_utf8(&mut bytes).as_bytes();
            let (start, len) = (usize::from(name.len), bytes.len());
            let Some(place) = name.bytes.get_mut(start..start.saturating_add(len)) else {
                break;
            };
            place.copy_from_slice(bytes);
            let [len, ..] = len.to_le_bytes();
            name.len = name.len.saturating_add(len);
        }
        name
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len));
        core::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Debug for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who allocated an object or gave it back (Linux: `struct track`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectOrigin {
    /// The line of the source.
    pub place: &'static Location<'static>,
    /// The CPU that it ran on.
    pub cpu: CpuId,
}

/// Which bytes of an object, or around it, are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ObjectPart {
    /// Those in front of it: somebody ran over its start, or the end of the object before it.
    LeftRedZone,
    /// Those behind what its owner asked for: somebody ran over its end.
    RightRedZone,
    /// Its own, though nobody owns it: it was used after it was freed.
    Poison,
    /// Those between it and the next object that nobody uses.
    Padding,
    /// The word that names the next free object.
    FreePointer,
    /// The word that says whether it is free, and how large.
    Record,
}

/// What was done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ObjectRepair {
    /// The bytes are again what they should be.
    Restored,
    /// The slab's list of free objects was made anew from what each object says of itself.
    Relinked,
}

/// Damage to an object of a cache that checks its objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectDamage {
    /// The cache's name.
    pub cache: CacheName,
    /// First frame of the slab. Text tells it only if it is asked for, by `{:#}`.
    pub slab: Pfn,
    /// Number of the object in the slab.
    pub object: u16,
    /// Bytes that its owner asked for; all that it has, if nobody owns it.
    pub size: u32,
    /// Which bytes are wrong.
    pub part: ObjectPart,
    /// Where the first wrong byte is, counted from the object's first one.
    pub offset: i32,
    /// Bytes from the first wrong one to the last.
    pub len: u32,
    /// What the first wrong byte should be.
    pub expected: u8,
    /// What is there, from the first wrong byte on; as many as [`Self::len`] says.
    pub found: [u8; 8],
    /// Who allocated it last, if that is kept.
    pub allocated: Option<ObjectOrigin>,
    /// Who freed it last, if that is kept and was ever done.
    pub freed: Option<ObjectOrigin>,
    /// What was done.
    pub repair: ObjectRepair,
}

impl ObjectDamage {
    /// The wrong bytes that are told.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        self.found.get(..len).unwrap_or(&self.found)
    }

    fn write_what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, offset, .. } = *self;
        match self.part {
            ObjectPart::LeftRedZone => write!(
                f,
                "{len} bytes written from byte {offset} on, before its start (left red zone)"
            ),
            ObjectPart::RightRedZone => write!(
                f,
                "{len} bytes written from byte {offset} on, behind its end (right red zone)"
            ),
            ObjectPart::Poison => {
                write!(
                    f,
                    "{len} bytes written from byte {offset} on, while it was free (poison)"
                )
            }
            ObjectPart::Padding => {
                write!(f, "{len} bytes of padding written from byte {offset} on")
            }
            ObjectPart::FreePointer => f.write_str("the slab's list of free objects is broken"),
            ObjectPart::Record => {
                f.write_str("what says whether it is free, and how large, was written to")
            }
        }
    }
}

/// A few lines, the first of which says what happened: as Linux's `BUG kmalloc-64: Right Redzone
/// overwritten`, with no address in it.
impl fmt::Display for ObjectDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, object, .. } = self;
        write!(f, "{cache}: object {object} of {} bytes", self.size)?;
        if f.alternate() {
            write!(f, " of the slab at frame {}", self.slab)?;
        }
        f.write_str(": ")?;
        self.write_what(f)?;
        if !matches!(self.part, ObjectPart::FreePointer | ObjectPart::Record) {
            write!(f, "\n  expected {:02x}, found", self.expected)?;
            self.bytes()
                .iter()
                .try_for_each(|byte| write!(f, " {byte:02x}"))?;
            if self.bytes().len() < usize::try_from(self.len).unwrap_or(0) {
                f.write_str(" …")?;
            }
        }
        for (what, origin) in [("allocated", self.allocated), ("freed", self.freed)] {
            if let Some(ObjectOrigin { place, cpu }) = origin {
                write!(f, "\n  {what} at {place} on CPU {}", cpu.0)?;
            }
        }
        f.write_str(match self.repair {
            ObjectRepair::Restored => "\n  the bytes were restored",
            ObjectRepair::Relinked => "\n  the list was made anew",
        })
    }
}
