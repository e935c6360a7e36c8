//! Where a zone keeps its numbers, for who looks at memory from outside.
#![forbid(unsafe_code)]

use super::Zone;
use crate::addr::{Place, Rows};
use crate::buddy::Area;
use crate::buddy::pageset::Gauges;
use crate::platform::Platform;

/// Where the types of a zone's pageblocks are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypesAt {
    /// Pointers to what there is for each section; no fields.
    pub(crate) sections: Rows,
    /// The section of the first.
    pub(crate) first_section: u64,
    /// Where, in what a pointer leads to, the first pageblock's byte is, …
    pub(crate) offset: u64,
    /// … and how far it is to the next one's.
    pub(crate) stride: u64,
}

impl Zone {
    /// Its numbers, 8 bytes each.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let own = [
            Place::of("managed", &self.managed),
            Place::of("free", &self.free),
            Place::of("latent", &self.latent),
            Place::of("high_atomic", &self.high_atomic),
            Place::of("high_atomic_free", &self.high_atomic_free),
            Place::of("cma", &self.cma),
            Place::of("cma_free", &self.cma_free),
            Place::of("latest", &self.latest),
        ];
        own.into_iter().chain(self.watermarks.places())
    }

    /// What everybody may know of each CPU's lists; there is none where pages have no lists.
    pub(crate) fn pagesets_at(&self) -> Option<Rows> {
        let rows = self.pagesets.rows()?;
        let fields = Gauges::FIELDS;
        Some(Rows { fields, ..rows })
    }

    /// Where the types of its pageblocks are. Context: any but NMI.
    pub(crate) fn types_at<P: Platform>(&self, platform: &P) -> TypesAt {
        let areas = self.lock(platform);
        let (sections, first_section) = areas.slots_at();
        self.unlock(areas);
        TypesAt {
            sections,
            first_section,
            offset: Area::FIRST_TYPE,
            stride: Area::TYPE_STRIDE,
        }
    }
}
