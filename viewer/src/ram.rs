//! A guest's RAM: the files that it lies in, by physical address.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mm::addr::PhysAddr;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Where the addresses end that 32 bits hold: RAM that does not fit below goes on here.
const FOUR_GIB: u64 = 1 << 32;

/// Files that hold a guest's RAM, one after the other (QEMU: one for each node).
#[derive(Debug)]
pub struct Ram {
    files: Vec<Part>,
    size: u64,
    /// Bytes of RAM that start at address 0; the rest starts at 4 GiB.
    low: u64,
}

#[derive(Debug)]
struct Part {
    file: File,
    start: u64,
    end: u64,
}

/// A file cannot be read.
#[derive(Debug)]
pub struct RamError {
    /// Which one.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for RamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Ram {
    /// Opens the files, all of it at the start of the address space until something else is found out.
    ///
    /// # Errors
    /// [`RamError`] for the first file that cannot be opened.
    pub fn open(paths: &[PathBuf]) -> Result<Self, RamError> {
        let mut files = Vec::new();
        let mut start = 0;
        for path in paths {
            let (file, bytes) = open(path).map_err(|source| RamError {
                path: path.clone(),
                source,
            })?;
            let end = start + bytes;
            files.push(Part { file, start, end });
            start = end;
        }
        Ok(Self {
            files,
            size: start,
            low: start,
        })
    }

    /// Bytes of RAM.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Says how much of it starts at address 0.
    pub const fn split_at(&mut self, low: u64) {
        self.low = low;
    }

    /// Where in the files an address is.
    #[must_use]
    pub const fn offset(&self, at: PhysAddr) -> Option<u64> {
        let at = at.as_u64();
        let offset = if at < self.low {
            at
        } else if at >= FOUR_GIB && self.low < FOUR_GIB {
            at - FOUR_GIB + self.low
        } else {
            return None;
        };
        if offset < self.size {
            Some(offset)
        } else {
            None
        }
    }

    /// Fills `bytes` with what is at an address. `false` if not all of it is RAM, or the file cannot be read.
    #[must_use]
    pub fn read(&self, at: PhysAddr, bytes: &mut [u8]) -> bool {
        self.offset(at)
            .is_some_and(|offset| self.read_offset(offset, bytes))
    }

    /// The same by the place in the files.
    #[must_use]
    pub fn read_offset(&self, offset: u64, mut bytes: &mut [u8]) -> bool {
        let mut offset = offset;
        while !bytes.is_empty() {
            let mut parts = self.files.iter();
            let Some(part) = parts.find(|part| part.start <= offset && offset < part.end) else {
                return false;
            };
            let here = (part.end - offset).min(bytes.len() as u64) as usize;
            let (first, rest) = bytes.split_at_mut(here);
            if part.file.read_exact_at(first, offset - part.start).is_err() {
                return false;
            }
            offset += here as u64;
            bytes = rest;
        }
        true
    }

    /// Calls `found` with each page of the files that the guest has touched, and where it is, until that answers something.
    pub fn find_page<T>(&self, mut found: impl FnMut(u64, &[u8]) -> Option<T>) -> Option<T> {
        const PAGE: usize = 4096;
        let mut chunk = vec![0; 256 * PAGE];
        for part in &self.files {
            let mut at = 0;
            while let Some((start, end)) = next_data(&part.file, at, part.end - part.start) {
                at = start;
                while at < end {
                    let bytes = (end - at).min(chunk.len() as u64) as usize;
                    let chunk = &mut chunk[..bytes];
                    if part.file.read_exact_at(chunk, at).is_err() {
                        return None;
                    }
                    for (place, page) in chunk.chunks_exact(PAGE).enumerate() {
                        let answer = found(part.start + at + (place * PAGE) as u64, page);
                        if answer.is_some() {
                            return answer;
                        }
                    }
                    at += bytes as u64;
                }
            }
        }
        None
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// The next stretch of a file that is not a hole, in whole pages. File systems that know nothing of holes have one.
fn next_data(file: &File, from: u64, len: u64) -> Option<(u64, u64)> {
    if from >= len {
        return None;
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return None,
        Err(_) => return Some((from, len)),
    };
    let end = seek(file, SeekFrom::Hole(start)).unwrap_or(len);
    Some((start / 4096 * 4096, end.next_multiple_of(4096).min(len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn ram(parts: &[&[u8]]) -> (Ram, Vec<tempfile::NamedTempFile>) {
        let files: Vec<_> = parts
            .iter()
            .map(|bytes| {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(bytes).unwrap();
                file
            })
            .collect();
        let paths: Vec<_> = files.iter().map(|file| file.path().to_owned()).collect();
        (Ram::open(&paths).unwrap(), files)
    }

    #[test]
    fn files_follow_each_other() {
        let (ram, _files) = ram(&[&[1; 8192], &[2; 4096]]);
        assert_eq!(ram.size(), 12288);
        let mut bytes = [0; 4];
        assert!(ram.read(PhysAddr::new(8190), &mut bytes));
        assert_eq!(bytes, [1, 1, 2, 2]);
        assert!(!ram.read(PhysAddr::new(12286), &mut bytes));
    }

    #[test]
    fn what_does_not_fit_below_goes_on_at_4_gib() {
        let (mut ram, _files) = ram(&[&[1; 8192], &[2; 4096]]);
        ram.split_at(8192);
        let mut bytes = [0; 4];
        assert!(ram.read(PhysAddr::new(FOUR_GIB), &mut bytes));
        assert_eq!(bytes, [2; 4]);
        assert_eq!(ram.offset(PhysAddr::new(8192)), None);
        assert_eq!(ram.offset(PhysAddr::new(FOUR_GIB + 4096)), None);
    }

    #[test]
    fn holes_are_passed_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 32).unwrap();
        file.as_file().write_all_at(b"here", 3 << 30).unwrap();
        let ram = Ram::open(&[file.path().to_owned()]).unwrap();
        let mut looked = 0;
        let found = ram.find_page(|at, page| {
            looked += 1;
            page.starts_with(b"here").then_some(at)
        });
        assert_eq!(found, Some(3 << 30));
        assert!(looked < 1000, "{looked}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Ram::open(&["/nowhere/ram".into()]).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/ram: "));
    }
}
