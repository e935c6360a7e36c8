//! The lists as Linux had them from 2.6.0 on (`percpu_pagelists=classic`), for study and comparison.
//!
//! Each CPU has two lists of single pages for each zone: `hot` for pages that are likely to be in its
//! cache, `cold` for those that are not (read by devices, freed in bulk). Each has fixed marks: a
//! request that finds no more than `low` pages fetches `batch`, and a page that comes back to
//! `high` or more has `batch` of the oldest go first. Migrate types came later; here each list is
//! one for each type, and the marks count them together.
#![forbid(unsafe_code)]

/// Which of the two lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temperature {
    /// Likely to be in the cache of the CPU.
    Hot,
    /// Not.
    Cold,
}

/// How many pages a list holds. In frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListMarks {
    /// With no more than so many, a request fetches some first.
    pub low: u32,
    /// With so many, some go back before another comes.
    pub high: u32,
    /// How many go over at once.
    pub batch: u32,
}

impl ListMarks {
    /// The marks of a list in a zone whose `batch` that is (Linux 2.6.0: `free_area_init_core`).
    #[must_use]
    pub const fn of(temperature: Temperature, batch: u32) -> Self {
        let batch = if batch == 0 { 1 } else { batch };
        let (low, high) = match temperature {
            Temperature::Hot => (batch.saturating_mul(2), batch.saturating_mul(6)),
            Temperature::Cold => (0, batch.saturating_mul(2)),
        };
        Self { low, high, batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_those_of_2_6() {
        let marks = |low, high, batch| ListMarks { low, high, batch };
        assert_eq!(ListMarks::of(Temperature::Hot, 31), marks(62, 186, 31));
        assert_eq!(ListMarks::of(Temperature::Cold, 31), marks(0, 62, 31));
        assert_eq!(ListMarks::of(Temperature::Cold, 0), marks(0, 2, 1));
    }
}
