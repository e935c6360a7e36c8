//! Memory of which each CPU has a copy, on this machine's pages.
#![forbid(unsafe_code)]

use core::panic::Location;
use core::ptr::NonNull;

use super::vmalloc::mapped_area;
use super::{AllocError, Core, ExactError, Memory};
use crate::adapters::Store;
use crate::addr::{PfnRange, VirtAddr, to_count};
use crate::buddy::Gfp;
use crate::config::PAGE_SIZE;
use crate::kspace::percpu::front::{self, Front, Gauges};
use crate::kspace::percpu::{Backing, BadPerCpuFree, PerCpuError, PerCpuStats};
use crate::kspace::raw::percpu::{Geometry, Ground, MappedArea, Piece, Units};
use crate::kspace::{Area, AreaKind, Space, Supply, Wanted};
use crate::mem::Exclusive;
use crate::platform::{CpuId, Platform};
use crate::report::Corruption;
use crate::sync::{OwnerCell, Pin, Seized};

/// Chunks in areas of their own (Linux: `percpu-vm.c`), whose records say which chunk they are; or in the direct map, in one
/// block each (Linux: `percpu-km.c`), where the private words of the frames of CPU 0's unit say so.
struct Grounds<'m, P: Platform> {
    memory: &'m Memory<P>,
    core: &'m Core,
    gfp: Gfp,
}

impl<P: Platform> Backing for Grounds<'_, P> {
    type P = P;

    fn platform(&self) -> &P {
        &self.memory.platform
    }

    fn pages(&self, bytes: usize) -> Result<Exclusive, PerCpuError> {
        let run = self.memory.alloc_pages_exact(self.gfp, to_count(bytes));
        let run = run.map_err(|error| match error {
            ExactError::Alloc(AllocError::Flags(error)) => PerCpuError::Flags(error),
            ExactError::Alloc(_) | ExactError::Empty | ExactError::TooLarge => {
                PerCpuError::OutOfMemory
            }
        })?;
        run.into_frames().ok_or(PerCpuError::OutOfMemory)
    }

    fn give_back(&self, pages: Exclusive) {
        self.memory.release_run(self.core, pages);
    }

    fn area(&self, geometry: Geometry) -> Option<MappedArea> {
        let may_sleep = self.gfp.contains(Gfp::DIRECT_RECLAIM) && self.memory.platform.may_sleep();
        let area = may_sleep.then(|| self.memory.percpu_area(geometry, self.gfp));
        area.flatten()
    }

    fn end_area(&self, area: MappedArea) {
        self.memory.end_percpu_area(area.area());
    }

    fn set_chunk(&self, units: &Units, unit: usize, chunk: Option<u32>) {
        let frames = match units.ground() {
            Ground::Frames(frames) => frames.frames().iter(),
            Ground::Area(area) => return area.area().set_chunk(chunk),
        };
        for pfn in frames.take(crate::addr::to_index(to_count(unit).div_ceil(PAGE_SIZE))) {
            // A block has one word for all of its frames; there may be several blocks.
            if let Some(head) = self.core.frames.head(pfn) {
                let number = chunk.map_or(0, |chunk| u64::from(chunk).saturating_add(1));
                head.frame().set_private(number);
            }
        }
    }

    fn chunk_of(&self, first: NonNull<u8>) -> Option<u32> {
        let at = VirtAddr::from_ptr(first.as_ptr());
        if let Some((space, _)) = self.memory.percpu_space(Gfp::KERNEL)
            && space.range().contains(at)
        {
            return space.containing(&self.memory.platform, at)?.chunk();
        }
        let at = self.memory.platform.virt_to_phys(at)?;
        let head = self.core.frames.head(at.frame())?;
        u32::try_from(head.frame().private().checked_sub(1)?).ok()
    }
}

impl<P: Platform> Memory<P> {
    const fn grounds<'m>(&'m self, core: &'m Core, gfp: Gfp) -> Grounds<'m, P> {
        Grounds {
            memory: self,
            core,
            gfp,
        }
    }

