//! Areas of kernel addresses, from their records and from page tables.

use mm::inspect::EntryKind;

use crate::guest::Guest;
use crate::snapshot::{WIDEST, field};

const PAGE: u64 = 4096;
/// Records of an entry, at most: whatever says more is damaged.
const MOST: u64 = 1 << 21;

/// Where an area is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Somebody has it.
    InUse,
    /// It waits until CPUs have forgotten it.
    Waits,
    /// It lies ready for a CPU.
    Ready,
}

/// An area.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Area {
    /// Its first address.
    pub start: u64,
    /// Behind its guard page.
    pub end: u64,
    /// Where it is in its life.
    pub state: State,
    /// What it is for, as `/proc/vmallocinfo` says.
    pub kind: &'static str,
    /// Bytes that were asked for.
    pub asked: u64,
    /// Who asked, if that can be read.
    pub place: Option<String>,
}

impl Area {
    /// Shows the pages of memory that are mapped in it: where, and the frame.
    pub fn pages(&self, guest: &Guest, sink: impl FnMut(u64, u64)) {
        if self.kind != "ioremap" {
            guest.pages(self.start, self.end, sink);
        }
    }
}

/// Steps of 2 MiB that are looked at in areas, at most: whoever has more is damaged.
const MOST_STEPS: u64 = 1 << 20;

/// The areas whose pages are looked at: all of them, unless damaged ones would take for ever.
pub(crate) fn within_reason(areas: &[Area]) -> impl Iterator<Item = &Area> {
    let mut left = MOST_STEPS;
    areas.iter().take_while(move |area| {
        let steps = area.end.saturating_sub(area.start) >> 21;
        let rest = left.checked_sub(steps.saturating_add(1));
        left = rest.unwrap_or(left);
        rest.is_some()
    })
}

/// All areas, in the order of their addresses.
pub(crate) fn all(guest: &Guest) -> Vec<Area> {
    let mut areas = Vec::new();
    // There cannot be more of them than memory.
    let mut left = guest.ram().size();
    for entry in guest.of(EntryKind::Areas) {
        let [count, fields, more] = entry.numbers;
        let stride = u64::from(entry.width);
        if entry.width == 0 || entry.width > WIDEST {
            continue;
        }
        let size = count.min(MOST) * stride;
        let Some(rest) = left.checked_sub(size) else {
            continue;
        };
        left = rest;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if !guest.read(entry.at, &mut bytes) {
            continue;
        }
        for row in bytes.chunks_exact(stride as usize) {
            let word = |offset: u64| {
                let bytes = row.get(offset as usize..)?.first_chunk()?;
                Some(u64::from_le_bytes(*bytes))
            };
            areas.extend(area(guest, word, (fields, field(more, 0))));
        }
    }
    areas.sort_by_key(|area| area.start);
    areas
}

fn area(
    guest: &Guest,
    word: impl Fn(u64) -> Option<u64>,
    (fields, origin): (u64, u64),
) -> Option<Area> {
    let state = word(field(fields, 2))?;
    let (start, end) = (word(field(fields, 0))?, word(field(fields, 1))?);
    let kind = match state >> 8 & 0xff {
        0 => "vmalloc",
        1 => "vmap",
        2 => "vm_map_ram",
        3 => "ioremap",
        _ => "percpu",
    };
    let state = match state & 0xff {
        1 => State::InUse,
        2 => State::Waits,
        3 => State::Ready,
        _ => return None,
    };
    let asked = word(field(fields, 3))?;
    let is_sane = start < end && start % PAGE == 0 && end - start <= 1 << 40;
    is_sane.then(|| Area {
        start,
        end,
        state,
        kind,
        asked,
        place: guest.location(word(origin).unwrap_or(0)),
    })
}
