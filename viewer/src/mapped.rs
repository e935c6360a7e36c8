//! What the kernel's page tables map: pages in a row with the same rights and of one size, by one walk.

use mm::addr::PhysAddr;

use crate::guest::{ADDRESS, Guest, HUGE, PAGE, PRESENT};

/// Bits of an entry (Intel SDM vol. 3A, 4.5): it can be written to, and no code is fetched from it.
const WRITE: u64 = 1 << 1;
const NO_EXECUTE: u64 = 1 << 63;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// Tables that are read, at most: damaged ones may lead in circles.
const MOST_TABLES: u64 = 1 << 18;
/// Pages in a row, the same.
const MOST_RUNS: usize = 1 << 20;

/// Pages in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// The first address.
    pub start: u64,
    /// The last one.
    pub last: u64,
    /// log2 of a page's bytes: 12, 21 or 30.
    pub page: u32,
    /// Whether it can be written to, …
    pub is_writable: bool,
    /// … and run.
    pub is_executable: bool,
}

impl Mapped {
    /// Bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.last.wrapping_sub(self.start).saturating_add(1)
    }

    /// Rights as `ls` shows them.
    #[must_use]
    pub const fn rights(&self) -> &'static str {
        match (self.is_writable, self.is_executable) {
            (true, true) => "rwx",
            (true, false) => "rw-",
            (false, true) => "r-x",
            (false, false) => "r--",
        }
    }
}

/// Everything in the upper half of the addresses, lowest first.
#[must_use]
pub fn kernel(guest: &Guest) -> Vec<Mapped> {
    let header = guest.header();
    let levels = match u32::try_from(header.levels) {
        Ok(levels @ 4..=5) => levels,
        _ => return Vec::new(),
    };
    let mut walk = Walk {
        guest,
        runs: Vec::new(),
        tables: 0,
    };
    // The upper half; what is above an address of so many levels is as its highest bit.
    let top = u64::MAX << (12 + 9 * levels);
    let rights = (true, true);
    walk.table(header.root, levels, top, rights, ENTRIES / 2);
    walk.runs
}

struct Walk<'g> {
    guest: &'g Guest,
    runs: Vec<Mapped>,
    tables: u64,
}

impl Walk<'_> {
    fn table(
        &mut self,
        table: PhysAddr,
        level: u32,
        base: u64,
        (can_write, can_run): (bool, bool),
        first: u64,
    ) {
        let mut bytes = vec![0; PAGE];
        self.tables += 1;
        if self.tables > MOST_TABLES
            || self.runs.len() > MOST_RUNS
            || !self.guest.ram().read(table, &mut bytes)
        {
            return;
        }
        let shift = 12 + 9 * (level - 1);
        for (number, entry) in (0..ENTRIES).zip(bytes.chunks_exact(8)) {
            let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
            if number < first || entry & PRESENT == 0 {
                continue;
            }
            let start = base.wrapping_add(number << shift);
            let rights = (
                can_write && entry & WRITE != 0,
                can_run && entry & NO_EXECUTE == 0,
            );
            if level == 1 || (level <= 3 && entry & HUGE != 0) {
                self.add(start, shift, rights);
            } else {
                let next = PhysAddr::new(entry & ADDRESS);
                self.table(next, level - 1, start, rights, 0);
            }
        }
    }

    fn add(&mut self, start: u64, page: u32, (is_writable, is_executable): (bool, bool)) {
        let last = start.wrapping_add((1 << page) - 1);
        if let Some(before) = self.runs.last_mut()
            && before.last.wrapping_add(1) == start
            && (before.page, before.is_writable, before.is_executable)
                == (page, is_writable, is_executable)
        {
            before.last = last;
            return;
        }
        self.runs.push(Mapped {
            start,
            last,
            page,
            is_writable,
            is_executable,
        });
    }
}
