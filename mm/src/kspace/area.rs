//! The record of an area (Linux: `struct vmap_area` and `struct vm_struct`).
#![forbid(unsafe_code)]

use core::mem::offset_of;
use core::panic::Location;

use super::raw::{Link, Linked, Pile, PileSlot};
use crate::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange, field};
use crate::collections::range_tree::{RangeNode, Slot};
use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use crate::frame::{FrameTable, Origin};
use crate::pagetable::{Cache, PteTable};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What an area is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum AreaKind {
    /// Memory of its own.
    Vmalloc = 0,
    /// Memory of somebody else's.
    Vmap = 1,
    /// The same for a short time (Linux: `vm_map_ram`).
    VmMapRam = 2,
    /// Registers of a device.
    Ioremap = 3,
    /// Memory of which each CPU has a copy, of pages of its own node.
    PerCpu = 4,
}

impl AreaKind {
    const ALL: [Self; 5] = [
        Self::Vmalloc,
        Self::Vmap,
        Self::VmMapRam,
        Self::Ioremap,
        Self::PerCpu,
    ];

    const fn bits(self) -> u32 {
        match self {
            Self::Vmalloc => 0,
            Self::Vmap => 1,
            Self::VmMapRam => 2,
            Self::Ioremap => 3,
            Self::PerCpu => 4,
        }
    }

    /// The word for it in `/proc/vmallocinfo`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmalloc => "vmalloc",
            Self::Vmap => "vmap",
            Self::VmMapRam => "vm_map_ram",
            Self::Ioremap => "ioremap",
            // The function of Linux that takes such areas.
            Self::PerCpu => "pcpu_get_vm_areas",
        }
    }
}

/// Where an area is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AreaState {
    /// A record of no area.
    Unused,
    /// Somebody has it.
    Busy,
    /// Nobody has it any more, but CPUs may remember it.
    Lazy,
    /// It lies ready for a CPU.
    Cached,
}

impl AreaState {
    const fn bits(self) -> u32 {
        match self {
            Self::Unused => 0,
            Self::Busy => 1,
            Self::Lazy => 2,
            Self::Cached => 3,
        }
    }
}

const KIND_SHIFT: u32 = 8;
/// In the state: whoever gave the area up could not unmap it.
const STILL_MAPPED: u32 = 1 << 16;

/// The record of an area. It lives for ever; what it says changes hands with the area.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Area {
    /// The addresses, guard page included.
    pub(super) node: RangeNode,
    /// State, kind from bit 8 on, and [`STILL_MAPPED`].
    state: AtomicU32,
    /// Its number in the tree.
    slot: Slot,
    /// The next one in a list: of unused ones, of lazy ones, of those on a CPU's shelf, of mapped devices.
    pub(super) next: Link,
    /// Bytes that were asked for.
    asked: AtomicU64,
    pub(super) frames: PileSlot,
    /// What device it reaches: its address, and how it is cached in the lowest bits; or which chunk of memory of each CPU it
    /// is, counted from 1.
    device: AtomicU64,
    /// The table of pages that all of it is mapped by, if there is one.
    table: AtomicU64,
    /// Who asked for it.
    origin: Origin,
}

impl Linked for Area {
    #[inline]
    fn next(&self) -> &Link {
        &self.next
    }
}

impl Area {
    /// Where its first address, its end, its state and the bytes asked for are, for [`Rows`](crate::addr::Rows).
    pub(super) const FIELDS: [u16; 8] = {
        let node = offset_of!(Self, node);
        let [start, end] = RangeNode::FIELDS;
        [
            field(node.saturating_add(start)),
            field(node.saturating_add(end)),
            field(offset_of!(Self, state)),
            field(offset_of!(Self, asked)),
            field(offset_of!(Self, origin)),
            0,
            0,
            0,
        ]
    };

    pub(super) fn new(slot: Slot) -> Self {
        Self {
            node: RangeNode::new(),
            state: AtomicU32::new(0),
            slot,
            next: Link::default(),
            asked: AtomicU64::new(0),
            frames: PileSlot::default(),
            device: AtomicU64::new(0),
            table: AtomicU64::new(0),
            origin: Origin::default(),
        }
    }

    /// Where it is in its life.
    pub(crate) fn state(&self) -> AreaState {
        let bits = self.state.load(Ordering::Acquire) & 0xff;
        match bits {
            1 => AreaState::Busy,
            2 => AreaState::Lazy,
            3 => AreaState::Cached,
            _ => AreaState::Unused,
        }
    }

    /// What it is for, if it is busy or was.
    pub(crate) fn kind(&self) -> AreaKind {
        let bits = self.state.load(Ordering::Relaxed) >> KIND_SHIFT & 0xff;
        let mut found = AreaKind::ALL.into_iter().filter(|kind| kind.bits() == bits);
        found.next().unwrap_or(AreaKind::Vmalloc)
    }

