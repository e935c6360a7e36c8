//! A recount of zones from frame records, one by one.

use mm::addr::{Order, Pfn};
use mm::buddy::{Census, MigrateType};
use mm::config::{ORDERS, SECTION_FRAMES};
use mm::frame::{FrameState, Word};
use mm::system::Memory;
use mm::zone::Zone;

use crate::sim::{SimConfig, SimPlatform};

/// The first frame of something.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The frame.
    pub pfn: Pfn,
    /// Its state word.
    pub word: Word,
}

/// Everything that starts somewhere in a machine's memory, lowest first: free and live blocks,
/// reserved frames. Holes and frames nobody was told of are left out.
#[derive(Debug)]
pub struct Blocks<'m, C: SimConfig> {
    memory: &'m Memory<SimPlatform<C>>,
    next: u64,
}

impl<'m, C: SimConfig> Blocks<'m, C> {
    /// Walks a machine.
    #[must_use]
    pub const fn of(memory: &'m Memory<SimPlatform<C>>) -> Self {
        Self { memory, next: 0 }
    }
}

impl<C: SimConfig> Iterator for Blocks<'_, C> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let limit = self.memory.frames()?.limit().as_u64();
        while self.next < limit {
            let pfn = Pfn::new(self.next);
            let Some(page) = self.memory.page(pfn) else {
                self.next = (pfn.section() + 1) * SECTION_FRAMES;
                continue;
            };
            let word = page.frame().word();
            let state = word.state().unwrap_or_else(|| panic!("{pfn}: {word:?}"));
            self.next += match state {
                FrameState::Interior | FrameState::Reserved => 1,
                FrameState::Free | FrameState::Unique | FrameState::Shared | FrameState::Cached => {
                    word.order().frames()
                }
            };
            if state != FrameState::Interior {
                return Some(Found { pfn, word });
            }
        }
        None
    }
}

/// What a zone really holds.
#[derive(Debug, Default)]
pub(super) struct Recount {
    pub(super) census: Census,
    /// Free blocks by the type of their pageblock and by order.
    pub(super) blocks: [[u64; ORDERS]; MigrateType::COUNT],
}

impl Recount {
    pub(super) fn of<C: SimConfig>(memory: &Memory<SimPlatform<C>>, zone: &Zone) -> Self {
        let mut recount = Self::default();
        for Found { pfn, word } in Blocks::of(memory) {
            if word.zone_id() != zone.id() {
                continue;
            }
            assert!(zone.span().contains(pfn), "{pfn} is outside its zone");
            recount.count(memory, zone, pfn, word);
        }
        recount.count_latent(memory, zone);
        recount
    }

    /// Frames of sections without records: what is not free will be reserved.
    fn count_latent<C: SimConfig>(&mut self, memory: &Memory<SimPlatform<C>>, zone: &Zone) {
        let ram = memory.platform().ram().ranges();
        let frames = ram.flat_map(|range| range.whole_frames().iter().collect::<Vec<_>>());
        let mut unfree: u64 = 0;
        let mut sections = std::collections::BTreeSet::new();
        for pfn in frames.filter(|&pfn| memory.page(pfn).is_none()) {
            if memory
                .zone_of(pfn)
                .is_none_or(|home| home.id() != zone.id())
            {
                continue;
            }
            sections.insert(pfn.section());
            match memory.is_latent(pfn) {
                true => self.census.latent += 1,
                false => unfree += 1,
            }
        }
        self.census.reserved += unfree;
        // Their records, areas and page tables are among them: the library says where only once
        // they are there.
        let hidden = self.census.latent.saturating_sub(zone.latent_frames());
        let most = (256 + 5 + 1) * sections.len() as u64;
        assert!(hidden <= most, "O1: {hidden} latent frames are missing");
        self.census.latent -= hidden;
        self.census.reserved += hidden;
    }

    fn count<C: SimConfig>(
        &mut self,
        memory: &Memory<SimPlatform<C>>,
        zone: &Zone,
        pfn: Pfn,
        word: Word,
    ) {
        let frames = word.order().frames();
        match word.state() {
            Some(FrameState::Reserved) => self.census.reserved += 1,
            Some(FrameState::Unique | FrameState::Shared) => self.census.live += frames,
            Some(FrameState::Cached) => self.census.cached += frames,
            Some(FrameState::Free) => {
                let kind = zone.pageblock_type(memory.platform(), pfn);
                let kind = kind.unwrap_or_else(|| panic!("{pfn} has no pageblock"));
                self.blocks[kind.index()][word.order().index()] += 1;
                if kind == MigrateType::Isolate {
                    self.census.isolated += frames;
                } else {
                    self.census.free += frames;
                }
                self.check_pair(memory, zone, pfn, word.order(), kind);
            }
            Some(FrameState::Interior) | None => {}
        }
    }

    /// Both pageblocks under a largest block have its type.
    fn check_pair<C: SimConfig>(
        &self,
        memory: &Memory<SimPlatform<C>>,
        zone: &Zone,
        pfn: Pfn,
        order: Order,
        kind: MigrateType,
    ) {
        if order == Order::MAX {
            let upper = pfn.saturating_add(Order::PAGEBLOCK.frames());
            let its = zone.pageblock_type(memory.platform(), upper);
            assert_eq!(its, Some(kind), "O4: types under the block at {pfn}");
        }
    }
}