    /// Allocates `size` bytes with an alignment for every CPU there can be, zeroed (Linux: `alloc_percpu_gfp`).
    /// Answers CPU 0's copy; another CPU's is [`Self::percpu_offset`] bytes further on. They go back by
    /// [`Memory::free_percpu`]; [`PerCpuBox`](super::PerCpuBox) does that by itself. Sizes of 4, 8, 16, 32 and 64 bytes
    /// are handed out again by the CPU that gave them back, without a lock. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`PerCpuError`]; nothing is changed then.
    #[inline(always)]
    pub fn alloc_percpu(
        &self,
        (size, align): (usize, usize),
        gfp: Gfp,
    ) -> Result<NonNull<u8>, PerCpuError> {
        if let Some((mut piece, bytes, geometry)) = self.percpu_at_hand((size, align)) {
            piece.zero_expected(bytes, geometry);
            return Ok(piece.into_raw());
        }
        self.alloc_percpu_slow((size, align), gfp)
    }

    /// A piece that this CPU has at hand, and how large it is.
    #[inline(always)]
    fn percpu_at_hand(&self, (size, align): (usize, usize)) -> Option<(Piece, u32, Geometry)> {
        let bytes = u32::try_from(size).ok()?;
        let class = front::class_of(bytes)?;
        // Alignments that are none go the longer way, which says so.
        if align > size || !align.is_power_of_two() {
            return None;
        }
        let core = self.core()?;
        let pin = Pin::new(&self.platform);
        let mut own = core.percpu.fronts().enter(&pin)?;
        let (front, gauges) = own.parts();
        let piece = front.pop(class, gauges);
        if own.leave() {
            self.serve_drains_here();
        }
        drop(pin);
        Some((piece?, bytes, core.percpu.geometry()))
    }

    #[cold]
    #[inline(never)]
    fn alloc_percpu_slow(
        &self,
        layout: (usize, usize),
        gfp: Gfp,
    ) -> Result<NonNull<u8>, PerCpuError> {
        let core = self.core().ok_or(PerCpuError::NotUp)?;
        let ask = core.percpu.ask(layout)?;
        // Copies are zeroed one by one, and chunks never move.
        let gfp = gfp.difference(Gfp::ZERO | Gfp::MOVABLE) | Gfp::NOWARN;
        let mut piece = core.percpu.alloc(&self.grounds(core, gfp), &ask)?;
        piece.zero(core.percpu.geometry());
        Ok(piece.into_raw())
    }

    /// Keeps a piece at hand of this CPU, or takes it back into its chunk.
    ///
    /// # Errors
    /// Why it is none.
    #[inline(always)]
    pub(crate) fn put_percpu(&self, piece: Piece) -> Result<(), BadPerCpuFree> {
        let Some(class) = front::class_of(piece.bytes()).filter(|_| !P::PROFILE.is_debug()) else {
            return self.put_percpu_slow(piece);
        };
        match self.keep_percpu(class, piece) {
            Ok(()) => Ok(()),
            Err(piece) => self.put_percpu_slow(piece),
        }
    }

    #[inline(always)]
    fn keep_percpu(&self, class: usize, piece: Piece) -> Result<(), Piece> {
        let Some(core) = self.core() else {
            return Err(piece);
        };
        let pin = Pin::new(&self.platform);
        let Some(mut own) = core.percpu.fronts().enter(&pin) else {
            return Err(piece);
        };
        let (front, gauges) = own.parts();
        let kept = match P::PROFILE.is_hardened() && front.has(class, &piece) {
            true => Err(piece),
            false => front.push(class, piece, gauges),
        };
        if own.leave() {
            self.serve_drains_here();
        }
        drop(pin);
        kept
    }

