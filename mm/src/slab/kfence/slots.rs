//! What is known of the pool's objects; which one is next.
#![forbid(unsafe_code)]

use super::{KFENCE_OBJECTS, KfenceError, KfenceObject, KfenceReport, KfenceStats, PAGE, narrow};
use crate::mem::Array;
use crate::platform::{PageAccess, Platform};
use crate::report::{CacheName, Corruption, ObjectOrigin};
use crate::slab::object::{BadCanary, Fresh, PoolMemory, follows};

/// No slot, or no page.
const NONE: u16 = u16::MAX;

/// Whose a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nobody's ever.
    Unused,
    /// Somebody's.
    Live,
    /// Its owner gave it back, and readers may still see it.
    Deferred,
    /// Nobody's any more.
    Free,
}

/// One object. Its page can be touched while somebody has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    /// Where in its page it starts, …
    pub(super) at: u16,
    /// … and how many bytes its owner asked for.
    pub(super) size: u16,
    pub(super) cache: u16,
    pub(super) name: CacheName,
    /// Readers may see it after it was freed.
    pub(super) is_rcu: bool,
    pub(super) allocated: Option<ObjectOrigin>,
    pub(super) freed: Option<ObjectOrigin>,
    /// The page beside it that somebody touched, and everybody can since.
    pub(super) opened: u16,
    /// The next one that is free.
    pub(super) next: u16,
}

impl Slot {
    pub(super) const fn unused(_: usize) -> Self {
        Self {
            state: State::Unused,
            at: 0,
            size: 0,
            cache: NONE,
            name: CacheName::NONE,
            is_rcu: false,
            allocated: None,
            freed: None,
            opened: NONE,
            next: NONE,
        }
    }

    /// The byte behind its last one.
    const fn end(&self) -> usize {
        widen(self.at).saturating_add(widen(self.size))
    }
}

/// All slots.
///
/// # Invariants
/// From `first` on hang those that are nobody's, those free longest first; `last` is the last one.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) memory: PoolMemory,
    table: Array<Slot>,
    first: u16,
    last: u16,
    /// What the side follows from that an object lies at.
    random: u64,
    stats: KfenceStats,
}

impl Slots {
    /// All are nobody's.
    pub(super) fn new(memory: PoolMemory, mut table: Array<Slot>, seed: u64) -> Self {
        for (slot, next) in table.iter_mut().zip(1..) {
            slot.next = if usize::from(next) < KFENCE_OBJECTS {
                next
            } else {
                NONE
            };
        }
        Self {
            memory,
            table,
            first: 0,
            last: narrow(KFENCE_OBJECTS.saturating_sub(1)),
            random: seed,
            stats: KfenceStats::default(),
        }
    }

    /// Whose page it is.
    pub(super) const fn of_page(page: usize) -> Option<usize> {
        match page {
            2.. if page.is_multiple_of(2) => Some(page.div_euclid(2).saturating_sub(1)),
            _ => None,
        }
    }

    /// The page of a slot.
    const fn page_of(slot: usize) -> usize {
        slot.saturating_add(1).saturating_mul(2)
    }

    /// What is known of one.
    pub(super) fn slot(&self, slot: usize) -> Option<Slot> {
        self.table.get(slot).copied()
    }

    /// Changes that.
    pub(super) fn change(&mut self, slot: usize, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.table.get_mut(slot) {
            change(slot);
        }
    }

    /// Objects that somebody has, or readers see, and that are like that.
    pub(super) fn count(&self, is_meant: impl Fn(&Slot) -> bool) -> u64 {
        let is_kept = |slot: &&Slot| matches!(slot.state, State::Live | State::Deferred);
        let found = self.table.iter().filter(is_kept);
        crate::addr::to_count(found.filter(|slot| is_meant(slot)).count())
    }

    pub(super) fn stats(&self) -> KfenceStats {
        KfenceStats {
            allocated: self.count(|_| true),
            ..self.stats
        }
    }

