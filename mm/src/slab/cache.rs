//! One cache: the ways of objects between owners, CPUs and slabs.
#![forbid(unsafe_code)]

use super::SlabFlags;
use super::at_hand::{CACHES, way_of};
use super::debug::Ask;
use super::definition::{Name, Place};
use super::ground::Ground;
use super::magazine::{Gauges, Magazine};
use super::object::{Checks, Code, Object};
use super::partial::Partial;
use super::shape::Shape;
use super::slabs::slab_of;
use super::traced::tell_from_slab;
use crate::buddy::{Gfp, Step, Trace};
use crate::frame::SlabFrame;
use crate::frame::slab::SlabTag;
use crate::mem::Array;
use crate::platform::{CpuId, NodeId, Platform};
use crate::sync::atomic::AtomicU32;
use crate::sync::{Once, OwnerCell, PerCpu, Pin, SpinLock, rank};

/// There is no object, nor memory for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoObject;

/// Why something is not taken back. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFree {
    /// No object starts there: it is inside of one, or behind the last.
    NotAnObject,
    /// The object is free already.
    AlreadyFree,
    /// It is an object of another cache.
    OtherCache,
    /// The memory belongs to no cache, and is no block of pages that `kmalloc` handed out.
    NotASlab,
}

impl core::fmt::Display for BadFree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "no object starts there",
            Self::AlreadyFree => "already free",
            Self::OtherCache => "an object of another cache",
            Self::NotASlab => "no object of any cache",
        })
    }
}

impl core::error::Error for BadFree {}

/// What CPUs have at hand of one cache.
pub(crate) type Cells = PerCpu<Magazine, Gauges>;

/// What a CPU found at hand.
enum Filled {
    /// An object.
    Taken(Object),
    /// One that somebody wrote to while it was free; it is out of use.
    Damaged,
    /// None, nor any on the slabs of the node.
    Empty,
    /// Somebody else is there.
    NotEntered,
}

/// What a cache has for each CPU and node.
#[derive(Debug)]
pub(super) struct Rooms {
    cells: Cells,
    nodes: Array<SpinLock<Partial>>,
}

impl Rooms {
    pub(super) const fn new(
        cells: Array<OwnerCell<Magazine, Gauges>>,
        nodes: Array<SpinLock<Partial>>,
    ) -> Self {
        Self {
            cells: PerCpu::new(cells),
            nodes,
        }
    }

    /// What each CPU has.
    pub(super) const fn cells(&self) -> &Cells {
        &self.cells
    }

    /// What a node has.
    pub(super) fn node_with(&self, node: NodeId) -> Option<&SpinLock<Partial>> {
        self.nodes.at(u64::from(node.0))
    }

    /// What the nodes have.
    pub(super) fn nodes(&self) -> &[SpinLock<Partial>] {
        &self.nodes
    }

    pub(super) fn cell(_: usize) -> OwnerCell<Magazine, Gauges> {
        OwnerCell::new(Magazine::new(), Gauges::new())
    }

    pub(super) const fn node(_: usize) -> SpinLock<Partial> {
        SpinLock::new(rank::SLAB, Partial::new())
    }
}

/// A cache, for as long as the machine runs.
#[derive(Debug)]
pub(crate) struct Cache {
    id: u16,
    definition: Place,
    rooms: Once<Rooms>,
    /// Handles to the cache: it is one for all that are alike.
    users: AtomicU32,
}

impl Cache {
    pub(super) const fn unused(id: u16) -> Self {
        Self {
            id,
            definition: Place::new(),
            rooms: Once::new(),
            users: AtomicU32::new(0),
        }
    }

    /// What it has for each CPU and node, if it was used before.
    pub(super) const fn rooms(&self) -> &Once<Rooms> {
        &self.rooms
    }

    /// How many handles there are.
    pub(super) const fn users(&self) -> &AtomicU32 {
        &self.users
    }

    /// Whether it ends when one more handle is given up.
    pub(crate) fn is_last_user(&self) -> bool {
        self.users.load(crate::sync::atomic::Ordering::Acquire) <= 1
    }

