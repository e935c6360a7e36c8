//! Records of varying length one after the other: a kind, a length, and the rest.

use crate::error::RecordError;
use crate::memory::u8_at;

/// Bytes of a record's own header.
const HEADER_BYTES: usize = 2;

/// One record, header included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) offset: usize,
    pub(crate) kind: u8,
    pub(crate) bytes: &'a [u8],
}

impl Record<'_> {
    /// What `read` makes of it; `None` means that the record is too short for its kind.
    pub(crate) fn parsed<T>(&self, value: Option<T>) -> Result<T, RecordError> {
        value.ok_or(RecordError::TooShort {
            offset: self.offset,
            kind: self.kind,
        })
    }
}

/// The records of a table from `offset` on. After an error that hides where the next one starts
/// there are no more; so there are never more than half as many as the table has bytes.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    table: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    pub(crate) const fn new(table: &'a [u8], offset: usize) -> Self {
        Self { table, offset }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.table.get(offset..).filter(|rest| !rest.is_empty())?;
        // Until it is known where the next record starts, there is none.
        self.offset = self.table.len();
        let (Some(kind), Some(length)) = (u8_at(rest, 0), u8_at(rest, 1)) else {
            return Some(Err(RecordError::Truncated { offset }));
        };
        let length = usize::from(length);
        if length < HEADER_BYTES {
            return Some(Err(RecordError::NoLength { offset }));
        }
        let Some(bytes) = rest.get(..length) else {
            return Some(Err(RecordError::Truncated { offset }));
        };
        self.offset = offset.saturating_add(length);
        Some(Ok(Record {
            offset,
            kind,
            bytes,
        }))
    }
}
