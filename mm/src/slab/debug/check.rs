//! What the bytes of a debugged cache's objects should be, and what is done where they are not.
#![forbid(unsafe_code)]

use super::layout::{Outside, Wrong};
use super::{Ask, Inside, Layout};
use crate::frame::SlabFrame;
use crate::mem::poison::{OBJECT_END, OBJECT_FREE, OBJECT_PADDING, RED_FREE, RED_LIVE};
use crate::platform::CpuId;
use crate::report::{Corruption, ObjectDamage, ObjectOrigin, ObjectPart, ObjectRepair};
use crate::slab::SlabFlags;
use crate::slab::cache::Cache;
use crate::slab::ground::Ground;
use crate::slab::object::{Object, SlabMemory};
use crate::slab::partial::Partial;
use crate::slab::shape::Shape;

/// The record of an object that nobody owns: no size goes with its complement like that.
const FREE: u64 = 0x5a46_5245_455a_5a5a;

/// What an object's record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// Nobody owns it.
    Free,
    /// Somebody does, who asked for so many bytes.
    Live(u32),
    /// Nothing that was ever written there.
    Bad,
}

/// A slab of a debugged cache, under the lock of its list.
pub(in crate::slab) struct Guard<'a, G: Ground> {
    pub(super) ground: &'a G,
    pub(super) cache: &'a Cache,
    pub(super) slab: SlabFrame<'a>,
    pub(super) shape: Shape,
    pub(super) layout: Layout,
    pub(super) memory: SlabMemory,
    flags: SlabFlags,
}

