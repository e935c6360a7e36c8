//! Watermarks of the whole machine: the settings behind them, and when they are computed.
//!
//! They are computed when memory comes up and whenever a setting changes. Memory that is added
//! later ([`Memory::free_early`]) counts from the next
//! [`recompute_watermarks`](Memory::recompute_watermarks) on.
#![forbid(unsafe_code)]

use core::fmt;

use super::{Core, Memory, PageLists};
use crate::buddy::pageset::limits;
use crate::config::PAGE_SHIFT;
use crate::platform::Platform;
use crate::zone::watermark::policy::{self, Marks, Share};
use crate::zone::{Node, Zone, ZoneKind};

/// Settings of watermarks and reserves, by the names of Linux's `/proc/sys/vm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// `min_free_kbytes`: what all `min` marks add up to.
    pub min_free_kbytes: u64,
    /// What the owner of the machine set it to, if ever (Linux: `user_min_free_kbytes`).
    pub chosen_min_free_kbytes: Option<u64>,
    /// `watermark_scale_factor`: how far apart the marks are, in ten-thousandths of a zone.
    pub watermark_scale_factor: u32,
    /// `watermark_boost_factor`: by how much marks are raised for a while when migrate types mix, at
    /// most, in ten-thousandths of the `high` mark; 0 raises none.
    pub watermark_boost_factor: u32,
    /// `lowmem_reserve_ratio`: by which each zone divides what is above it; 0 keeps nothing.
    pub lowmem_reserve_ratio: [u32; ZoneKind::COUNT],
    /// `percpu_pagelist_high_fraction`: which part of a zone all CPUs together may have on their
    /// lists; 0 leaves it to what they do.
    pub percpu_pagelist_high_fraction: u32,
}

/// Why a setting was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TuningError {
    /// Memory is not up yet.
    NotUp,
    /// `min_free_kbytes` is more than there is.
    MoreThanMemory {
        /// All memory that the allocator has.
        managed_kib: u64,
    },
    /// `watermark_scale_factor` is not in [`policy::SCALE_FACTORS`].
    ScaleFactor,
    /// `percpu_pagelist_high_fraction` is neither 0 nor at least [`limits::HIGH_FRACTION_MIN`].
    HighFraction,
    /// `percpu_pagelists=classic` has fixed marks.
    FixedMarks,
}

impl Tuning {
    /// What holds before memory is up.
    pub(super) const INITIAL: Self = Self {
        min_free_kbytes: 0,
        chosen_min_free_kbytes: None,
        watermark_scale_factor: policy::SCALE_FACTOR,
        watermark_boost_factor: policy::BOOST_FACTOR,
        lowmem_reserve_ratio: policy::RESERVE_RATIO,
        percpu_pagelist_high_fraction: 0,
    };
}

impl<P: Platform> Memory<P> {
    /// The settings in force; none before memory is up. Context: task, atomic or irq; not NMI.
    #[must_use]
    pub fn tuning(&self) -> Option<Tuning> {
        Some(*self.core()?.tuning.lock(&self.platform))
    }

    /// Sets `vm.min_free_kbytes`. Context: task.
    ///
    /// # Errors
    /// [`TuningError`].
    pub fn set_min_free_kbytes(&self, kib: u64) -> Result<(), TuningError> {
        let managed_kib = self.managed_frames().saturating_mul(1 << (PAGE_SHIFT - 10));
        if kib > managed_kib && self.is_up() {
            return Err(TuningError::MoreThanMemory { managed_kib });
        }
        self.tune(|tuning| {
            tuning.min_free_kbytes = kib;
            tuning.chosen_min_free_kbytes = Some(kib);
        })
    }

    /// Sets `vm.watermark_scale_factor`. Context: task.
    ///
    /// # Errors
    /// [`TuningError`].
    pub fn set_watermark_scale_factor(&self, factor: u32) -> Result<(), TuningError> {
        if !policy::SCALE_FACTORS.contains(&factor) {
            return Err(TuningError::ScaleFactor);
        }
        self.tune(|tuning| tuning.watermark_scale_factor = factor)
    }

    /// Sets `vm.watermark_boost_factor`. Context: task.
    ///
    /// # Errors
    /// [`TuningError::NotUp`].
    pub fn set_watermark_boost_factor(&self, factor: u32) -> Result<(), TuningError> {
        self.tune(|tuning| tuning.watermark_boost_factor = factor)
    }

    /// Sets `vm.lowmem_reserve_ratio`. Context: task.
    ///
    /// # Errors
    /// [`TuningError`].
    pub fn set_lowmem_reserve_ratio(
        &self,
        ratio: [u32; ZoneKind::COUNT],
    ) -> Result<(), TuningError> {
        self.tune(|tuning| tuning.lowmem_reserve_ratio = ratio)
    }

