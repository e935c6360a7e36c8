//! What CPUs remember of page tables: each translation it ever used, until it is flushed (SDM vol. 3A, "Caching Translation
//! Information").
//!
//! A real TLB forgets for lack of room, so a flush that is missing is seldom noticed. This one forgets only what it is told to.
//! With each translation, and each table on the way to it, it keeps how often the frame was freed before; one that is used
//! after the frame was freed ends the test.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use mm::addr::{PfnRange, PhysAddr, VirtAddr, VirtRange};

use super::Ram;
use super::mmu::{self, Access, Fault, Kind, Registers, Rights, Table};

/// Frames whose generations lie in one piece: 128 MiB.
const PIECE: u64 = 1 << 15;

/// How often each frame was freed. CPUs ask at every access, so nobody waits for anybody.
#[derive(Debug)]
pub(super) struct Generations {
    /// Piece by piece, made when a frame of it is freed.
    freed: Vec<OnceLock<Box<[AtomicU64]>>>,
    /// Where frames stay mapped whoever has them.
    permanent: Mutex<VirtRange>,
}

impl Generations {
    /// Those of the frames below `limit`.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            freed: (0..limit.div_ceil(PIECE))
                .map(|_| OnceLock::new())
                .collect(),
            permanent: Mutex::default(),
        }
    }

    pub(super) fn set_permanent(&self, range: VirtRange) {
        *self.permanent.lock().unwrap() = range;
    }

    fn is_permanent(&self, addr: VirtAddr) -> bool {
        self.permanent.lock().unwrap().contains(addr)
    }

    /// Frames go back to the allocator.
    pub(super) fn freed(&self, frames: PfnRange) {
        for pfn in frames.iter().map(mm::addr::Pfn::as_u64) {
            let piece = &self.freed[(pfn / PIECE) as usize];
            let none = || (0..PIECE).map(|_| AtomicU64::new(0)).collect();
            piece.get_or_init(none)[(pfn % PIECE) as usize].fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn of(&self, at: PhysAddr) -> u64 {
        let pfn = at.frame().as_u64();
        let piece = self.freed.get((pfn / PIECE) as usize);
        let piece = piece.and_then(OnceLock::get);
        piece.map_or(0, |piece| {
            piece[(pfn % PIECE) as usize].load(Ordering::Acquire)
        })
    }
}

/// What is remembered is asked for at every access, by numbers that nobody chooses to collide: the multiplier of
/// Fibonacci hashing does (Knuth, vol. 3, 6.4).
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}

type ByNumbers<K, V> = HashMap<K, V, BuildHasherDefault<Mixed>>;

/// Whose a translation is: an address space's, or everybody's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Tag {
    Global,
    Pcid(u16),
}

/// A translation.
#[derive(Clone, Copy, Debug)]
struct Entry {
    page: PhysAddr,
    rights: Rights,
    is_dirty: bool,
    /// That of the frame at the address that was asked for first.
    generation: (PhysAddr, u64),
}

/// A table on the way, by what the CPU remembers (SDM: paging-structure caches).
#[derive(Clone, Copy, Debug)]
struct Step {
    table: Table,
    generation: u64,
}

/// Which translation: whose, log2 of the page's size, the page's number in that size.
type Page = (Tag, u32, u64);

/// One CPU's memory of page tables.
#[derive(Debug, Default)]
pub struct Tlb {
    pages: ByNumbers<Page, Entry>,
    /// Tables by address space, by level, and by what is left of the address above that.
    steps: ByNumbers<u16, ByNumbers<(u32, u64), Step>>,
    done: Done,
}

/// How many instructions of each kind a CPU was told to forget by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// INVLPG.
    pub invlpg: u64,
    /// INVPCID of any type.
    pub invpcid: u64,
    /// Loads of CR3.
    pub cr3: u64,
    /// Changes of CR4.
    pub cr4: u64,
}

/// An INVPCID (SDM vol. 2A).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invpcid {
    /// Type 0: one address of an address space.
    Address(u16, VirtAddr),
    /// Type 1: an address space.
    Single(u16),
    /// Type 2: everything, global or not.
    AllWithGlobals,
    /// Type 3: everything but what is global.
    All,
}

