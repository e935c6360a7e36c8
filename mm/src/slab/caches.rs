//! All caches of a machine.
#![forbid(unsafe_code)]

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::SlabFlags;
use super::cache::{Cache, Rooms};
use super::debug::{NamePattern, Places, SlubDebug, Treatment};
use super::definition::{Ctor, Definition, Name};
use super::ground::Ground;
use super::kmalloc::{Family, SIZES, align_of, cache_for, cache_of};
use super::magazine::{Gauges, Magazine};
use super::object::follows;
use super::partial::Partial;
use super::shape::{Shape, ShapeError};
use crate::buddy::Gfp;
use crate::frame::Origin;
use crate::mem::{Array, CarveError, EarlyRam};
use crate::platform::Platform;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Once, OwnerCell, Pin, SpinLock, rank};

/// A cache that stays where it is for good.
type Kept = ManuallyDrop<Cache>;

/// Caches of `kmalloc`.
const KMALLOC: usize = SIZES.len() * Family::ALL.len();
/// Caches in a chunk.
const CHUNK: usize = 16;
/// Chunks, at most.
const CHUNKS: usize = 32;
/// Bytes between what CPUs have: none shares a line with another.
const LINE: u64 = 64;

/// Why there is no cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheError {
    /// Objects cannot be like that.
    Shape(ShapeError),
    /// There is no memory for what the cache needs itself.
    OutOfMemory,
    /// There are too many caches.
    TooMany,
    /// Memory is not up yet.
    NotUp,
    /// Pages cannot lie in two zones at once.
    Zones,
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape(ShapeError::Empty) => "objects have no size",
            Self::Shape(ShapeError::Align) => "no power of two up to a page, as an alignment is",
            Self::Shape(ShapeError::TooLarge) => {
                "objects are larger than the largest block of pages"
            }
            Self::OutOfMemory => "out of memory",
            Self::TooMany => "there are too many caches",
            Self::NotUp => "memory is not up yet",
            Self::Zones => "for the DMA and the DMA32 zone at once",
        })
    }
}

impl core::error::Error for CacheError {}

impl From<ShapeError> for CacheError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

/// Where objects may lie for the devices that they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    /// The highest address.
    pub(crate) mask: u64,
    /// No object lies across a multiple of it, unless it is 0.
    pub(crate) boundary: u64,
}

impl Reach {
    pub(crate) const ALL: Self = Self {
        mask: u64::MAX,
        boundary: 0,
    };
}

/// What whoever makes a cache says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) name: &'a str,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) flags: SlabFlags,
    pub(crate) ctor: Option<Ctor>,
    /// What devices reach that objects are for.
    pub(crate) reach: Reach,
}

impl<'a> Wish<'a> {
    /// Objects of so many bytes with an alignment, and nothing else.
    pub(crate) const fn new(
        name: &'a str,
        (size, align): (usize, usize),
        flags: SlabFlags,
    ) -> Self {
        Self {
            name,
            size,
            align,
            flags,
            ctor: None,
            reach: Reach::ALL,
        }
    }

    /// The flags that a cache has for good.
    fn flags(&self) -> SlabFlags {
        let mut own = SlabFlags::from_bits_truncate(self.flags.bits()).difference(SlabFlags::PANIC);
        if self.reach != Reach::ALL {
            own.insert(SlabFlags::SKIP_KFENCE);
        }
        match self.ctor {
            Some(_) => own | SlabFlags::CTOR,
            None => own,
        }
    }
}

/// What the machine's owner chose for objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// Words of free objects are encoded with what follows from it, and lie in an order that does.
    pub(crate) seed: u64,
    /// Which caches are debugged.
    pub(crate) debug: &'a SlubDebug,
    /// What is done to all objects.
    pub(crate) treatment: Treatment,
    /// Caches whose requests may fail on purpose.
    pub(crate) failing: Option<&'a NamePattern>,
}

impl Setup<'_> {
    /// What a cache of a name is debugged for.
    fn flags(&self, name: &str) -> SlabFlags {
        let fails = self.failing.is_some_and(|pattern| pattern.matches(name));
        let failing = if fails {
            SlabFlags::FAILSLAB
        } else {
            SlabFlags::empty()
        };
        self.debug.flags(name) | failing
    }
}

/// All caches: those of `kmalloc`, by number, then others.
#[derive(Debug)]
pub(crate) struct Caches {
    kmalloc: Array<Kept>,
    others: [Once<Array<Kept>>; CHUNKS],
    changes: SpinLock<()>,
    cpus: u32,
    nodes: usize,
    seed: u64,
    debug: SlubDebug,
    treatment: Treatment,
    failing: Option<NamePattern>,
    places: Places,
    made: AtomicU32,
    /// Times that somebody was found to have written to a free object.
    damaged: AtomicU64,
}

