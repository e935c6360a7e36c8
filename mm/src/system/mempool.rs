//! Pools with a guaranteed reserve (Linux: `mempool_t`): what must make progress when memory is short, such as writing
//! pages out to free them, has elements of its own that come back.
#![forbid(unsafe_code)]

use core::array;
use core::fmt;

use super::{AllocError, Block, Home, KBytes, KmemCache, Pooled};
use crate::addr::Order;
use crate::buddy::Gfp;
use crate::platform::Platform;
use crate::sync::{SpinLock, rank};

/// Where a pool's elements come from. An element that is dropped goes back there.
pub trait Elements {
    /// How the memory is found.
    type H: Home;
    /// What is handed out: it owns its memory.
    type Element;

    /// How the memory is found. Context: any.
    fn home(&self) -> Self::H;

    /// Allocates one. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    fn alloc(&self, gfp: Gfp) -> Result<Self::Element, AllocError>;
}

/// So many bytes of `kmalloc` (Linux: `mempool_create_kmalloc_pool`).
#[derive(Clone, Copy, Debug)]
pub struct KmallocElements<H: Home> {
    /// Whose memory.
    pub home: H,
    /// How many bytes an element has.
    pub bytes: usize,
}

/// Blocks of pages (Linux: `mempool_create_page_pool`).
#[derive(Clone, Copy, Debug)]
pub struct PageElements<H: Home> {
    /// Whose memory.
    pub home: H,
    /// How large an element is.
    pub order: Order,
}

impl<H: Home> Elements for KmallocElements<H> {
    type H = H;
    type Element = KBytes<H>;

    fn home(&self) -> H {
        self.home
    }

    fn alloc(&self, gfp: Gfp) -> Result<KBytes<H>, AllocError> {
        KBytes::alloc(self.home, self.bytes, gfp)
    }
}

impl<H: Home> Elements for PageElements<H> {
    type H = H;
    type Element = Block<H>;

    fn home(&self) -> H {
        self.home
    }

    fn alloc(&self, gfp: Gfp) -> Result<Block<H>, AllocError> {
        Block::alloc(self.home, gfp, self.order)
    }
}

/// Objects of a cache (Linux: `mempool_create_slab_pool`).
impl<H: Home> Elements for KmemCache<H> {
    type H = H;
    type Element = KBytes<H>;

    fn home(&self) -> H {
        Self::home(self)
    }

    fn alloc(&self, gfp: Gfp) -> Result<KBytes<H>, AllocError> {
        self.alloc_bytes(gfp)
    }
}

/// Elements of which `N` are never somebody else's: they are with the pool, or with those who got them from it.
pub struct Mempool<E: Elements, const N: usize> {
    source: E,
    reserve: SpinLock<[Option<E::Element>; N]>,
}

impl<E: Elements, const N: usize> Mempool<E, N> {
    /// A pool with a full reserve (Linux: `mempool_create`). Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(source: E, gfp: Gfp) -> Result<Self, AllocError> {
        let mut reserve = array::from_fn(|_| None);
        for place in &mut reserve {
            *place = Some(source.alloc(gfp)?);
        }
        Ok(Self {
            source,
            reserve: SpinLock::new(rank::MEMPOOL, reserve),
        })
    }

    /// Hands out an element: a new one if that is easy, one of the reserve otherwise. Where the flags and the
    /// context allow to sleep, this cannot fail: it goes on until there is memory or somebody gives an element back
    /// (Linux: `mempool_alloc`). Elements of the reserve hold what was in them; [`Gfp::ZERO`] is ignored. Context: as the
    /// flags say; any but NMI.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] where the caller may not sleep and the reserve is empty; flags that contradict each other.
    pub fn alloc(&self, gfp: Gfp) -> Result<Pooled<'_, E, N>, AllocError> {
        let gfp =
            gfp.difference(Gfp::ZERO | Gfp::NOFAIL | Gfp::MEMALLOC) | Gfp::NOWARN | Gfp::NOMEMALLOC;
        let home = self.source.home();
        let platform = home.memory().platform();
        let may_sleep = gfp.contains(Gfp::DIRECT_RECLAIM) && platform.may_sleep();
        // The reserve is there for what is not easy.
        let mut now = gfp.difference(Gfp::DIRECT_RECLAIM | Gfp::IO | Gfp::FS);
        let mut rounds: u32 = 0;
        loop {
            match self.source.alloc(now) {
                Ok(element) => return Ok(self.pooled(element)),
                Err(AllocError::OutOfMemory | AllocError::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            if let Some(element) = self.take() {
                return Ok(self.pooled(element));
            }
            if !may_sleep {
                return Err(AllocError::OutOfMemory);
            }
            // Nobody gives up here: an element comes back some time.
            now = gfp | Gfp::NORETRY;
            rounds = match platform.relax(rounds) {
                true => rounds.saturating_add(1),
                false => 0,
            };
            platform.reschedule();
        }
    }

    const fn pooled(&self, element: E::Element) -> Pooled<'_, E, N> {
        Pooled::new(element, self)
    }

    fn take(&self) -> Option<E::Element> {
        let home = self.source.home();
        let mut reserve = self.reserve.lock(home.memory().platform());
        reserve.iter_mut().find_map(Option::take)
    }

    /// Fills the reserve first; what it has no room for goes back where it came from.
    pub(crate) fn put(&self, element: E::Element) {
        let home = self.source.home();
        let mut reserve = self.reserve.lock(home.memory().platform());
        let place = reserve.iter_mut().find(|place| place.is_none());
        let left = match place {
            Some(place) => {
                *place = Some(element);
                None
            }
            None => Some(element),
        };
        // Its memory is freed without the lock.
        drop(reserve);
        drop(left);
    }

    /// How many elements of the reserve are with the pool. Context: any but NMI.
    pub fn in_reserve(&self) -> usize {
        let home = self.source.home();
        let reserve = self.reserve.lock(home.memory().platform());
        reserve.iter().flatten().count()
    }

    /// Ends the pool: its reserve goes back, and where elements come from is handed out (Linux: `mempool_destroy`). All
    /// elements are back: each borrows the pool. Context: any but NMI.
    pub fn into_source(self) -> E {
        self.source
    }
}

impl<E: Elements, const N: usize> fmt::Debug for Mempool<E, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool")
            .field("reserve", &N)
            .finish_non_exhaustive()
    }
}