impl<'a, G: Ground> Guard<'a, G> {
    /// `partial` is what the lock protects.
    pub(in crate::slab) fn new(
        cache: &'a Cache,
        ground: &'a G,
        (slab, shape): (SlabFrame<'a>, &Shape),
        partial: &mut Partial,
    ) -> Option<Self> {
        let known = (shape, cache.code::<G>());
        let memory = slab.memory(ground.platform(), known, partial)?;
        Some(Self {
            ground,
            cache,
            slab,
            shape: shape.in_order(slab.order),
            layout: Layout::of(shape),
            memory,
            flags: cache.definition().flags(),
        })
    }

    pub(in crate::slab) const fn has(&self, flag: SlabFlags) -> bool {
        self.flags.contains(flag)
    }

    pub(super) fn record(&self, number: u16) -> Record {
        let word = self.memory.word(number, self.layout.record());
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        let size = u32::from_le_bytes([a, b, c, d]);
        let is_sound = u32::from_le_bytes([e, f, g, h]) == !size;
        match word {
            FREE => Record::Free,
            _ if is_sound && crate::addr::to_index(size.into()) <= self.shape.size() => {
                Record::Live(size)
            }
            _ => Record::Bad,
        }
    }

    pub(super) fn set_record(&self, number: u16, record: Record) {
        let word = match record {
            Record::Live(size) => u64::from(!size) << 32 | u64::from(size),
            Record::Free | Record::Bad => FREE,
        };
        self.memory.set_word(number, self.layout.record(), word);
    }

    /// All bytes of the object.
    pub(super) fn whole(&self) -> u32 {
        u32::try_from(self.shape.size()).unwrap_or(u32::MAX)
    }

    /// An object of a new slab, or one that comes back, becomes one that nobody owns.
    pub(super) fn make_free(&self, number: u16) {
        let layout = &self.layout;
        self.set_record(number, Record::Free);
        if self.has(SlabFlags::RED_ZONE) {
            let whole = self.shape.size();
            self.memory.fill(number, &layout.left_zone(), RED_FREE);
            let right = layout.right_zone(whole);
            self.memory.fill(number, &right, RED_FREE);
        }
        if self.has(SlabFlags::POISON) {
            self.memory.fill_inside(number, &layout.body(), OBJECT_FREE);
            let last = layout.last_byte();
            self.memory.fill_inside(number, &last, OBJECT_END);
        } else if self.ground.treatment().init_on_free {
            let own = layout.first_bytes(self.shape.size());
            self.memory.fill_inside(number, &own, 0);
        }
    }

    /// A new slab: all is as it should be.
    pub(in crate::slab) fn make_new(&self) {
        for number in 0..self.shape.objects() {
            self.make_free(number);
            for track in [self.layout.allocated(), self.layout.freed()] {
                self.memory.set_word(number, track, 0);
            }
            let padding = self.layout.padding();
            self.memory.fill(number, &padding, OBJECT_PADDING);
        }
    }

    /// The object becomes one with an owner who asked for so many bytes.
    pub(super) fn make_live(&self, number: u16, size: u32) {
        self.set_record(number, Record::Live(size));
        if self.has(SlabFlags::RED_ZONE) {
            let layout = &self.layout;
            self.memory.fill(number, &layout.left_zone(), RED_LIVE);
            let asked = crate::addr::to_index(size.into());
            let right = layout.right_zone(asked);
            self.memory.fill(number, &right, RED_LIVE);
        }
    }

    /// Notes who allocated an object, or freed it, if that is kept.
    pub(super) fn note(&self, number: u16, was_freed: bool, ask: &Ask, cpu: CpuId) {
        if let Some(places) = self.ground.places() {
            let word = match was_freed {
                true => self.layout.freed(),
                false => self.layout.allocated(),
            };
            let track = places.track(ask.place, cpu);
            self.memory.set_word(number, word, track);
        }
    }

    /// Who allocated an object last, and who freed it, if that is kept.
    pub(in crate::slab) fn origins(
        &self,
        number: u16,
    ) -> (Option<ObjectOrigin>, Option<ObjectOrigin>) {
        let origin = |word| {
            let places = self.ground.places()?;
            places.origin(self.memory.word(number, word))
        };
        (origin(self.layout.allocated()), origin(self.layout.freed()))
    }

    /// Whether somebody owns an object, if its record says so.
    pub(in crate::slab) fn is_owned(&self, number: u16) -> Option<bool> {
        match self.record(number) {
            Record::Live(_) => Some(true),
            Record::Free => Some(false),
            Record::Bad => None,
        }
    }

    /// Looks at an object that nobody owns; puts right what is wrong, and tells the first of it.
    pub(super) fn check_free(&self, number: u16) -> Option<Corruption> {
        let mut damage = self.check_around(number, self.shape.size(), RED_FREE);
        if self.has(SlabFlags::POISON) {
            let parts = [
                (self.layout.body(), OBJECT_FREE),
                (self.layout.last_byte(), OBJECT_END),
            ];
            for (part, expected) in parts {
                damage = damage.or(self.check_inside(number, &part, expected));
            }
        }
        damage
    }

    /// The same of one whose owner asked for so many bytes.
    pub(super) fn check_live(&self, number: u16, size: u32) -> Option<Corruption> {
        self.check_around(number, crate::addr::to_index(size.into()), RED_LIVE)
    }

    fn check_around(&self, number: u16, size: usize, red: u8) -> Option<Corruption> {
        let layout = &self.layout;
        let mut damage = None;
        if self.has(SlabFlags::RED_ZONE) {
            let (left, right) = (layout.left_zone(), layout.right_zone(size));
            damage = self.check_outside(number, ObjectPart::LeftRedZone, &left, red);
            let behind = self.check_outside(number, ObjectPart::RightRedZone, &right, red);
            damage = damage.or(behind);
        }
        if self.has(SlabFlags::POISON) {
            let padding = (ObjectPart::Padding, layout.padding());
            let found = self.check_outside(number, padding.0, &padding.1, OBJECT_PADDING);
            damage = damage.or(found);
        }
        damage
    }

    fn check_outside(
        &self,
        number: u16,
        part: ObjectPart,
        bytes: &Outside,
        expected: u8,
    ) -> Option<Corruption> {
        let wrong = self.memory.look(number, bytes, expected)?;
        let report = self.tell(number, part, expected, wrong);
        self.memory.fill(number, bytes, expected);
        Some(report)
    }

    fn check_inside(&self, number: u16, bytes: &Inside, expected: u8) -> Option<Corruption> {
        let wrong = self.memory.look_inside(number, bytes, expected)?;
        let report = self.tell(number, ObjectPart::Poison, expected, wrong);
        self.memory.fill_inside(number, bytes, expected);
        Some(report)
    }

    /// Reports what is wrong with an object.
    pub(super) fn tell(
        &self,
        number: u16,
        part: ObjectPart,
        expected: u8,
        wrong: Wrong,
    ) -> Corruption {
        let start = i64::try_from(wrong.at).unwrap_or(i64::MAX);
        let left = i64::try_from(self.layout.left()).unwrap_or(i64::MAX);
        let (allocated, freed) = self.origins(number);
        let report = Corruption::Object(ObjectDamage {
            cache: self.cache.definition().name_at_once(self.ground.platform()),
            slab: self.slab.pfn,
            object: number,
            size: match self.record(number) {
                Record::Live(size) => size,
                Record::Free | Record::Bad => self.whole(),
            },
            part,
            offset: i32::try_from(start.saturating_sub(left)).unwrap_or(i32::MAX),
            len: u32::try_from(wrong.len).unwrap_or(u32::MAX),
            expected,
            found: wrong.found,
            allocated,
            freed,
            repair: match part {
                ObjectPart::FreePointer => ObjectRepair::Relinked,
                _ => ObjectRepair::Restored,
            },
        });
        self.ground.report(&report);
        report
    }

    /// The number of an object as its list knows it.
    pub(super) fn number(&self, object: &Object) -> Option<u16> {
        self.slab
            .number_of(self.ground.platform(), &self.shape, object.as_ptr())
    }
}