    /// Takes a piece back into its chunk, with others that this CPU has too many of. In the debug profile it is
    /// looked at before it is kept.
    #[cold]
    #[inline(never)]
    fn put_percpu_slow(&self, piece: Piece) -> Result<(), BadPerCpuFree> {
        let core = self.core().ok_or(BadPerCpuFree::NotPerCpu)?;
        let backing = self.grounds(core, Gfp::NOWAIT);
        let class = front::class_of(piece.bytes());
        if let Some(class) = class {
            core.percpu.check(&backing, &piece)?;
            if self.is_at_hand(core, class, &piece) {
                return Err(BadPerCpuFree::NoObject);
            }
        }
        let kept = match class {
            Some(class) if P::PROFILE.is_debug() => self.keep_percpu(class, piece),
            _ => Err(piece),
        };
        match kept {
            Ok(()) => Ok(()),
            Err(piece) => core.percpu.free(&backing, piece).map_err(|(_, why)| why),
        }
    }

    /// Whether this CPU has it at hand already.
    fn is_at_hand(&self, core: &Core, class: usize, piece: &Piece) -> bool {
        let pin = Pin::new(&self.platform);
        let Some(mut own) = core.percpu.fronts().enter(&pin) else {
            return false;
        };
        let (front, _) = own.parts();
        let found = front.has(class, piece);
        if own.leave() {
            self.serve_drains_here();
        }
        found
    }

    /// Areas for what each CPU has a copy of, if the kernel's layout has a region for them.
    pub(super) fn percpu_space(&self, gfp: Gfp) -> Option<(&Space, Store<'_, P>)> {
        let core = self.core()?;
        let space = self.percpu.get()?;
        Some((space, Store::new(self, core, gfp)))
    }

