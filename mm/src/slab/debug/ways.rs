//! The ways of a debugged cache's objects: each passes here, under the lock of its slab.
#![forbid(unsafe_code)]

use core::panic::Location;
use core::ptr::NonNull;

use super::check::Record;
use super::{Guard, Tally, Wrong};
use crate::addr::{Pfn, to_index};
use crate::buddy::{Gfp, Trace};
use crate::frame::SlabFrame;
use crate::frame::slab::SlabUse;
use crate::platform::NodeId;
use crate::report::{Corruption, ObjectPart};
use crate::slab::SlabFlags;
use crate::slab::cache::{BadFree, Cache, NoObject};
use crate::slab::ground::Ground;
use crate::slab::object::Object;
use crate::slab::partial::Partial;
use crate::slab::shape::Shape;
use crate::slab::slabs::{KEPT, slab_around, slab_of};
use crate::sync::Pin;

/// Who asks for an object, or gives it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// Bytes that are asked for; nothing stands for all that objects of the cache have.
    pub(crate) size: Option<usize>,
    /// The line of the source.
    pub(crate) place: &'static Location<'static>,
}

impl Ask {
    /// The caller asks for all that objects of the cache have, or gives one back.
    #[inline(always)]
    #[track_caller]
    pub(crate) const fn whole() -> Self {
        Self {
            size: None,
            place: Location::caller(),
        }
    }

    /// The caller asks for so many bytes.
    #[inline(always)]
    #[track_caller]
    pub(crate) const fn bytes(size: usize) -> Self {
        Self {
            size: Some(size),
            place: Location::caller(),
        }
    }
}

/// What is done to objects on their way out and in, besides what their cache asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Treatment {
    /// `init_on_alloc=`: every object comes zeroed.
    pub(crate) init_on_alloc: bool,
    /// `init_on_free=`: every object is zeroed when it is given back.
    pub(crate) init_on_free: bool,
}

impl Cache {
    /// Allocates an object of a debugged cache. Context: as the flags say.
    #[cold]
    #[inline(never)]
    pub(in crate::slab) fn alloc_guarded<G: Ground>(
        &self,
        ground: &G,
        gfp: Gfp,
        node: Option<NodeId>,
        (ask, trace): (Ask, &mut impl Trace),
    ) -> Result<Object, NoObject> {
        let (shape, rooms) = self.parts().ok_or(NoObject)?;
        let size = ask.size.unwrap_or(shape.size()).min(shape.size());
        if self.definition().flags().contains(SlabFlags::FAILSLAB)
            && ground.strikes(self, gfp, size)
        {
            return Err(NoObject);
        }
        let place = self.alloc_raw(ground, gfp, node, trace)?;
        let slab = slab_of(ground, &place).ok_or(NoObject)?;
        let lock = rooms.node_with(slab.home.node).ok_or(NoObject)?;
        let mut partial = lock.lock(ground.platform());
        let guard = Guard::new(self, ground, (slab, &shape), &mut partial).ok_or(NoObject)?;
        let number = guard.number(&place).ok_or(NoObject)?;
        // Poison shows who uses what was never written, so it stays (as in Linux).
        let inits = ground.treatment().init_on_alloc && !guard.has(SlabFlags::POISON);
        if gfp.contains(Gfp::ZERO) || inits {
            let own = guard.layout.first_bytes(size);
            guard.memory.fill_inside(number, &own, 0);
        }
        guard.make_live(number, u32::try_from(size).unwrap_or(u32::MAX));
        if guard.has(SlabFlags::STORE_USER) {
            guard.note(number, false, &ask, Pin::new(ground.platform()).cpu());
        }
        Ok(place.hand_out(&guard.layout))
    }

    /// An object leaves the list of its slab, which it is looked at for.
    pub(in crate::slab) fn leaves<G: Ground>(
        &self,
        ground: &G,
        partial: &mut Partial,
        place: &Object,
    ) {
        let (Some(shape), Some(slab)) = (self.shape(), slab_of(ground, place)) else {
            return;
        };
        let Some(guard) = Guard::new(self, ground, (slab, &shape), partial) else {
            return;
        };
        let Some(number) = guard.number(place) else {
            return;
        };
        if guard.record(number) != Record::Free {
            guard.tell_record(number);
        }
        let _ = guard.check_free(number);
        guard.make_live(number, guard.whole());
        if guard.has(SlabFlags::CONSISTENCY_CHECKS) {
            let _ = guard.check_list(partial);
        }
    }

