//! What the files say about watermarks, reserves and the settings behind them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{NodeRange, read_all};

/// One file's results.
#[derive(Clone, Debug, Deserialize)]
pub struct MarksFile {
    /// The file's name without ending.
    pub name: String,
    #[serde(default)]
    linux: MarksResults,
    linux_replay: Option<MarksResults>,
}

/// What a Linux boot printed about them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MarksResults {
    /// The settings, in `/proc/sys/vm`.
    pub vm: Option<Vm>,
    /// `/proc/zoneinfo`, by `nodeN/ZONE`.
    pub zoneinfo: BTreeMap<String, ZoneMarks>,
    /// "Early memory node ranges".
    pub node_ranges: Vec<NodeRange>,
    /// "DMA32 zone: N pages, LIFO batch:M", by `nodeN/ZONE`.
    pub zone_pages: BTreeMap<String, ZonePages>,
}

/// What Linux prints about a zone when it makes its page lists.
#[derive(Clone, Debug, Deserialize)]
pub struct ZonePages {
    /// Frames of memory, …
    pub pages: u64,
    /// … of which so many hold frame records, …
    #[serde(default)]
    pub memmap_pages: u64,
    /// … and so many are reserved for DMA.
    #[serde(default)]
    pub reserved_pages: u64,
    /// Frames that go over at once.
    pub lifo_batch: Option<u32>,
}

/// Settings.
#[derive(Clone, Debug, Deserialize)]
pub struct Vm {
    /// `vm.min_free_kbytes`
    pub min_free_kbytes: u64,
    /// `vm.watermark_scale_factor`
    pub watermark_scale_factor: u32,
    /// `vm.lowmem_reserve_ratio`
    pub lowmem_reserve_ratio: [u32; 5],
}

/// A zone in `/proc/zoneinfo`.
#[derive(Clone, Debug, Deserialize)]
pub struct ZoneMarks {
    /// First frame; not printed for a zone without memory.
    pub start_pfn: Option<u64>,
    /// Frames, holes included.
    pub spanned: u64,
    /// Frames of memory.
    pub present: u64,
    /// Frames that the allocator had when the file was read.
    pub managed: u64,
    /// The marks.
    pub min: u64,
    /// See `min`.
    pub low: u64,
    /// See `min`.
    pub high: u64,
    /// `lowmem_reserve`
    pub protection: [u64; 5],
}

impl MarksFile {
    /// Every result with settings, with the name of its file.
    ///
    /// # Panics
    /// When a file cannot be read.
    #[must_use]
    pub fn all() -> Vec<(String, MarksResults)> {
        let mut results = Self::results();
        results.retain(|(_, result)| result.vm.is_some());
        results
    }

    /// Every result, with the name of its file.
    ///
    /// # Panics
    /// When a file cannot be read.
    #[must_use]
    pub fn results() -> Vec<(String, MarksResults)> {
        let files = read_all::<Self>().into_iter();
        let results = files.flat_map(|file| {
            let both = [Some(file.linux), file.linux_replay];
            let name = file.name;
            both.into_iter()
                .flatten()
                .map(move |result| (name.clone(), result))
        });
        results.collect()
    }
}
