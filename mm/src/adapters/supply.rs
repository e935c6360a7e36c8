//! Pages for areas of kernel addresses, by number.

use crate::addr::{Order, Pfn, to_count, to_index};
use crate::buddy::{Gfp, Request, Told};
use crate::frame::FrameTable;
use crate::kspace::{Pile, Supply};
use crate::mem::EarlyRam;
use crate::platform::{CpuId, Platform};
use crate::system::{AllocError, Core, Frames, Memory, TablesFor};

/// Pages that are asked for together.
const BATCH: usize = 64;
/// Smaller blocks are not worth a request of their own.
const LEAST: Order = match Order::new(2) {
    Some(order) => order,
    None => Order::MAX,
};

/// Few pages come in blocks of at most this order: such lie on lists of this CPU, and larger ones are cut out of others.
const LISTED: Order = match Order::new(3) {
    Some(order) => order,
    None => Order::MAX,
};
const FEW: u64 = 4 * LISTED.frames();

/// The machine, as areas see it.
pub(crate) struct Store<'m, P: Platform> {
    tables: TablesFor<'m, P>,
    core: &'m Core,
}

impl<'m, P: Platform> Store<'m, P> {
    /// `gfp` says what may be done to get memory for page tables and records.
    pub(crate) const fn new(memory: &'m Memory<P>, core: &'m Core, gfp: Gfp) -> Self {
        let tables = TablesFor::new(memory, gfp);
        Self { tables, core }
    }

    /// The machine.
    #[inline(always)]
    pub(crate) const fn machine(&self) -> &'m Memory<P> {
        self.tables.memory()
    }

    /// A page that lies anywhere.
    #[inline(always)]
    pub(crate) fn page(&self, gfp: Gfp) -> Result<Pile, AllocError> {
        let page = self.machine().alloc_pages(gfp, Order::ZERO)?;
        // SAFETY: it was handed out just now, as a number, and is nobody else's.
        Ok(unsafe { Pile::of_page(page) })
    }

    /// Pages that lie anywhere, in blocks of 2 MiB as long as these are asked for and there are any.
    pub(crate) fn pile(&self, wanted: Frames) -> Result<Pile, AllocError> {
        let mut pile = Pile::new();
        match self.fill(&mut pile, wanted) {
            Ok(()) => Ok(pile),
            Err(error) => {
                pile.release(self);
                Err(error)
            }
        }
    }

    /// Single pages or small blocks, one CPU's after the other: as many for each, from its own node as long as that has any.
    pub(crate) fn pile_by_cpu(
        &self,
        (cpus, each): (usize, u64),
        gfp: Gfp,
    ) -> Result<Pile, AllocError> {
        let mut pile = Pile::new();
        for cpu in (0..).map(CpuId).take(cpus) {
            let wanted = Frames {
                gfp,
                node: Some(self.machine().node_of(cpu)),
                count: pile.frames().saturating_add(each),
                huge: false,
            };
            if let Err(error) = self.fill(&mut pile, wanted) {
                pile.release(self);
                return Err(error);
            }
        }
        Ok(pile)
    }

    fn fill(&self, pile: &mut Pile, wanted: Frames) -> Result<(), AllocError> {
        let Frames {
            gfp, node, count, ..
        } = wanted;
        let huge = Order::PAGEBLOCK;
        while wanted.huge && count.saturating_sub(pile.frames()) >= huge.frames() {
            // A smaller one will do as well: no trouble for this.
            let trouble = Gfp::RECLAIM.union(Gfp::NOFAIL);
            let gfp = gfp.difference(trouble) | Gfp::NORETRY | Gfp::NOWARN;
            let block = match node {
                Some(node) => self.machine().alloc_pages_node(node, gfp, huge),
                None => self.machine().alloc_pages(gfp, huge),
            };
            let Ok(block) = block else { break };
            // SAFETY: it was handed out just now, as a number, and is nobody else's.
            unsafe { pile.push(&self.core.frames, block, huge) };
        }
        self.fill_in_blocks(pile, wanted);
        while pile.frames() < count {
            self.fill_singly(pile, wanted)?;
        }
        Ok(())
    }

    /// Adds blocks as large as fit and as there are without any trouble: one request for many pages, and one when they go
    /// back. What is missing then is to be had singly.
    fn fill_in_blocks(&self, pile: &mut Pile, wanted: Frames) {
        let trouble = Gfp::RECLAIM.union(Gfp::NOFAIL);
        let gfp = wanted.gfp.difference(trouble) | Gfp::NORETRY | Gfp::NOWARN;
        let mut most = match wanted.count <= FEW {
            true => LISTED,
            false => Order::PAGEBLOCK,
        };
        loop {
            let missing = wanted.count.saturating_sub(pile.frames());
            let order = Order::at_most(missing.max(1), most);
            if order < LEAST {
                return;
            }
            let block = match wanted.node {
                Some(node) => self.machine().alloc_pages_node(node, gfp, order),
                None => self.machine().alloc_pages(gfp, order),
            };
            match (block, order.down()) {
                // SAFETY: it was handed out just now, as a number, and is nobody else's.
                (Ok(block), _) => unsafe { pile.push(&self.core.frames, block, order) },
                (Err(_), Some(smaller)) => most = smaller,
                (Err(_), None) => return,
            }
        }
    }

    /// Adds a batch of single pages, or what is missing if that is less.
    fn fill_singly(&self, pile: &mut Pile, wanted: Frames) -> Result<(), AllocError> {
        if let Some(node) = wanted.node {
            let page = self
                .machine()
                .alloc_pages_node(node, wanted.gfp, Order::ZERO)?;
            // SAFETY: as above.
            unsafe { pile.push(&self.core.frames, page, Order::ZERO) };
            return Ok(());
        }
        let missing = wanted.count.saturating_sub(pile.frames());
        let mut pages = [None; BATCH];
        let part = pages.get_mut(..to_index(missing.min(to_count(BATCH))));
        let part = part.unwrap_or_default();
        let full = self.machine().alloc_pages_bulk(wanted.gfp, part)?;
        for page in part.iter().copied().flatten() {
            // SAFETY: as above.
            unsafe { pile.push(&self.core.frames, page, Order::ZERO) };
        }
        match full == part.len() {
            true => Ok(()),
            false => Err(AllocError::OutOfMemory),
        }
    }
}

