//! What is told of objects of the sampling guard pool (Linux: `kfence_report_error`).
#![forbid(unsafe_code)]

use core::fmt;

use super::{CacheName, ObjectOrigin};

/// How memory was touched that nobody may touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessKind {
    /// It was read.
    Read,
    /// It was written to.
    Write,
}

impl fmt::Display for AccessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "written",
        })
    }
}

/// What was done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KfenceError {
    /// The page beside the object's was touched (Linux: `KFENCE_ERROR_OOB`).
    OutOfBounds(AccessKind),
    /// The object was touched after it was freed (Linux: `KFENCE_ERROR_UAF`).
    UseAfterFree(AccessKind),
    /// Bytes before or behind the object, in its own page, were written to; found when it was freed (Linux:
    /// `KFENCE_ERROR_CORRUPTION`).
    Corruption {
        /// Bytes from the first wrong one to the last.
        len: u16,
        /// What the first wrong byte should be.
        expected: u8,
        /// What is there, from the first wrong byte on; as many as `len` says.
        found: [u8; 8],
    },
    /// Something was freed that is no object, or is free already (Linux: `KFENCE_ERROR_INVALID_FREE`).
    InvalidFree,
    /// A page of the pool was touched with no object near (Linux: `KFENCE_ERROR_INVALID`).
    InvalidAccess(AccessKind),
}

/// An object of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KfenceObject {
    /// Its number in the pool.
    pub slot: u8,
    /// The name of the cache that it stands in for.
    pub cache: CacheName,
    /// Bytes that its owner asked for.
    pub size: u16,
    /// Where the fault is, counted from the object's first byte.
    pub offset: i32,
    /// Who allocated it last.
    pub allocated: Option<ObjectOrigin>,
    /// Who freed it, if somebody did since.
    pub freed: Option<ObjectOrigin>,
}

/// A fault that the sampling guard pool found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KfenceReport {
    /// What was done wrong.
    pub error: KfenceError,
    /// To which object; none where no object is near.
    pub object: Option<KfenceObject>,
}

impl KfenceObject {
    /// Where the fault is, in words.
    fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = i32::from(self.size);
        match self.offset {
            before if before < 0 => write!(f, "{} bytes before its start", before.unsigned_abs()),
            behind if behind >= size => {
                write!(f, "{} bytes behind its end", behind.saturating_sub(size))
            }
            inside => write!(f, "at byte {inside}"),
        }
    }
}

/// A few lines, the first of which says what happened: as Linux's `BUG: KFENCE: use-after-free read`, with no address
/// in it.
impl fmt::Display for KfenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(object) = &self.object else {
            return match self.error {
                KfenceError::InvalidAccess(kind) => {
                    write!(f, "kfence: {kind} where there is no object")
                }
                _ => f.write_str("kfence: freed where there is no object"),
            };
        };
        let KfenceObject {
            cache, slot, size, ..
        } = object;
        write!(f, "{cache}: kfence object {slot} of {size} bytes: ")?;
        match self.error {
            KfenceError::OutOfBounds(kind) => write!(f, "{kind} out of bounds, ")?,
            KfenceError::UseAfterFree(kind) => write!(f, "{kind} after it was freed, ")?,
            KfenceError::Corruption { len, .. } => {
                write!(f, "{len} bytes around it were written to, from ")?;
            }
            KfenceError::InvalidFree if object.freed.is_some() => f.write_str("freed again, ")?,
            KfenceError::InvalidFree => f.write_str("freed by an address that is not its own, ")?,
            KfenceError::InvalidAccess(kind) => write!(f, "{kind} while it was nobody's, ")?,
        }
        object.write_place(f)?;
        if let KfenceError::Corruption {
            len,
            expected,
            found,
        } = self.error
        {
            write!(f, "\n  expected {expected:02x}, found")?;
            let told = found.get(..usize::from(len)).unwrap_or(&found);
            told.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
            if told.len() < usize::from(len) {
                f.write_str(" …")?;
            }
        }
        for (what, origin) in [("allocated", object.allocated), ("freed", object.freed)] {
            if let Some(ObjectOrigin { place, cpu }) = origin {
                write!(f, "\n  {what} at {place} on CPU {}", cpu.0)?;
            }
        }
        Ok(())
    }
}
