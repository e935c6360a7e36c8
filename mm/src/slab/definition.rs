//! What a cache is. It changes only while the cache has neither users nor slabs.
#![forbid(unsafe_code)]

use super::SlabFlags;
use super::object::Code;
use super::shape::Shape;
use crate::addr::Pfn;
use crate::buddy::Gfp;
use crate::platform::{Platform, Profile};
pub(crate) use crate::report::CacheName as Name;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{SpinLock, rank};

/// What makes an object of bytes: called once for each when its slab is made, and never again, however often the
/// object is handed out. Context: as the allocation that the slab is made for.
pub type Ctor = fn(&mut [u8]);

/// What a cache is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub(super) name: Name,
    pub(super) shape: Shape,
    pub(super) flags: SlabFlags,
    pub(super) ctor: Option<Ctor>,
    /// The highest address that slabs may reach.
    pub(super) mask: u64,
    /// Known here and nowhere else: how words of free objects are encoded, and where their order comes from.
    /// Neither, if it is 0.
    pub(super) secret: u64,
}

/// The place of a [`Definition`], to be read without a lock.
#[derive(Debug)]
pub(super) struct Place {
    name: SpinLock<(Name, Option<Ctor>)>,
    /// What [`Shape::words`] says; nothing while there is no definition.
    shape: [AtomicU64; 3],
    flags: AtomicU32,
    mask: AtomicU64,
    secret: AtomicU64,
}

impl Place {
    pub(super) const fn new() -> Self {
        Self {
            name: SpinLock::new(rank::SLAB, (Name::NONE, None)),
            shape: [const { AtomicU64::new(0) }; 3],
            flags: AtomicU32::new(0),
            mask: AtomicU64::new(u64::MAX),
            secret: AtomicU64::new(0),
        }
    }

    /// Changes it. Context: the cache has neither users nor slabs.
    pub(super) fn set<P: Platform>(&self, platform: &P, definition: &Definition) {
        *self.name.lock(platform) = (definition.name, definition.ctor);
        self.flags.store(definition.flags.bits(), Ordering::Relaxed);
        self.mask.store(definition.mask, Ordering::Relaxed);
        self.secret.store(definition.secret, Ordering::Relaxed);
        for (place, word) in self.shape.iter().zip(definition.shape.words()) {
            place.store(word, Ordering::Release);
        }
    }

    pub(super) fn name<P: Platform>(&self, platform: &P) -> Name {
        self.name.lock(platform).0
    }

    pub(super) fn ctor<P: Platform>(&self, platform: &P) -> Option<Ctor> {
        self.name.lock(platform).1
    }

    /// The name, unless somebody is just at it. Context: any.
    pub(super) fn name_at_once<P: Platform>(&self, platform: &P) -> Name {
        self.name
            .try_lock(platform)
            .map_or(Name::NONE, |known| known.0)
    }

    #[inline(always)]
    pub(super) fn shape(&self) -> Option<Shape> {
        let [low, high, divider] = &self.shape;
        Shape::from_words([
            low.load(Ordering::Acquire),
            high.load(Ordering::Acquire),
            divider.load(Ordering::Acquire),
        ])
    }

    pub(super) fn flags(&self) -> SlabFlags {
        SlabFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// The highest address that slabs may reach.
    pub(super) fn mask(&self) -> u64 {
        self.mask.load(Ordering::Relaxed)
    }

    /// How words of free objects are encoded.
    #[inline(always)]
    pub(super) fn code<P: Platform>(&self) -> Code {
        match P::PROFILE {
            Profile::Plain => Code::new(P::PROFILE, 0),
            _ => Code::new(P::PROFILE, self.secret.load(Ordering::Relaxed)),
        }
    }

    /// From what the order of the objects of a new slab follows; nothing if it is that of their places.
    pub(super) fn order_seed(&self, slab: Pfn) -> Option<u64> {
        match self.secret.load(Ordering::Relaxed) {
            0 => None,
            secret => Some(secret ^ slab.as_u64()),
        }
    }

    /// How pages for slabs are asked for on behalf of a request for an object.
    pub(super) fn gfp(&self, gfp: Gfp) -> Gfp {
        let place = Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::RECLAIMABLE;
        let mut gfp = gfp.difference(place | Gfp::ZERO | Gfp::ACCOUNT | Gfp::COLD);
        for (flag, bit) in [
            (SlabFlags::CACHE_DMA, Gfp::DMA),
            (SlabFlags::CACHE_DMA32, Gfp::DMA32),
            (SlabFlags::RECLAIM_ACCOUNT, Gfp::RECLAIMABLE),
        ] {
            if self.flags().contains(flag) {
                gfp.insert(bit);
            }
        }
        gfp
    }
}