    /// Whether there is a handle: if not, it is no cache now.
    pub(crate) fn has_users(&self) -> bool {
        self.users.load(crate::sync::atomic::Ordering::Acquire) > 0
    }

    /// What it is.
    pub(super) const fn definition(&self) -> &Place {
        &self.definition
    }

    /// What it is called. Context: any but NMI.
    pub(crate) fn name<P: Platform>(&self, platform: &P) -> Name {
        self.definition.name(platform)
    }

    /// Its shape; none before it is one.
    #[inline(always)]
    pub(crate) fn shape(&self) -> Option<Shape> {
        self.definition.shape()
    }

    /// Its properties, with what the command line says of it.
    pub(crate) fn flags(&self) -> SlabFlags {
        self.definition.flags()
    }

    /// Whether its requests may fail on purpose.
    pub(crate) fn fails_on_purpose(&self) -> bool {
        self.flags().contains(SlabFlags::FAILSLAB)
    }

    /// Its number, which stands in the records of its slabs.
    pub(crate) const fn id(&self) -> u16 {
        self.id
    }

    /// The number of the way that CPUs have to their objects of the cache, and what it leads to.
    pub(crate) fn way(&self) -> Option<(usize, &Cells)> {
        let way = way_of(usize::from(self.id));
        let rooms = self.rooms.get().filter(|_| way < CACHES)?;
        Some((way, &rooms.cells))
    }

    pub(super) fn parts(&self) -> Option<(Shape, &Rooms)> {
        self.shape().zip(self.rooms.get())
    }

    pub(super) fn code<G: Ground>(&self) -> Code {
        self.definition.code::<G::P>()
    }

    /// Takes an object for an owner, and tells `trace` how. Context: as the flags say.
    pub(crate) fn alloc<G: Ground>(
        &self,
        ground: &G,
        gfp: Gfp,
        node: Option<NodeId>,
        (ask, trace): (Ask, &mut impl Trace),
    ) -> Result<Object, NoObject> {
        let shape = self.shape().ok_or(NoObject)?;
        if shape.is_guarded() {
            return self.alloc_guarded(ground, gfp, node, (ask, trace));
        }
        let mut object = self.alloc_raw(ground, gfp, node, trace)?;
        let inits = G::P::PROFILE.is_hardened() && self.treatment(ground).init_on_alloc;
        if gfp.contains(Gfp::ZERO) || inits {
            object.zero(&shape);
        }
        Ok(object)
    }

    pub(super) fn alloc_raw<G: Ground>(
        &self,
        ground: &G,
        gfp: Gfp,
        node: Option<NodeId>,
        trace: &mut impl Trace,
    ) -> Result<Object, NoObject> {
        loop {
            let pin = Pin::new(ground.platform());
            let here = ground.node_of(pin.cpu());
            let wanted = node.unwrap_or(here);
            let (cpu, had) = (pin.cpu(), self.at_hand_of(pin.cpu()));
            let found = match wanted == here {
                true => self.take_filled(ground, &pin, here),
                false => Filled::NotEntered,
            };
            drop(pin);
            let found = match found {
                Filled::Taken(object) => {
                    self.tell_taken(ground, (cpu, had), &object, trace);
                    return Ok(object);
                }
                Filled::Damaged => continue,
                Filled::Empty => None,
                // Somebody whom we interrupted is at the objects at hand, or they are of another node.
                Filled::NotEntered => self.take_from(ground, wanted),
            };
            if found.is_none() {
                trace.step(Step::NoSlab { node: wanted });
            }
            let found = found.or_else(|| self.take_elsewhere(ground, gfp, wanted, trace));
            if let Some(object) = found {
                tell_from_slab(ground, &object, trace);
                return Ok(object);
            }
            let home = self.add_slab(ground, gfp, wanted, trace)?;
            if home != here
                && let Some(object) = self.take_from(ground, home)
            {
                tell_from_slab(ground, &object, trace);
                return Ok(object);
            }
        }
    }