    /// Sets `vm.percpu_pagelist_high_fraction`. Context: task.
    ///
    /// # Errors
    /// [`TuningError`].
    pub fn set_percpu_pagelist_high_fraction(&self, fraction: u32) -> Result<(), TuningError> {
        if fraction != 0 && fraction < limits::HIGH_FRACTION_MIN {
            return Err(TuningError::HighFraction);
        }
        let is_classic = |core: &Core| core.options.page_lists == PageLists::Classic;
        if self.core().is_some_and(is_classic) {
            return Err(TuningError::FixedMarks);
        }
        self.tune(|tuning| tuning.percpu_pagelist_high_fraction = fraction)
    }

    /// Computes `min_free_kbytes` and all watermarks anew, from the memory there is now (Linux:
    /// `init_per_zone_wmark_min`). A value that was set stays if it is the larger one. Context:
    /// task.
    ///
    /// # Errors
    /// [`TuningError::NotUp`].
    pub fn recompute_watermarks(&self) -> Result<(), TuningError> {
        let core = self.core().ok_or(TuningError::NotUp)?;
        let mut tuning = core.tuning.lock(&self.platform);
        core.compute(&mut tuning);
        Ok(())
    }

    fn tune(&self, change: impl FnOnce(&mut Tuning)) -> Result<(), TuningError> {
        let core = self.core().ok_or(TuningError::NotUp)?;
        let mut tuning = core.tuning.lock(&self.platform);
        change(&mut tuning);
        core.apply(&tuning);
        Ok(())
    }
}

impl Core {
    /// Sets the watermarks of a machine that comes up: nobody else knows it yet.
    pub(super) fn first_watermarks(&mut self) {
        let mut tuning = *self.tuning.get_mut();
        self.compute(&mut tuning);
        *self.tuning.get_mut() = tuning;
    }

    /// Finds `min_free_kbytes` and applies it.
    fn compute(&self, tuning: &mut Tuning) {
        let low = || self.zones().filter(|zone| zone.kind() <= ZoneKind::Normal);
        let managed = low().map(Zone::managed).fold(0, u64::saturating_add);
        let computed = policy::min_free_kib(managed);
        tuning.min_free_kbytes = tuning
            .chosen_min_free_kbytes
            .map_or(computed, |chosen| chosen.max(computed));
        self.apply(tuning);

        let all = self.zones().map(Zone::managed).fold(0, u64::saturating_add);
        if !self.options.huge_pages.are_on() || all < policy::HUGE_PAGE_MACHINE {
            return;
        }
        let zones = low().fold(0, |count: u64, zone| {
            count.saturating_add(u64::from(zone.is_populated()))
        });
        let above_high = |zone: &Zone| {
            zone.managed()
                .saturating_sub(zone.watermarks().marks().high)
        };
        let available = low().map(above_high).fold(0, u64::saturating_add);
        let wanted = policy::huge_page_min_free_kib(zones, available);
        if wanted > tuning.min_free_kbytes {
            tuning.min_free_kbytes = wanted;
            self.apply(tuning);
        }
    }

    /// Writes marks and reserves to every zone.
    fn apply(&self, tuning: &Tuning) {
        let all = self.zones().map(Zone::managed).fold(0, u64::saturating_add);
        let near = u32::try_from(self.cpus.presence.cpus().count()).unwrap_or(u32::MAX);
        for node in self.nodes.iter() {
            let managed = ZoneKind::ALL.map(|kind| node.zone(kind).managed());
            let protection = policy::protection(&managed, &tuning.lowmem_reserve_ratio);
            for (zone, kept) in node.zones().iter().zip(&protection) {
                let share = Share {
                    part: zone.managed(),
                    whole: all,
                };
                let factor = tuning.watermark_scale_factor;
                let marks: Marks = policy::marks(tuning.min_free_kbytes, share, factor);
                let boost = tuning.watermark_boost_factor;
                let max_boost = policy::max_boost(marks.high, boost, zone.managed());
                zone.watermarks().set(marks, max_boost, kept);
                let fraction = tuning.percpu_pagelist_high_fraction;
                let lists = limits::limits(zone.managed(), marks.low, near, fraction);
                zone.set_list_limits(lists);
            }
        }
    }

    fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.nodes.iter().flat_map(Node::zones)
    }
}

impl fmt::Display for TuningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp => f.write_str("memory is not up yet"),
            Self::MoreThanMemory { managed_kib } => {
                write!(f, "more than all memory, which is {managed_kib} KiB")
            }
            Self::ScaleFactor => {
                let (least, most) = (policy::SCALE_FACTORS.start(), policy::SCALE_FACTORS.end());
                write!(f, "not from {least} to {most}")
            }
            Self::FixedMarks => f.write_str("percpu_pagelists=classic has fixed marks"),
            Self::HighFraction => {
                write!(f, "neither 0 nor at least {}", limits::HIGH_FRACTION_MIN)
            }
        }
    }
}

impl core::error::Error for TuningError {}