    /// An area for a chunk, in which each CPU's unit is made of pages of its own node as long as that has any.
    pub(crate) fn map_percpu_area(&self, geometry: Geometry, gfp: Gfp) -> Option<&'static Area> {
        let (space, supply) = self.percpu_space(gfp)?;
        self.note_lazy_use();
        // Who gave some up where it could not sleep has left that to others.
        self.purge_percpu();
        let unit = to_count(geometry.unit) / PAGE_SIZE;
        let pile = supply.pile_by_cpu((geometry.cpus, unit), gfp).ok()?;
        let wanted = Wanted {
            asked: to_count(geometry.bytes()),
            pages: pile.frames(),
            align: PAGE_SIZE,
            kind: AreaKind::PerCpu,
            place: Location::caller(),
        };
        let area = mapped_area(space, &supply, &wanted, pile).ok()?;
        let mut at = area.start();
        for (pfn, order) in area.blocks(supply.frames()) {
            let frames = PfnRange::block(pfn, order);
            self.platform.percpu_mapped(at, frames);
            at = at.checked_add(order.bytes()).unwrap_or(at);
        }
        Some(area)
    }

    /// Ends such an area: its pages go back now, or with a purge where nobody may sleep.
    fn end_percpu_area(&self, area: &'static Area) {
        let Some((space, supply)) = self.percpu_space(Gfp::KERNEL) else {
            return;
        };
        if area.end(AreaKind::PerCpu) {
            let _ = space.retire(&supply, area, AreaKind::PerCpu);
        }
        self.purge_soon(space, &supply);
    }

    /// Gives pages of such areas back that wait for it. Answers how many areas those were.
    pub(super) fn purge_percpu(&self) -> u64 {
        let Some((space, supply)) = self.percpu_space(Gfp::KERNEL) else {
            return 0;
        };
        match space.lazy_pages() {
            (0, _) => 0,
            _ => space.purge(&supply).unwrap_or(0),
        }
    }

    /// What leads from CPU 0's copy of anything to another CPU's, in bytes (Linux: `per_cpu_offset`); the same for
    /// all objects. Nothing before memory is up, and for CPUs that there are no copies for. Context: any.
    #[must_use]
    pub fn percpu_offset(&self, cpu: CpuId) -> Option<usize> {
        let Geometry { cpus, unit } = self.core()?.percpu.geometry();
        let cpu = usize::try_from(cpu.0).ok().filter(|cpu| *cpu < cpus)?;
        cpu.checked_mul(unit)
    }

    /// What there are copies of for each CPU, in numbers; nothing before memory is up. Context: any but NMI.
    #[must_use]
    pub fn percpu_stats(&self) -> PerCpuStats {
        self.core().map_or_else(PerCpuStats::default, |core| {
            core.percpu.stats(&self.platform)
        })
    }

    /// Takes back what CPUs have at hand, and gives chunks without objects to the page allocator. Answers how many
    /// chunks those were. Context: task.
    pub fn shrink_percpu(&self) -> usize {
        let Some(core) = self.core() else { return 0 };
        let _ = self.drain_percpu(core);
        let chunks = core.percpu.shrink(&self.grounds(core, Gfp::NOWAIT));
        self.purge_percpu();
        chunks
    }

    /// The same without waiting for anybody: of this CPU and of those that are away. Answers how many pages those
    /// were. Context: any but NMI.
    pub(super) fn shrink_percpu_here(&self, core: &Core) -> u64 {
        let pin = Pin::new(&self.platform);
        self.spill_percpu_here(core, &pin);
        let here = pin.cpu();
        drop(pin);
        for cpu in core.cpus.presence.cpus().filter(|cpu| *cpu != here) {
            let _ = self.take_if_away(core, cpu, |seized| self.spill_percpu_of(core, seized));
        }
        let chunks = core.percpu.shrink(&self.grounds(core, Gfp::NOWAIT));
        let pages = to_count(core.percpu.geometry().bytes()) / PAGE_SIZE;
        pages.saturating_mul(to_count(chunks))
    }

    /// Recounts what each CPU has a copy of. Context: task.
    ///
    /// # Errors
    /// The first [`Corruption`].
    pub fn validate_percpu(&self) -> Result<(), Corruption> {
        self.core()
            .map_or(Ok(()), |core| core.percpu.validate(&self.platform))
    }

    /// Has all CPUs give back what they have at hand. Answers whether all did.
    fn drain_percpu(&self, core: &Core) -> bool {
        let pin = Pin::new(&self.platform);
        self.spill_percpu_here(core, &pin);
        let here = pin.cpu();
        drop(pin);
        let cell = |cpu| core.percpu.fronts().cell(cpu);
        let take = |seized: &Seized<'_>| self.spill_percpu_of(core, seized);
        let want = |cpu| {
            let cell = cell(cpu).filter(|cell| cell.shared().count() > 0);
            cell.inspect(|cell| cell.want_drain()).is_some()
        };
        self.drain_others((core, here), take, want, |cpu| {
            cell(cpu).is_none_or(OwnerCell::is_drained)
        })
    }

    /// Takes back what a CPU that is away has at hand. `false` if it left in the midst of using it.
    fn spill_percpu_of(&self, core: &Core, seized: &Seized<'_>) -> bool {
        let fronts = core.percpu.fronts();
        fronts.with_seized(seized, |front, gauges| self.spill(core, front, gauges))
    }

    /// Takes back what this CPU has at hand.
    fn spill_percpu_here(&self, core: &Core, pin: &Pin<'_, P>) {
        if let Some(cell) = core.percpu.fronts().cell(pin.cpu()) {
            cell.want_drain();
        }
        self.serve_percpu(core, pin);
    }

    /// The same if somebody wants it.
    pub(super) fn serve_percpu(&self, core: &Core, pin: &Pin<'_, P>) {
        let fronts = core.percpu.fronts();
        fronts.serve(pin, |front, gauges| self.spill(core, front, gauges));
    }

    fn spill(&self, core: &Core, front: &mut Front, gauges: &Gauges) {
        let backing = self.grounds(core, Gfp::NOWAIT);
        while let Some(piece) = front.pop_any(gauges) {
            let first = piece.first();
            if core.percpu.free(&backing, piece).is_err() {
                self.lose_object(first);
            }
        }
    }
}