impl Caches {
    /// Bytes that [`Self::bring_up`] needs.
    pub(crate) fn bytes_for(cpus: u32, nodes: usize, setup: &Setup<'_>) -> Option<u64> {
        let each = rooms_bytes(cpus, nodes)?;
        let all = each.checked_mul(crate::addr::to_count(KMALLOC))?;
        let all = match setup.debug.may_store_users() {
            true => all.checked_add(Places::bytes())?,
            false => all,
        };
        all.checked_add(Array::<Kept>::bytes_for(KMALLOC)?.next_multiple_of(LINE))
    }

    /// The caches of `kmalloc`.
    ///
    /// # Errors
    /// [`CarveError`] if the memory cannot hold them.
    pub(crate) fn bring_up<P: Platform>(
        platform: &P,
        ram: EarlyRam,
        (cpus, nodes): (u32, usize),
        setup: &Setup<'_>,
    ) -> Result<Self, CarveError> {
        let bytes = Array::<Kept>::bytes_for(KMALLOC).unwrap_or(u64::MAX);
        let (own, mut rest) = ram.split_at(bytes.next_multiple_of(LINE));
        let kmalloc = Array::carve(platform, own, KMALLOC, |id| {
            Kept::new(Cache::unused(narrow(id)))
        })?;
        let caches = Self {
            kmalloc,
            others: [const { Once::new() }; CHUNKS],
            changes: SpinLock::new(rank::CACHES, ()),
            cpus,
            nodes,
            seed: setup.seed,
            debug: *setup.debug,
            treatment: setup.treatment,
            failing: setup.failing.copied(),
            places: Places::new(),
            made: AtomicU32::new(0),
            damaged: AtomicU64::new(0),
        };
        if setup.debug.may_store_users() {
            let (table, others) = rest.split_at(Places::bytes());
            rest = others;
            let table = Array::carve(platform, table, Places::COUNT, |_| Origin::default())?;
            caches.places.keep(table);
        }
        for family in Family::ALL {
            for size in SIZES {
                let (mine, others) = rest.split_at(rooms_bytes(cpus, nodes).unwrap_or(u64::MAX));
                rest = others;
                let cache = cache_of(size, family).and_then(|id| caches.kmalloc.get(id));
                let name = Name::new(&[family.name(), suffix(size)]);
                let layout = (size, align_of(size));
                let wish = Wish::new(name.as_str(), layout, family.flags());
                let shape = caches.shape::<P>(&wish, family.flags());
                let Some((cache, (shape, flags))) = cache.zip(shape.ok()) else {
                    continue;
                };
                let rooms = rooms_in(platform, mine, cpus, nodes)?;
                let _ = cache.rooms().set(rooms);
                let definition = Definition {
                    name,
                    shape,
                    flags,
                    ctor: None,
                    mask: Reach::ALL.mask,
                    secret: caches.secret::<P>(cache),
                };
                cache.definition().set(platform, &definition);
                cache.users().store(1, Ordering::Relaxed);
            }
        }
        Ok(caches)
    }

    /// The cache that serves `kmalloc` of a size; none if pages do.
    pub(crate) fn kmalloc(&self, size: usize, gfp: Gfp) -> Option<&Cache> {
        self.kmalloc.get(cache_for(size, gfp)?).map(Kept::deref)
    }

    /// The cache with a number.
    pub(crate) fn get(&self, id: u16) -> Option<&Cache> {
        match self.kmalloc.get(usize::from(id)) {
            Some(cache) => Some(&**cache),
            None => self.other(usize::from(id).wrapping_sub(KMALLOC)),
        }
    }

    fn other(&self, place: usize) -> Option<&Cache> {
        let chunk = self.others.get(place / CHUNK)?.get()?;
        chunk.get(place % CHUNK).map(Kept::deref)
    }