/// The sizes of pages: 4 KiB, 2 MiB, 1 GiB.
const SHIFTS: [u32; 3] = [12, 21, 30];

/// What bits of an address the tables of a level are found by.
const fn above(level: u32, addr: VirtAddr) -> u64 {
    addr.as_u64() >> (12 + 9 * level)
}

impl Tlb {
    /// Does an access: by what is remembered, or else by a walk that is remembered then. Answers where it
    /// comes to.
    ///
    /// # Errors
    /// [`Fault`]; what was remembered of the address is forgotten then, as a CPU does.
    ///
    /// # Panics
    /// If the CPU remembers something of a frame that was freed since: it was not flushed in time.
    pub(super) fn access(
        &mut self,
        (ram, generations): (&Ram, &Generations),
        registers: &Registers,
        addr: VirtAddr,
        access: Access,
    ) -> Result<PhysAddr, Fault> {
        if !addr.is_canonical(registers.levels as u8) {
            return Err(Fault::NotCanonical);
        }
        if let Some((key, entry)) = self.find(registers, addr) {
            let (frame, generation) = entry.generation;
            let now = generations.of(frame);
            assert!(
                now == generation || generations.is_permanent(addr),
                "stale translation: {addr:?} leads to {frame:?}, which was freed since"
            );
            if let Err(fault) = entry.rights.check(access, registers) {
                self.forget_page(registers, addr);
                return Err(fault);
            }
            // The first write goes by the tables: the page is marked as dirty.
            if access.kind != Kind::Write || entry.is_dirty {
                return Ok(place(entry.page, key.1, addr));
            }
        }
        self.walk((ram, generations), registers, addr, access)
    }

    fn find(&self, registers: &Registers, addr: VirtAddr) -> Option<(Page, Entry)> {
        let tags = [Tag::Global, Tag::Pcid(registers.pcid())];
        let keys = tags
            .into_iter()
            .flat_map(|tag| SHIFTS.map(|shift| (tag, shift, addr.as_u64() >> shift)));
        keys.into_iter()
            .find_map(|key| Some((key, *self.pages.get(&key)?)))
    }

    /// Walks from the lowest table that is remembered.
    fn walk(
        &mut self,
        (ram, generations): (&Ram, &Generations),
        registers: &Registers,
        addr: VirtAddr,
        access: Access,
    ) -> Result<PhysAddr, Fault> {
        let pcid = registers.pcid();
        let steps = self.steps.entry(pcid).or_default();
        let known = (1..registers.levels).find_map(|level| steps.get(&(level, above(level, addr))));
        let start = match known {
            None => mmu::top(registers),
            Some(step) => {
                let at = step.table.at;
                assert_eq!(
                    generations.of(at),
                    step.generation,
                    "stale walk: {addr:?} by the table at {at:?}, which was freed since"
                );
                step.table
            }
        };
        let walk = mmu::walk(ram, registers, start, addr, access).inspect_err(|_| {
            self.forget_page(registers, addr);
        })?;
        for &table in &walk.tables {
            let generation = generations.of(table.at);
            let key = (table.level, above(table.level, addr));
            let steps = self.steps.entry(pcid).or_default();
            steps.insert(key, Step { table, generation });
        }
        let tag = match walk.is_global() && registers.pge {
            true => Tag::Global,
            false => Tag::Pcid(pcid),
        };
        let found = place(walk.page(), walk.shift, addr);
        let entry = Entry {
            page: walk.page(),
            rights: walk.rights,
            is_dirty: walk.is_dirty(),
            generation: (found, generations.of(found)),
        };
        let key = (tag, walk.shift, addr.as_u64() >> walk.shift);
        self.pages.insert(key, entry);
        Ok(found)
    }

    /// INVLPG: the pages of an address in this address space and those of all, whatever their size, and all tables of
    /// this address space.
    pub fn invlpg(&mut self, registers: &Registers, addr: VirtAddr) {
        self.done.invlpg += 1;
        self.forget_page(registers, addr);
    }

    fn forget_page(&mut self, registers: &Registers, addr: VirtAddr) {
        let pcid = registers.pcid();
        self.forget_pages(Tag::Global, addr);
        self.forget_pages(Tag::Pcid(pcid), addr);
        self.forget_steps(pcid);
    }