    /// Takes an object of a debugged cache back. Context: any but NMI; no lock held.
    ///
    /// # Errors
    /// [`BadFree`]; nothing is changed then.
    #[cold]
    #[inline(never)]
    pub(in crate::slab) fn free_guarded<G: Ground>(
        &self,
        ground: &G,
        owners: Object,
        ask: Ask,
    ) -> Result<(), BadFree> {
        let (shape, rooms) = self.parts().ok_or(BadFree::NotASlab)?;
        let node = slab_of(ground, &owners).ok_or(BadFree::NotASlab)?.home.node;
        let lock = rooms.node_with(node).ok_or(BadFree::NotASlab)?;
        let mut partial = lock.lock(ground.platform());
        // Somebody else's last object may have gone back meanwhile, and the slab with it.
        let slab = slab_of(ground, &owners).filter(|slab| slab.cache == self.id());
        let slab = slab.ok_or(BadFree::NotASlab)?;
        let guard = Guard::new(self, ground, (slab, &shape), &mut partial);
        let guard = guard.ok_or(BadFree::NotASlab)?;
        let number = guard.memory.owners_number(owners.as_ptr(), &guard.layout);
        let number = number.ok_or(BadFree::NotAnObject)?;
        let size = match guard.record(number) {
            Record::Free => return Err(BadFree::AlreadyFree),
            Record::Live(size) => size,
            Record::Bad => {
                guard.tell_record(number);
                guard.whole()
            }
        };
        if guard.has(SlabFlags::CONSISTENCY_CHECKS) {
            let _ = guard.check_list(&mut partial);
        }
        let _ = guard.check_live(number, size);
        guard.make_free(number);
        if guard.has(SlabFlags::STORE_USER) {
            guard.note(number, true, &ask, Pin::new(ground.platform()).cpu());
        }
        if let Some(place) = guard.memory.take_back(owners, number) {
            guard.put(&mut partial, place);
        }
        let surplus = self.take_empty(ground, &mut partial, KEPT);
        drop(partial);
        if let Some(slab) = surplus {
            self.end_slab(ground, slab);
        }
        Ok(())
    }