    /// All that are defined. Context: any.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cache> {
        let all = self.kmalloc.iter().map(Kept::deref).chain(self.made());
        all.filter(|cache| cache.has_users())
    }

    /// All places for caches but those of `kmalloc`, so far.
    fn made(&self) -> impl Iterator<Item = &Cache> {
        let chunks = self.others.iter().filter_map(Once::get);
        chunks.flat_map(|chunk| chunk.iter()).map(Kept::deref)
    }

    /// Whether there was any damage.
    pub(crate) fn has_damage(&self) -> bool {
        self.damaged.load(Ordering::Relaxed) > 0
    }

    /// Takes note of damage.
    pub(crate) fn note_damage(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// A secret for a cache, unlike those of others.
    fn secret<P: Platform>(&self, cache: &Cache) -> u64 {
        if !P::PROFILE.is_hardened() {
            return 0;
        }
        let number = u64::from(self.made.fetch_add(1, Ordering::Relaxed));
        follows(self.seed ^ (number << 16 | u64::from(cache.id())))
    }

    /// Makes a cache, or finds one that is like it. Context: task.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn create<G: Ground>(
        &self,
        ground: &G,
        wish: Wish<'_>,
    ) -> Result<&Cache, CacheError> {
        let flags = wish.flags();
        if flags.contains(SlabFlags::CACHE_DMA | SlabFlags::CACHE_DMA32) {
            return Err(CacheError::Zones);
        }
        let (shape, flags) = self.shape::<G::P>(&wish, flags)?;
        let shape = shape.within(wish.reach.boundary, wish.align)?;
        if flags.contains(SlabFlags::STORE_USER) {
            self.keep_places(ground)?;
        }
        loop {
            let changes = self.changes.lock(ground.platform());
            if let Some(cache) = self.like(shape, flags) {
                cache.users().fetch_add(1, Ordering::AcqRel);
                return Ok(cache);
            }
            if let Some(cache) = self.spare() {
                let definition = Definition {
                    name: Name::new(&[wish.name]),
                    shape,
                    flags,
                    ctor: wish.ctor,
                    mask: wish.reach.mask,
                    secret: self.secret::<G::P>(cache),
                };
                cache.definition().set(ground.platform(), &definition);
                cache.users().store(1, Ordering::Release);
                return Ok(cache);
            }
            drop(changes);
            self.make_room(ground)?;
        }
    }

    /// The shape of a cache, and its flags with what the command line says.
    fn shape<P: Platform>(
        &self,
        wish: &Wish<'_>,
        own: SlabFlags,
    ) -> Result<(Shape, SlabFlags), ShapeError> {
        let Wish { size, align, .. } = *wish;
        // Nothing is written to objects that keep what is in them, and none lies across a boundary.
        if own.keep_contents() || wish.reach.boundary != 0 {
            let own = own.difference(SlabFlags::DEBUG);
            return Ok((Shape::new(size, align, own)?, own));
        }
        let setup = Setup {
            seed: self.seed,
            debug: &self.debug,
            treatment: self.treatment,
            failing: self.failing.as_ref(),
        };
        let flags = own | setup.flags(wish.name);
        let plain = Shape::new(size, align, own)?;
        // Without hardening, the short way treats no objects, so they all go the long one.
        let is_treated = self.treatment != Treatment::default() && !P::PROFILE.is_hardened();
        if !is_treated && !flags.intersects(SlabFlags::DEBUG) {
            return Ok((plain, flags));
        }
        let guarded = Shape::guarded(size, align, flags)?;
        let is_spared = self.debug.spares_orders() && guarded.least_order() > plain.least_order();
        match is_spared && !is_treated && !own.intersects(SlabFlags::DEBUG) {
            true => Ok((plain, own)),
            false => Ok((guarded, flags)),
        }
    }

    /// Makes the table of places that objects are allocated at, if there is none.
    fn keep_places<G: Ground>(&self, ground: &G) -> Result<(), CacheError> {
        self.make(
            ground,
            Some(Places::bytes()),
            || self.places.are_kept(),
            |ram| {
                let carved =
                    Array::carve(ground.platform(), ram, Places::COUNT, |_| Origin::default());
                carved.map(|table| self.places.keep(table))
            },
        )
    }

    /// Makes something of so many bytes, unless it is there: by then somebody else may have made it, and the
    /// memory goes back.
    fn make<G: Ground>(
        &self,
        ground: &G,
        bytes: Option<u64>,
        is_there: impl Fn() -> bool,
        of: impl FnOnce(EarlyRam) -> Result<(), CarveError>,
    ) -> Result<(), CacheError> {
        if is_there() {
            return Ok(());
        }
        let block = bytes.and_then(|bytes| ground.alloc_room(bytes));
        let block = block.ok_or(CacheError::OutOfMemory)?;
        let changes = self.changes.lock(ground.platform());
        if is_there() {
            drop(changes);
            ground.free_slab(block);
            return Ok(());
        }
        of(EarlyRam::from_block(block)).map_err(|_| CacheError::OutOfMemory)
    }

    /// Who allocates and frees, if anybody keeps that.
    pub(crate) fn places(&self) -> Option<&Places> {
        Some(&self.places).filter(|places| places.are_kept())
    }

    /// What is done to all objects.
    #[inline(always)]
    pub(crate) const fn treatment(&self) -> Treatment {
        self.treatment
    }

    /// A cache that objects can share with those of another (Linux: `find_mergeable`).
    fn like(&self, shape: Shape, flags: SlabFlags) -> Option<&Cache> {
        if flags.never_merge() {
            return None;
        }
        self.iter()
            .find(|cache| cache.shape() == Some(shape) && cache.definition().flags() == flags)
    }

    /// A cache that nobody uses, with what it needs.
    fn spare(&self) -> Option<&Cache> {
        let mut ready = self.made().filter(|cache| cache.rooms().get().is_some());
        ready.find(|cache| cache.users().load(Ordering::Acquire) == 0)
    }

    /// Gets what one more cache needs. It stays for good: caches that are given up make room for others.
    fn make_room<G: Ground>(&self, ground: &G) -> Result<(), CacheError> {
        let found = self.made().find(|cache| cache.rooms().get().is_none());
        let Some(cache) = found else {
            let mut chunks = (0..).zip(&self.others);
            let next = chunks.find(|(_, chunk)| chunk.get().is_none());
            let (place, chunk) = next.ok_or(CacheError::TooMany)?;
            let first = KMALLOC.wrapping_add(CHUNK.wrapping_mul(place));
            return self.make(
                ground,
                Array::<Kept>::bytes_for(CHUNK),
                || chunk.get().is_some(),
                |ram| {
                    let caches = Array::carve(ground.platform(), ram, CHUNK, |each| {
                        Kept::new(Cache::unused(narrow(first.wrapping_add(each))))
                    })?;
                    let _ = chunk.set(caches);
                    Ok(())
                },
            );
        };
        self.make(
            ground,
            rooms_bytes(self.cpus, self.nodes),
            || cache.rooms().get().is_some(),
            |ram| {
                let rooms = rooms_in(ground.platform(), ram, self.cpus, self.nodes)?;
                let _ = cache.rooms().set(rooms);
                ground.make_way(cache);
                Ok(())
            },
        )
    }

    /// Gives a handle up; the last one ends the cache. All objects must have come back: what CPUs have at
    /// hand was drained before. Context: task.
    ///
    /// # Errors
    /// How many objects are not back, if it was the last handle; it stays then.
    pub(crate) fn give_up<G: Ground>(&self, ground: &G, cache: &Cache) -> Result<(), u64> {
        let _changes = self.changes.lock(ground.platform());
        let users = cache.users().load(Ordering::Acquire);
        if users > 1 {
            cache
                .users()
                .store(users.wrapping_sub(1), Ordering::Release);
            return Ok(());
        }
        let stats = cache.stats(ground.platform());
        if stats.slabs > 0 || cache.is_open_anywhere() {
            return Err(stats.active_objects.saturating_add(stats.at_hand).max(1));
        }
        cache.users().store(0, Ordering::Release);
        Ok(())
    }

    /// Gives all empty slabs back. Answers how many pages they were. Context: any but NMI; no lock held.
    pub(crate) fn shrink<G: Ground>(&self, ground: &G) -> u64 {
        let pages = self.iter().map(|cache| cache.shrink(ground));
        pages.fold(0, u64::saturating_add)
    }

    /// Has this CPU do for all caches what others asked of it. Context: any but NMI.
    pub(crate) fn serve<G: Ground>(&self, ground: &G, pin: &Pin<'_, G::P>) {
        let open = |cache: &&Cache| !cache.is_drained(pin.cpu());
        self.iter()
            .filter(open)
            .for_each(|cache| cache.serve(ground, pin));
    }
}

