//! Why a table, or a record of one, cannot be used.

use core::fmt;

/// The four letters that name a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 4]);

impl Signature {
    /// The root table with 32-bit entries.
    pub const RSDT: Self = Self(*b"RSDT");
    /// The root table with 64-bit entries.
    pub const XSDT: Self = Self(*b"XSDT");
    /// CPUs and interrupt controllers.
    pub const MADT: Self = Self(*b"APIC");
    /// What belongs to which node.
    pub const SRAT: Self = Self(*b"SRAT");
    /// Distances between nodes.
    pub const SLIT: Self = Self(*b"SLIT");
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// No root pointer was found, or there is none at the address given.
    NoRsdp,
    /// Something points to memory that cannot be read.
    Unreachable {
        /// The physical address.
        at: u64,
        /// How many bytes were to be read.
        length: usize,
    },
    /// The bytes of a table do not add up to zero.
    BadChecksum {
        /// Which table; the root pointer counts as `RSD `.
        signature: Signature,
        /// Where it lies.
        at: u64,
    },
    /// A table's length is less than its header, or more than any real table's.
    BadLength {
        /// Which table.
        signature: Signature,
        /// Where it lies.
        at: u64,
        /// The length it claims.
        length: u32,
    },
    /// Another table lies where this one should.
    WrongTable {
        /// Which was expected.
        expected: Signature,
        /// What is there.
        found: Signature,
    },
    /// The root table does not name such a table.
    Missing(Signature),
    /// A distance table that Linux, too, throws away: some node is not at distance 10 from
    /// itself, or not farther from another.
    BadDistance {
        /// From this node …
        from: u64,
        /// … to this one …
        to: u64,
        /// … it says so.
        distance: u8,
    },
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRsdp => f.write_str("there is no ACPI root pointer"),
            Self::Unreachable { at, length } => {
                write!(f, "{length} bytes at {at:#x} cannot be read")
            }
            Self::BadChecksum { signature, at } => {
                write!(f, "the {signature} at {at:#x} has a wrong checksum")
            }
            Self::BadLength {
                signature,
                at,
                length,
            } => write!(
                f,
                "the {signature} at {at:#x} cannot be {length} bytes long"
            ),
            Self::WrongTable { expected, found } => {
                write!(f, "where the {expected} should be is a {found}")
            }
            Self::Missing(signature) => write!(f, "there is no {signature}"),
            Self::BadDistance { from, to, distance } => {
                write!(f, "the SLIT says {distance} from node {from} to node {to}")
            }
        }
    }
}

impl core::error::Error for AcpiError {}

/// Why a record of a table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Its length is less than that of a record's header: where the next one starts is unknown.
    NoLength {
        /// Offset in the table.
        offset: usize,
    },
    /// It runs past the end of the table.
    Truncated {
        /// Offset in the table.
        offset: usize,
    },
    /// It is shorter than its kind is; the records after it can be read.
    TooShort {
        /// Offset in the table.
        offset: usize,
        /// The kind's number.
        kind: u8,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLength { offset } => write!(f, "the record at {offset:#x} has no length"),
            Self::Truncated { offset } => {
                write!(f, "the record at {offset:#x} runs past the table's end")
            }
            Self::TooShort { offset, kind } => {
                write!(f, "the record at {offset:#x} is too short for kind {kind}")
            }
        }
    }
}

impl core::error::Error for RecordError {}