    /// Runs `body` on the slab of an object that its owner has, if the cache is a debugged one and somebody owns
    /// the object: with its number, and how many bytes were asked for. Context: any but NMI; no lock held.
    fn with_live<G: Ground, R>(
        &self,
        ground: &G,
        owners: NonNull<u8>,
        body: impl FnOnce(&Guard<'_, G>, u16, u32) -> R,
    ) -> Option<R> {
        let (shape, rooms) = self.parts().filter(|(shape, _)| shape.is_guarded())?;
        let node = slab_around(ground, owners)?.home.node;
        let mut partial = rooms.node_with(node)?.lock(ground.platform());
        let slab = slab_around(ground, owners).filter(|slab| slab.cache == self.id())?;
        let guard = Guard::new(self, ground, (slab, &shape), &mut partial)?;
        let number = guard.memory.owners_number(owners, &guard.layout)?;
        match guard.record(number) {
            Record::Live(size) => Some(body(&guard, number, size)),
            Record::Free | Record::Bad => None,
        }
    }

    /// How many bytes the owner of an object of a debugged cache asked for. Context: any but NMI.
    pub(crate) fn asked<G: Ground>(&self, ground: &G, owners: NonNull<u8>) -> Option<usize> {
        self.with_live(ground, owners, |_, _, size| to_index(size.into()))
    }

    /// From now on the owner of an object of a debugged cache has so many bytes of it. Context: any but
    /// NMI.
    pub(crate) fn ask_anew<G: Ground>(&self, ground: &G, owners: Object, size: usize) -> Object {
        let _ = self.with_live(ground, owners.as_ptr(), |guard, number, old| {
            let _ = guard.check_live(number, old);
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            guard.make_live(number, size.min(guard.whole()));
        });
        owners
    }

    /// Runs `body` on every slab of a node.
    fn for_each_slab<G: Ground>(
        &self,
        ground: &G,
        partial: &mut Partial,
        mut body: impl FnMut(&Guard<'_, G>, &mut Partial),
    ) {
        let most = partial.stats().slabs;
        let mut from: fn(&Partial) -> Option<Pfn> = |partial| partial.full().first();
        for _ in 0..2 {
            let mut next = from(partial);
            for _ in 0..most {
                let slab = next.and_then(|pfn| ground.frames().slab_at(pfn));
                let Some(slab) = slab.filter(|slab| slab.cache == self.id()) else {
                    break;
                };
                next = slab.frame.slab_links().0;
                // As long as it has slabs, it is no other cache.
                let shape = self.shape().filter(Shape::is_guarded);
                let guard =
                    shape.and_then(|shape| Guard::new(self, ground, (slab, &shape), partial));
                if let Some(guard) = guard {
                    body(&guard, partial);
                }
            }
            from = |partial| partial.first();
        }
    }

    /// Looks at all objects of a node, if the cache is a debugged one. What is wrong is told and put right.
    pub(in crate::slab) fn check_all<G: Ground>(
        &self,
        ground: &G,
        partial: &mut Partial,
    ) -> Option<Corruption> {
        let mut damage = None;
        self.for_each_slab(ground, partial, |guard, partial| {
            let found = guard.check_slab(partial);
            damage = damage.or(found);
        });
        damage
    }

    /// Counts the objects that have owners, by who allocated them. Context: any but NMI.
    pub(crate) fn tally<G: Ground>(&self, ground: &G, tally: &mut Tally) {
        let nodes = self.rooms().get().map(|rooms| rooms.nodes());
        for node in nodes.into_iter().flatten() {
            let mut partial = node.lock(ground.platform());
            self.for_each_slab(ground, &mut partial, |guard, _| {
                for number in 0..guard.shape.objects() {
                    if let Record::Live(size) = guard.record(number) {
                        let track = guard.memory.word(number, guard.layout.allocated());
                        tally.count(track, size);
                    }
                }
            });
        }
    }

    /// Makes the list of a slab anew that `pop` found broken, if the cache is a debugged one.
    #[cold]
    pub(in crate::slab) fn mend<G: Ground>(
        &self,
        ground: &G,
        partial: &mut Partial,
        slab: SlabFrame<'_>,
    ) -> bool {
        let Some(shape) = self.shape().filter(Shape::is_guarded) else {
            return false;
        };
        let guard = Guard::new(self, ground, (slab, &shape), partial);
        guard.is_some_and(|guard| guard.check_list(partial).is_some())
    }
}

impl<G: Ground> Guard<'_, G> {
    /// Tells that an object's record is none.
    fn tell_record(&self, number: u16) -> Corruption {
        let at = self.layout.record();
        let wrong = Wrong {
            at: at.at(),
            len: 8,
            found: self.memory.word(number, at).to_le_bytes(),
        };
        self.tell(number, ObjectPart::Record, 0, wrong)
    }

    /// Follows the list of free objects; where it is not what it should be, makes it anew from what
    /// the objects say of themselves.
    fn check_list(&self, partial: &mut Partial) -> Option<Corruption> {
        let before = self.slab.frame.slab_use();
        let free = self.shape.objects().saturating_sub(before.taken);
        let bad = match self.memory.listed(before.free) {
            Ok(found) if found.count() == free => return None,
            Ok(_) => before.free,
            Err(bad) => bad.object,
        };
        let wrong = Wrong {
            at: self.layout.left(),
            len: 0,
            found: [0; 8],
        };
        let damage = self.tell(bad, ObjectPart::FreePointer, 0, wrong);
        let mut mine = super::Bits::NONE;
        for number in 0..self.shape.objects() {
            if self.record(number) == Record::Free {
                let _ = mine.insert(number);
            }
        }
        let now = SlabUse {
            taken: self.shape.objects().saturating_sub(mine.count()),
            free: self.memory.relink(&mine),
            fresh: self.shape.objects(),
        };
        self.change_use(partial, now);
        Some(damage)
    }

    /// From now on the slab's record says this of its objects.
    fn change_use(&self, partial: &mut Partial, now: SlabUse) {
        let before = self.slab.frame.slab_use();
        self.slab.frame.set_slab_use(now);
        if now.taken > before.taken {
            partial.note_taken(u64::from(now.taken.saturating_sub(before.taken)));
        } else {
            partial.note_back(u64::from(before.taken.saturating_sub(now.taken)));
        }
        let frames = self.ground.frames();
        let objects = self.shape.objects();
        partial.relist(self.slab, (before.taken, now.taken), objects, frames);
    }

    /// Puts an object on the list.
    fn put(&self, partial: &mut Partial, place: Object) {
        let mut now = self.slab.frame.slab_use();
        let _ = self.memory.push_all(&mut now, &mut [Some(place)]);
        self.change_use(partial, now);
    }

    /// Looks at all objects of the slab, and at its list.
    fn check_slab(&self, partial: &mut Partial) -> Option<Corruption> {
        let mut damage = self.check_list(partial);
        let listed = self.memory.listed(self.slab.frame.slab_use().free).ok()?;
        for number in 0..self.shape.objects() {
            let is_free = listed.contains(number);
            let record = self.record(number);
            let found = match record {
                Record::Free if is_free => None,
                Record::Live(_) if !is_free => None,
                _ => {
                    let found = self.tell_record(number);
                    self.set_record(
                        number,
                        match is_free {
                            true => Record::Free,
                            false => Record::Live(self.whole()),
                        },
                    );
                    Some(found)
                }
            };
            damage = damage.or(found);
            let found = match self.record(number) {
                Record::Live(size) => self.check_live(number, size),
                Record::Free | Record::Bad => self.check_free(number),
            };
            damage = damage.or(found);
        }
        damage
    }

    /// Looks at a slab without owners before it goes back to the page allocator.
    pub(in crate::slab) fn check_last(&self) {
        for number in 0..self.shape.objects() {
            let _ = self.check_free(number);
        }
    }
}