    /// Takes an object from a new slab of a node if it has memory to spare, or from slabs of other nodes that
    /// are there: a node without memory does not take a slab of another one for each object.
    #[cold]
    fn take_elsewhere<G: Ground>(
        &self,
        ground: &G,
        gfp: Gfp,
        wanted: NodeId,
        trace: &mut impl Trace,
    ) -> Option<Object> {
        let nodes = self.rooms.get()?.nodes();
        if nodes.len() < 2 || gfp.contains(Gfp::THISNODE) {
            return None;
        }
        let only = gfp.difference(Gfp::DIRECT_RECLAIM | Gfp::NOFAIL) | Gfp::THISNODE | Gfp::NOWARN;
        if let Ok(home) = self.add_slab(ground, only, wanted, trace) {
            return self.take_from(ground, home);
        }
        let ids = (0..).map(NodeId).take(nodes.len());
        ids.filter(|id| *id != wanted)
            .find_map(|id| self.take_from(ground, id))
    }

    /// Takes an object that this CPU has at hand; if there is none, many are fetched from the slabs of a node
    /// first. Nobody has any of a debugged cache.
    fn take_filled<G: Ground>(&self, ground: &G, pin: &Pin<'_, G::P>, node: NodeId) -> Filled {
        let parts = self.parts().filter(|(shape, _)| !shape.is_guarded());
        let Some((shape, rooms)) = parts else {
            return Filled::NotEntered;
        };
        let Some(mut own) = rooms.cells.enter(pin) else {
            return Filled::NotEntered;
        };
        let (magazine, gauges) = own.parts();
        let code = self.code::<G>();
        self.open(ground, (magazine, gauges), shape, node);
        let mut taken = magazine.take_any(gauges);
        if taken.is_none()
            && let Some(partial) = rooms.node_with(node)
        {
            let wanted = magazine.room(gauges).div_ceil(2);
            let mut partial = partial.lock(ground.platform());
            let places = magazine.empty_places(wanted, gauges);
            let came = self.pop(ground, &mut partial, places);
            drop(partial);
            if G::P::PROFILE.is_hardened() {
                for object in places.iter_mut().take(came).flatten() {
                    code.mark(object, &shape);
                }
            }
            magazine.note_came(came, gauges);
            taken = magazine.take_any(gauges);
        }
        if own.leave() {
            self.serve(ground, pin);
        }
        match taken {
            None => Filled::Empty,
            Some(mut object) => match code.unmark(&mut object, &shape) {
                true => Filled::Taken(object),
                false => {
                    self.report(ground, object);
                    Filled::Damaged
                }
            },
        }
    }

    /// Takes one object from the slabs of a node.
    fn take_from<G: Ground>(&self, ground: &G, node: NodeId) -> Option<Object> {
        let (shape, rooms) = self.parts()?;
        let mut partial = rooms.node_with(node)?.lock(ground.platform());
        let mut found = [None];
        self.pop(ground, &mut partial, &mut found);
        let mut object = found[0].take()?;
        if shape.is_guarded() {
            self.leaves(ground, &mut partial, &object);
        }
        drop(partial);
        self.code::<G>().clear(&mut object, &shape);
        Some(object)
    }

    /// What a CPU has at hand of the cache is about its slabs of this node.
    fn open<G: Ground>(
        &self,
        ground: &G,
        (magazine, gauges): (&mut Magazine, &Gauges),
        shape: Shape,
        node: NodeId,
    ) {
        let tag = SlabTag::new(self.id, node);
        if magazine.is_open_for(tag) {
            return;
        }
        let checks = Checks::new(&shape, self.code::<G>(), self.treatment(ground));
        magazine.open(shape.at_hand(), tag, checks, gauges);
    }

    /// Takes an object back that its owner gives up, which is one of `slab`, as its frame's record says. Context:
    /// any but NMI.
    ///
    /// # Errors
    /// [`BadFree`]; in the plain profile, some of that is not looked for.
    pub(crate) fn free<G: Ground>(
        &self,
        ground: &G,
        slab: SlabFrame<'_>,
        mut object: Object,
        ask: Ask,
    ) -> Result<(), BadFree> {
        if self.shape().is_some_and(|shape| shape.is_guarded()) {
            return self.free_guarded(ground, object, ask);
        }
        object = self.checked_by_profile(ground, slab, object)?;
        self.free_checked(ground, slab, object);
        Ok(())
    }

