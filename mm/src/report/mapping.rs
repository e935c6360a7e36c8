//! What is told of pages that are mapped where they may not be.
#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::Pfn;

/// What a page of user code's belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// Nothing but who maps it (Linux: `PageAnon`).
    Anonymous,
    /// A file, or something else that has a name.
    Named,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Anonymous => "anonymous",
            Self::Named => "named",
        })
    }
}

/// A mapping that would make one page two things at once, or let two write to what is one's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoubleMapping {
    /// The frame.
    pub pfn: Pfn,
    /// What it is mapped as.
    pub current: Backing,
    /// What it was to be mapped as.
    pub new: Backing,
    /// Whether it was to be written to.
    pub is_writable: bool,
}

impl fmt::Display for DoubleMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pfn, current, new, ..
        } = self;
        let how = match self.is_writable {
            true => "to be written to",
            false => "to be read",
        };
        write!(
            f,
            "frame {pfn} is mapped as {current} page, and was to be mapped as {new} page {how}"
        )
    }
}

impl core::error::Error for DoubleMapping {}
