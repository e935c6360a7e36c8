//! What is told of free pages that somebody touches.
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use super::AccessKind;
use crate::addr::Pfn;

/// A free page was touched that is out of reach in the direct map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreePageAccess {
    /// The frame.
    pub pfn: Pfn,
    /// Where in it, in bytes.
    pub offset: u16,
    /// What was done.
    pub kind: AccessKind,
    /// Which line of the source allocated it last, if that is kept (`page_owner=on`).
    pub allocated: Option<&'static Location<'static>>,
}

impl fmt::Display for FreePageAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pfn, offset, kind, ..
        } = self;
        write!(
            f,
            "use after free: frame {pfn} is free, and its byte {offset:#x} was {kind}"
        )?;
        match self.allocated {
            Some(place) => write!(f, "; {place} allocated it last"),
            None => Ok(()),
        }
    }
}