    fn forget_pages(&mut self, tag: Tag, addr: VirtAddr) {
        for shift in SHIFTS {
            self.pages.remove(&(tag, shift, addr.as_u64() >> shift));
        }
    }

    fn forget_steps(&mut self, pcid: u16) {
        if let Some(steps) = self.steps.get_mut(&pcid) {
            steps.clear();
        }
    }

    /// INVPCID. Of tables, an address takes with it only those that it is found by.
    ///
    /// # Panics
    /// If the CPU has no such instruction, or no such address space (SDM vol. 2A, INVPCID: #UD, #GP).
    pub fn invpcid(&mut self, registers: &Registers, what: Invpcid) {
        assert!(registers.invpcid, "#UD: there is no INVPCID");
        if let Invpcid::Address(pcid, _) | Invpcid::Single(pcid) = what {
            assert!(pcid == 0 || registers.pcide, "#GP: PCID {pcid}");
        }
        self.done.invpcid += 1;
        match what {
            Invpcid::Address(pcid, addr) => {
                self.forget_pages(Tag::Pcid(pcid), addr);
                if let Some(steps) = self.steps.get_mut(&pcid) {
                    steps.retain(|&(level, place), _| place != above(level, addr));
                }
            }
            Invpcid::Single(pcid) => self.forget(pcid),
            Invpcid::AllWithGlobals => self.forget_all(),
            Invpcid::All => {
                self.pages.retain(|&(tag, ..), _| tag == Tag::Global);
                self.steps.clear();
            }
        }
    }

    /// A load of CR3: the address space that it names, unless bit 63 says to keep it; what is global stays.
    pub fn load_cr3(&mut self, registers: &mut Registers, value: u64) {
        const KEEP: u64 = 1 << 63;
        self.done.cr3 += 1;
        let keeps = registers.pcide && value & KEEP != 0;
        registers.cr3 = if registers.pcide {
            value & !KEEP
        } else {
            value
        };
        if !keeps {
            self.forget(registers.pcid());
        }
    }

    /// A change of CR4.PGE: everything.
    pub fn set_pge(&mut self, registers: &mut Registers, pge: bool) {
        if registers.pge != pge {
            self.done.cr4 += 1;
            registers.pge = pge;
            self.forget_all();
        }
    }

    fn forget(&mut self, pcid: u16) {
        self.pages.retain(|&(tag, ..), _| tag != Tag::Pcid(pcid));
        self.forget_steps(pcid);
    }

    pub(super) fn forget_all(&mut self) {
        self.pages.clear();
        self.steps.clear();
    }

    /// What the CPU was told so far.
    #[must_use]
    pub const fn done(&self) -> Done {
        self.done
    }

    /// How many translations are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// O8: what is remembered of this address space, and of all, is what the tables say, or less; and leads to
    /// no frame that was freed.
    pub(super) fn check(
        &self,
        (ram, generations): (&Ram, &Generations),
        registers: &Registers,
    ) -> Result<(), String> {
        for (&(tag, shift, page), entry) in &self.pages {
            if tag != Tag::Global && tag != Tag::Pcid(registers.pcid()) {
                continue;
            }
            let addr = VirtAddr::new(page << shift);
            let (frame, generation) = entry.generation;
            if generations.of(frame) != generation && !generations.is_permanent(addr) {
                return Err(format!("{addr:?} leads to {frame:?}, which was freed"));
            }
            let walk = mmu::look(ram, registers, mmu::top(registers), addr, Access::READ);
            let walk = walk.map_err(|fault| format!("{addr:?} is not mapped: {fault:?}"))?;
            let is_so = walk.page() == entry.page
                && walk.shift == shift
                && entry.rights.are_within(walk.rights)
                && (!entry.is_dirty || walk.is_dirty());
            if !is_so {
                return Err(format!("{addr:?}: {entry:?} is not what {walk:?} says"));
            }
        }
        Ok(())
    }
}

/// Where an address lies in a page.
fn place(page: PhysAddr, shift: u32, addr: VirtAddr) -> PhysAddr {
    let offset = addr.as_u64() & ((1 << shift) - 1);
    page.checked_add(offset).expect("an address")
}
