//! What every frame is used for, for a kernel that draws its own map.
#![forbid(unsafe_code)]

use super::owner::{Owner, latent_section};
use crate::addr::{Pfn, to_index};
use crate::buddy::MigrateType;
use crate::config::{PAGE_SIZE, SECTION_FRAMES};
use crate::kspace::AreaKind;
use crate::platform::Platform;
use crate::system::{Core, Memory};

/// Notes what each frame is used for, by number: as a viewer finds it from outside. Frames beyond the last place are left out.
/// Context: task; what is found may change while it is noted.
pub fn owners<P: Platform>(memory: &Memory<P>, owners: &mut [Owner]) {
    owners.fill(Owner::Hole);
    let (Some(core), Some(frames)) = (memory.core(), memory.frames()) else {
        return;
    };
    let mut mark = |first: u64, count: u64, owner: Owner| {
        let first = to_index(first);
        let end = first.saturating_add(to_index(count)).min(owners.len());
        if let Some(places) = owners.get_mut(first..end) {
            places.fill(owner);
        }
    };
    for section in 0..frames.limit().section() {
        let first = section.saturating_mul(SECTION_FRAMES);
        if frames.frame(Pfn::new(first)).is_none() {
            let free = core.latent_ranges();
            let free = free.map(|range| (range.first().as_u64(), range.end().as_u64()));
            let metadata = Core::latent_metadata::<P>();
            latent_section(free, (first, SECTION_FRAMES), metadata, &mut mark);
        }
    }
    for (pfn, frame) in frames.blocks() {
        let word = frame.word();
        let is_aligned = pfn.is_aligned(word.order());
        let zone = memory.zone_of(pfn);
        let kind = zone.and_then(|zone| zone.pageblock_type(memory.platform(), pfn));
        let kind = kind.unwrap_or(MigrateType::Unmovable);
        let count = match Owner::of_block(word, is_aligned, kind) {
            Some(Owner::Reserved) => 1,
            _ => word.order().frames(),
        };
        if let Some(owner) = Owner::of_block(word, is_aligned, kind) {
            mark(pfn.as_u64(), count, owner);
        }
    }
    of_areas(memory, owners);
}

/// Frames in use that are mapped in areas.
fn of_areas<P: Platform>(memory: &Memory<P>, owners: &mut [Owner]) {
    for (space, supply) in memory.spaces() {
        let mut at = space.range().start();
        while let Some(area) = space.next_from(&supply, at) {
            at = area.range.end();
            if area.kind == AreaKind::Ioremap {
                continue;
            }
            let owner = Owner::of_area(area.place.map_or("", |place| place.file()));
            let mut page = area.range.start();
            while page < area.range.end() {
                let phys = space.translate(&supply, page);
                let place = phys.and_then(|phys| owners.get_mut(to_index(phys.frame().as_u64())));
                if let Some(place) = place.filter(|place| **place == Owner::Used) {
                    *place = owner;
                }
                let Some(next) = page.checked_add(PAGE_SIZE) else {
                    break;
                };
                page = next;
            }
        }
    }
}