    /// It is somebody's from now on.
    #[inline]
    pub(super) fn begin(&self, asked: u64, kind: AreaKind, place: &'static Location<'static>) {
        self.asked.store(asked, Ordering::Relaxed);
        self.origin.set(place);
        let word = AreaState::Busy.bits() | kind.bits() << KIND_SHIFT;
        self.state.store(word, Ordering::Release);
    }

    /// The frames are its own, until it is purged.
    #[inline]
    pub(crate) fn keep(&self, pile: Pile) {
        self.frames.put(pile);
    }

    /// Its frames, in blocks, as they are mapped. Context: of who has it.
    pub(crate) fn blocks<'a>(
        &self,
        frames: &'a FrameTable,
    ) -> impl Iterator<Item = (Pfn, Order)> + use<'a> {
        self.frames.look(frames)
    }

    /// It is not somebody's any more. One caller gets `true`, if it was of this kind.
    #[inline]
    pub(crate) fn end(&self, kind: AreaKind) -> bool {
        let kind = kind.bits() << KIND_SHIFT;
        let (busy, lazy) = (AreaState::Busy.bits(), AreaState::Lazy.bits());
        let (set, seen) = (Ordering::AcqRel, Ordering::Relaxed);
        let ended = (self.state).compare_exchange(busy | kind, lazy | kind, set, seen);
        ended.is_ok()
    }

    /// Who ended it leaves it mapped.
    pub(super) fn set_still_mapped(&self) {
        let word = self.state.load(Ordering::Relaxed);
        self.state.store(word | STILL_MAPPED, Ordering::Relaxed);
    }

    /// The table of pages that all of it is mapped by, if that is known.
    #[inline]
    pub(super) fn table(&self) -> Option<PteTable> {
        PteTable::decode(self.table.load(Ordering::Relaxed))
    }

    pub(super) fn set_table(&self, table: Option<PteTable>) {
        self.table.store(PteTable::encode(table), Ordering::Relaxed);
    }

    /// Whether it waits to be unmapped, too.
    #[inline]
    pub(super) fn is_still_mapped(&self) -> bool {
        self.state.load(Ordering::Relaxed) & STILL_MAPPED != 0
    }

    #[inline]
    pub(super) fn set_state(&self, state: AreaState) {
        self.state.store(state.bits(), Ordering::Release);
    }

    /// Its number in the tree.
    pub(super) const fn slot(&self) -> Slot {
        self.slot
    }

    /// Where it starts.
    #[inline]
    pub(crate) fn start(&self) -> VirtAddr {
        VirtAddr::new(self.node.span().start)
    }

    /// The addresses, guard page included.
    #[inline]
    pub(crate) fn whole(&self) -> VirtRange {
        let span = self.node.span();
        let (start, end) = (VirtAddr::new(span.start), VirtAddr::new(span.end));
        VirtRange::new(start, end).unwrap_or(VirtRange::EMPTY)
    }

    /// The addresses that are mapped: all but the last page.
    #[inline]
    pub(crate) fn mapped(&self) -> VirtRange {
        let whole = self.whole();
        let end = whole.end().checked_sub(PAGE_SIZE).unwrap_or_default();
        VirtRange::new(whole.start(), end).unwrap_or(VirtRange::EMPTY)
    }

    /// Pages that are mapped.
    #[inline]
    pub(crate) fn pages(&self) -> u64 {
        (self.node.span().size() >> PAGE_SHIFT).saturating_sub(1)
    }

    /// Who asked for it.
    pub(crate) fn place(&self) -> Option<&'static Location<'static>> {
        self.origin.get()
    }

    /// What device it reaches, from which page on, and how that is cached.
    pub(crate) fn device(&self) -> (PhysAddr, Cache) {
        let word = self.device.load(Ordering::Relaxed);
        let mode = word & PAGE_SIZE.wrapping_sub(1);
        let [index, ..] = mode.to_le_bytes();
        let page = PhysAddr::new(word.wrapping_sub(mode));
        (page, Cache::from_index(index))
    }

    /// Which chunk it is, if it is one that somebody has.
    pub(crate) fn chunk(&self) -> Option<u32> {
        let is_chunk = self.state() == AreaState::Busy && self.kind() == AreaKind::PerCpu;
        let number = self.device.load(Ordering::Relaxed).checked_sub(1);
        u32::try_from(number.filter(|_| is_chunk)?).ok()
    }

    pub(crate) fn set_chunk(&self, chunk: Option<u32>) {
        let number = chunk.map_or(0, |chunk| u64::from(chunk).saturating_add(1));
        self.device.store(number, Ordering::Relaxed);
    }

    pub(super) fn set_device(&self, page: PhysAddr, cache: Cache) {
        self.device
            .store(page.as_u64() | u64::from(cache.index()), Ordering::Relaxed);
    }
}