/// What the CPUs and nodes of one cache need.
fn rooms_bytes(cpus: u32, nodes: usize) -> Option<u64> {
    let cpus = usize::try_from(cpus).ok()?;
    let cells = Array::<OwnerCell<Magazine, Gauges>>::bytes_for(cpus)?;
    let parts = Array::<SpinLock<Partial>>::bytes_for(nodes)?;
    cells.checked_add(parts)?.checked_next_multiple_of(LINE)
}

fn rooms_in<P: Platform>(
    platform: &P,
    ram: EarlyRam,
    cpus: u32,
    nodes: usize,
) -> Result<Rooms, CarveError> {
    let cpus = usize::try_from(cpus).unwrap_or(usize::MAX);
    let bytes = Array::<OwnerCell<Magazine, Gauges>>::bytes_for(cpus).unwrap_or(u64::MAX);
    let (cells, parts) = ram.split_at(bytes);
    let cells = Array::carve(platform, cells, cpus, Rooms::cell)?;
    let parts = Array::carve(platform, parts, nodes, Rooms::node)?;
    Ok(Rooms::new(cells, parts))
}

fn narrow(id: usize) -> u16 {
    u16::try_from(id).unwrap_or(u16::MAX)
}

/// What a cache's name says of its size.
const fn suffix(size: usize) -> &'static str {
    match size {
        8 => "8",
        16 => "16",
        32 => "32",
        64 => "64",
        96 => "96",
        128 => "128",
        192 => "192",
        256 => "256",
        512 => "512",
        1024 => "1k",
        2048 => "2k",
        4096 => "4k",
        _ => "8k",
    }
}
