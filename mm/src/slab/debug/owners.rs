//! Who allocated and who freed an object (Linux: `struct track`), and how many objects each place in the
//! source has.
//!
//! An object's track names a place by its number in a table: whoever overwrites a track makes it name
//! another place, or none, and nothing worse.
#![forbid(unsafe_code)]

use core::panic::Location;

use crate::frame::Origin;
use crate::mem::Array;
use crate::platform::CpuId;
use crate::report::ObjectOrigin;
use crate::sync::Once;

/// Places that are told apart; number 0 stands for all others.
const PLACES: usize = 512;
/// In the upper bytes of a track that says something.
const TRACK: u64 = 0x7a3c << 48;
const TRACK_MASK: u64 = 0xffff << 48;

/// All places in the source that objects were allocated or freed at, as long as anybody keeps tracks.
#[derive(Debug, Default)]
pub(crate) struct Places {
    table: Once<Array<Origin>>,
}

impl Places {
    pub(in crate::slab) const fn new() -> Self {
        Self { table: Once::new() }
    }

    /// Bytes that [`Self::keep`] needs.
    pub(in crate::slab) fn bytes() -> u64 {
        Array::<Origin>::bytes_for(PLACES).unwrap_or(u64::MAX)
    }

    /// Whether there is a table.
    pub(in crate::slab) fn are_kept(&self) -> bool {
        self.table.get().is_some()
    }

    /// Origins in a table.
    pub(in crate::slab) const COUNT: usize = PLACES;

    /// From now on there is one. If somebody else was faster, theirs stays.
    pub(in crate::slab) fn keep(&self, table: Array<Origin>) {
        let _ = self.table.set(table);
    }

    /// The number of a place.
    fn number(&self, place: &'static Location<'static>) -> u16 {
        let table = self.table.get().map_or(&[][..], |table| &**table);
        let hash = u64::from(place.line()).wrapping_mul(0x9e37_79b9) ^ u64::from(place.column());
        let start = crate::addr::to_index(hash) % PLACES;
        let places = || (1_u16..).zip(table.iter().skip(1));
        let mut found = places().skip(start).chain(places().take(start));
        let found = found.find(|(_, origin)| origin.claim(place));
        found.map_or(0, |(number, _)| number)
    }

    fn place(&self, number: u16) -> Option<&'static Location<'static>> {
        self.table.get()?.at(number.into())?.get()
    }

    /// The word of a track.
    pub(super) fn track(&self, place: &'static Location<'static>, CpuId(cpu): CpuId) -> u64 {
        TRACK | u64::from(cpu) << 16 | u64::from(self.number(place))
    }

    /// What a track says.
    pub(super) fn origin(&self, track: u64) -> Option<ObjectOrigin> {
        let place = self.place(number_in(track)?)?;
        let [_, _, a, b, c, d, ..] = track.to_le_bytes();
        let cpu = CpuId(u32::from_le_bytes([a, b, c, d]));
        Some(ObjectOrigin { place, cpu })
    }
}

/// The number of the place in a track.
fn number_in(track: u64) -> Option<u16> {
    let [low, high, ..] = track.to_le_bytes();
    (track & TRACK_MASK == TRACK).then(|| u16::from_le_bytes([low, high]))
}

/// How many objects each place has, of one cache.
#[derive(Debug)]
pub(crate) struct Tally {
    objects: [u32; PLACES],
    bytes: [u64; PLACES],
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self {
            objects: [0; PLACES],
            bytes: [0; PLACES],
        }
    }

    /// Counts an object by its track.
    pub(super) fn count(&mut self, track: u64, size: u32) {
        let number = usize::from(number_in(track).unwrap_or(0));
        let number = if number < PLACES { number } else { 0 };
        if let Some(objects) = self.objects.get_mut(number) {
            *objects = objects.saturating_add(1);
        }
        if let Some(bytes) = self.bytes.get_mut(number) {
            *bytes = bytes.saturating_add(size.into());
        }
    }

    /// Every place that has any, most first: the place if it is known, objects, bytes.
    pub(crate) fn for_each(
        &mut self,
        places: &Places,
        mut each: impl FnMut(Option<&'static Location<'static>>, u64, u64),
    ) {
        loop {
            let all = (0_u16..).zip(self.objects.iter_mut().zip(&self.bytes));
            let most = all.max_by_key(|(_, (objects, _))| **objects);
            let Some((number, (objects, bytes))) = most.filter(|(_, (objects, _))| **objects > 0)
            else {
                break;
            };
            let count = core::mem::take(objects);
            each(places.place(number), count.into(), *bytes);
        }
    }
}