    /// As [`Self::checked`] where the profile pays for it.
    #[inline]
    pub(super) fn checked_by_profile<G: Ground>(
        &self,
        ground: &G,
        slab: SlabFrame<'_>,
        object: Object,
    ) -> Result<Object, BadFree> {
        match G::P::PROFILE.is_hardened() {
            true => self.checked(ground, slab, object),
            false => Ok(object),
        }
    }

    /// An object that is none, or free already, is refused; others are marked as free.
    #[inline]
    fn checked<G: Ground>(
        &self,
        ground: &G,
        slab: SlabFrame<'_>,
        mut object: Object,
    ) -> Result<Object, BadFree> {
        let shape = self.shape().ok_or(BadFree::NotASlab)?;
        let number = slab.number_of(ground.platform(), &shape, object.as_ptr());
        number.ok_or(BadFree::NotAnObject)?;
        let code = self.code::<G>();
        if code.is_free(&object, &shape) {
            return Err(BadFree::AlreadyFree);
        }
        if self.treatment(ground).init_on_free {
            object.zero(&shape);
        }
        code.mark(&mut object, &shape);
        Ok(object)
    }

    /// Whether an object holds what only free ones hold, if that is marked in it.
    pub(crate) fn is_marked_free<G: Ground>(&self, ground: &G, object: &Object) -> bool {
        let shape = self.shape().filter(|shape| !shape.is_guarded());
        let slab = slab_of(ground, object);
        shape.zip(slab).is_some_and(|(shape, slab)| {
            slab.number_of(ground.platform(), &shape, object.as_ptr())
                .is_some()
                && self.code::<G>().is_free(object, &shape)
        })
    }

    /// Takes an object of a slab back: to those at hand, where the oldest make room if they must, or to the slab.
    fn free_checked<G: Ground>(&self, ground: &G, slab: SlabFrame<'_>, object: Object) {
        let Some((shape, rooms)) = self.parts() else {
            return;
        };
        let node = slab.home.node;
        let pin = Pin::new(ground.platform());
        let mut left = Some(object);
        if ground.node_of(pin.cpu()) == node
            && let Some(mut own) = rooms.cells.enter(&pin)
        {
            let (magazine, gauges) = own.parts();
            self.open(ground, (magazine, gauges), shape, node);
            if magazine.room(gauges) == 0 {
                self.spill(ground, magazine, gauges, shape.at_hand().div_ceil(2));
            }
            left = left.and_then(|object| magazine.put(object, slab.tag, gauges).err());
            if own.leave() {
                self.serve(ground, &pin);
            }
        }
        drop(pin);
        if left.is_some() {
            self.give_back(ground, &mut [left]);
        }
    }

    /// Gives the oldest objects at hand back to their slabs.
    #[cold]
    #[inline(never)]
    pub(super) fn spill<G: Ground>(
        &self,
        ground: &G,
        magazine: &mut Magazine,
        gauges: &Gauges,
        count: u32,
    ) {
        let old = magazine.oldest(count, gauges);
        self.give_back(ground, old);
        let count = old.len();
        magazine.note_oldest_gone(count, gauges);
    }

    /// An object at hand was written to while it was free: it stays out of use.
    #[cold]
    pub(super) fn report<G: Ground>(&self, ground: &G, object: Object) {
        let slab = slab_of(ground, &object).zip(self.shape());
        if let Some((slab, shape)) = slab
            && let Some(number) = slab.number_of(ground.platform(), &shape, object.as_ptr())
        {
            ground.damaged(self, slab.pfn, number);
        }
        let _ = object.into_raw();
    }

    pub(super) fn cell(&self, cpu: CpuId) -> Option<&OwnerCell<Magazine, Gauges>> {
        self.rooms.get()?.cells.cell(cpu)
    }
}