    /// Makes the object that is free longest one of `made`'s size, aligned so.
    pub(super) fn take<P: Platform>(
        &mut self,
        platform: &P,
        made: Slot,
        align: usize,
    ) -> Option<Fresh> {
        let number = usize::from(self.first);
        let Some(next) = self.table.get(number).map(|slot| slot.next) else {
            self.stats.full = self.stats.full.saturating_add(1);
            return None;
        };
        let page = Self::page_of(number);
        let open = platform.protect_page(self.memory.page(page), PageAccess::ReadWrite);
        open.ok()?;
        self.first = next;
        if next == NONE {
            self.last = NONE;
        }
        self.random = follows(self.random);
        let room = PAGE.saturating_sub(usize::from(made.size));
        let at = match self.random & 1 {
            0 => 0,
            // As far to the end as it may be.
            _ => room & !align.wrapping_sub(1),
        };
        let at = narrow(at);
        let made = Slot { at, ..made };
        self.change(number, |slot| {
            let opened = slot.opened;
            *slot = Slot { opened, ..made };
        });
        self.stats.allocations = self.stats.allocations.saturating_add(1);
        self.memory.fill_canary(page, 0..usize::from(at));
        self.memory.fill_canary(page, made.end()..PAGE);
        self.memory.hand_out(page, usize::from(at)..made.end())
    }

    /// Takes an object back that somebody had; tells if what is around it was written to.
    pub(super) fn put<P: Platform>(
        &mut self,
        platform: &P,
        number: usize,
        freed: Option<ObjectOrigin>,
        wipes: bool,
    ) {
        let Some(slot) = self.slot(number) else {
            return;
        };
        let page = Self::page_of(number);
        for part in [0..usize::from(slot.at), slot.end()..PAGE] {
            if let Some(bad) = self.memory.find_bad(page, part) {
                self.tell_canary(platform, number, bad);
            }
        }
        if wipes {
            self.memory.wipe(page);
        }
        if slot.opened != NONE {
            let beside = usize::from(slot.opened);
            self.memory.wipe(beside);
            let _ = platform.protect_page(self.memory.page(beside), PageAccess::None);
        }
        let _ = platform.protect_page(self.memory.page(page), PageAccess::None);
        self.change(number, |slot| {
            slot.state = State::Free;
            slot.freed = slot.freed.or(freed);
            slot.opened = NONE;
            slot.next = NONE;
        });
        let last = usize::from(self.last);
        self.change(last, |slot| slot.next = narrow(number));
        self.last = narrow(number);
        if self.first == NONE {
            self.first = self.last;
        }
        self.stats.frees = self.stats.frees.saturating_add(1);
    }

    /// What is told of an object, and a place that is counted from the start of its page.
    pub(super) fn object(&self, number: usize, place: usize) -> Option<KfenceObject> {
        let slot = self.slot(number)?;
        let signed = |place: usize| i32::try_from(place).unwrap_or(i32::MAX);
        (slot.state != State::Unused).then(|| KfenceObject {
            slot: u8::try_from(number).unwrap_or(u8::MAX),
            cache: slot.name,
            size: slot.size,
            offset: signed(place).saturating_sub(signed(usize::from(slot.at))),
            allocated: slot.allocated,
            freed: slot.freed,
        })
    }

    /// The object that is nearest to a byte of a page that is no object's.
    pub(super) fn beside(&self, page: usize, place: usize) -> Option<KfenceObject> {
        let left = Self::of_page(page.wrapping_sub(1))
            .and_then(|slot| self.object(slot, place.saturating_add(PAGE)));
        let right = Self::of_page(page.wrapping_add(1)).and_then(|slot| {
            let mut object = self.object(slot, place)?;
            object.offset = object.offset.saturating_sub(i32::try_from(PAGE).ok()?);
            Some(object)
        });
        let distance = |object: &KfenceObject| match object.offset {
            before if before < 0 => before.unsigned_abs(),
            behind => behind.saturating_sub(i32::from(object.size)).unsigned_abs(),
        };
        left.into_iter().chain(right).min_by_key(distance)
    }

    /// Tells of a fault.
    pub(super) fn tell<P: Platform>(
        &mut self,
        platform: &P,
        error: KfenceError,
        object: Option<KfenceObject>,
    ) {
        self.stats.bugs = self.stats.bugs.saturating_add(1);
        platform.corruption(&Corruption::Kfence(KfenceReport { error, object }));
    }

    fn tell_canary<P: Platform>(&mut self, platform: &P, number: usize, bad: BadCanary) {
        let error = KfenceError::Corruption {
            len: narrow(bad.len),
            expected: bad.expected,
            found: bad.found,
        };
        let object = self.object(number, bad.at);
        self.tell(platform, error, object);
    }
}

const fn widen(number: u16) -> usize {
    let [low, high] = number.to_le_bytes();
    usize::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0])
}