impl<'m, P: Platform> Supply for Store<'m, P> {
    type P = P;
    type M = TablesFor<'m, P>;

    fn platform(&self) -> &P {
        self.machine().platform()
    }

    fn memory(&self) -> &TablesFor<'m, P> {
        &self.tables
    }

    fn frames(&self) -> &FrameTable {
        &self.core.frames
    }

    fn alloc_room(&self, bytes: u64) -> Option<EarlyRam> {
        let order = Order::for_bytes(bytes)?;
        let request = Request::new(self.tables.gfp(), order).ok()?;
        let machine = self.machine();
        let block = machine.alloc_request(&request, &mut Told(machine.platform()));
        Some(EarlyRam::from_block(block.ok()?))
    }

    fn records_grown(&self) {
        self.machine().note_areas(self.core, self.tables.gfp());
    }

    unsafe fn free_pages(&self, pages: &mut [Option<Pfn>]) {
        // SAFETY: the caller's word, passed on.
        while let Err((place, _)) = unsafe { self.machine().free_pages_bulk(pages) } {
            // Somebody wrote to its record: it stays out of use, and the others go back.
            if let Some(pfn) = pages.get_mut(place).and_then(Option::take) {
                self.machine().lose(pfn, Order::ZERO);
            }
        }
    }

    unsafe fn free_block(&self, first: Pfn, order: Order) {
        // SAFETY: the caller's word, passed on.
        if unsafe { self.machine().free_pages(first, order) }.is_err() {
            self.machine().lose(first, order);
        }
    }
}
