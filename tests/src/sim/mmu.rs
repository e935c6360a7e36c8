//! What a CPU makes of page tables: SDM vol. 3A, "Paging", from the format up. Nothing here is shared with the library.
//!
//! Left out: 32-bit and PAE paging, protection keys, shadow stacks, virtualisation.

use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::platform::TlbFeatures;

use super::Ram;

/// Bits of an entry of any level.
pub mod bit {
    /// There is something behind the entry.
    pub const P: u64 = 1 << 0;
    /// It may be written to.
    pub const RW: u64 = 1 << 1;
    /// User code may use it.
    pub const US: u64 = 1 << 2;
    /// It was used.
    pub const A: u64 = 1 << 5;
    /// It was written to (leaves).
    pub const D: u64 = 1 << 6;
    /// It maps a page, above the lowest level.
    pub const PS: u64 = 1 << 7;
    /// It is the same in all address spaces (leaves).
    pub const G: u64 = 1 << 8;
    /// No instructions are fetched from it.
    pub const XD: u64 = 1 << 63;
}

/// What registers say about paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// CR3: where the highest table is. The low twelve bits are the PCID if there are any.
    pub cr3: u64,
    /// Levels of tables: 4, or 5 (CR4.LA57).
    pub levels: u32,
    /// CR0.WP: the kernel minds read-only pages.
    pub wp: bool,
    /// CR4.SMEP: the kernel runs nothing that is user code's.
    pub smep: bool,
    /// CR4.SMAP: the kernel does not touch it either, unless EFLAGS.AC is set.
    pub smap: bool,
    /// CR4.PGE: there are global pages.
    pub pge: bool,
    /// CR4.PCIDE: address spaces have numbers.
    pub pcide: bool,
    /// There is INVPCID (CPUID).
    pub invpcid: bool,
    /// EFER.NXE: there are pages that are no code.
    pub nxe: bool,
    /// Pages of 1 GiB (CPUID).
    pub gib_pages: bool,
    /// Bits of a physical address (CPUID): those above are reserved.
    pub phys_bits: u32,
}

impl Registers {
    /// Those of a kernel that uses what there is, on the tables at `root`.
    #[must_use]
    pub const fn kernel(root: PhysAddr, levels: u32) -> Self {
        Self {
            cr3: root.as_u64(),
            levels,
            wp: true,
            smep: true,
            smap: true,
            pge: true,
            pcide: false,
            invpcid: false,
            nxe: true,
            gib_pages: true,
            phys_bits: 46,
        }
    }

    /// The number of the address space.
    #[must_use]
    pub const fn pcid(&self) -> u16 {
        if self.pcide {
            (self.cr3 & 0xfff) as u16
        } else {
            0
        }
    }

    /// What there is for forgetting translations.
    #[must_use]
    pub const fn tlb_features(&self) -> TlbFeatures {
        TlbFeatures {
            global_pages: self.pge,
            pcids: self.pcide,
            invpcid: self.invpcid,
        }
    }

    /// The address of the highest table.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.cr3 & 0x000f_ffff_ffff_f000
    }
}

/// What is done to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction is fetched.
    Fetch,
}

/// By whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// User code.
    User,
    /// The kernel.
    Supervisor,
    /// The kernel, with EFLAGS.AC set: it means user memory.
    SupervisorAc,
}

/// An access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// What is done.
    pub kind: Kind,
    /// By whom.
    pub mode: Mode,
}

impl Access {
    /// The kernel reads.
    pub const READ: Self = Self::kernel(Kind::Read);
    /// The kernel writes.
    pub const WRITE: Self = Self::kernel(Kind::Write);
    /// The kernel fetches an instruction.
    pub const FETCH: Self = Self::kernel(Kind::Fetch);

    const fn kernel(kind: Kind) -> Self {
        let mode = Mode::Supervisor;
        Self { kind, mode }
    }

    /// The same by user code.
    #[must_use]
    pub const fn by(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }
}

/// Why an access does not take place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// #GP: the address is not canonical.
    NotCanonical,
    /// #PF, with its error code.
    Page(u32),
}

/// Bits of a page fault's error code.
pub mod code {
    /// The page was there.
    pub const P: u32 = 1 << 0;
    /// A write.
    pub const W: u32 = 1 << 1;
    /// By user code.
    pub const U: u32 = 1 << 2;
    /// A reserved bit was set.
    pub const RSVD: u32 = 1 << 3;
    /// An instruction fetch.
    pub const I: u32 = 1 << 4;
}

/// What may be done to a page: all entries above it have a say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// Written to.
    pub write: bool,
    /// Used by user code.
    pub user: bool,
    /// Executed.
    pub execute: bool,
}

impl Rights {
    pub(super) const ALL: Self = Self {
        write: true,
        user: true,
        execute: true,
    };

    fn under(self, entry: u64) -> Self {
        Self {
            write: self.write && entry & bit::RW != 0,
            user: self.user && entry & bit::US != 0,
            execute: self.execute && entry & bit::XD == 0,
        }
    }

    /// Whether everything that these allow, `other` allows as well.
    #[must_use]
    pub const fn are_within(self, other: Self) -> bool {
        (!self.write || other.write)
            && (!self.user || other.user)
            && (!self.execute || other.execute)
    }

    /// Whether an access may take place (SDM vol. 3A, "Determination of Access Rights").
    pub(super) fn check(self, access: Access, registers: &Registers) -> Result<(), Fault> {
        let is_user = access.mode == Mode::User;
        let may_use = match access.mode {
            Mode::User => self.user,
            Mode::Supervisor => !(self.user && registers.smap && access.kind != Kind::Fetch),
            Mode::SupervisorAc => true,
        };
        let may_do = match access.kind {
            Kind::Read => true,
            Kind::Write => self.write || (!is_user && !registers.wp),
            Kind::Fetch => {
                let is_kept = !is_user && self.user && registers.smep;
                (self.execute || !registers.nxe) && !is_kept
            }
        };
        match may_use && may_do {
            true => Ok(()),
            false => Err(fault(access, registers, code::P)),
        }
    }
}

/// The fault of an access: what it was, and `why`.
fn fault(access: Access, registers: &Registers, why: u32) -> Fault {
    let mut bits = why;
    if access.mode == Mode::User {
        bits |= code::U;
    }
    match access.kind {
        Kind::Read => {}
        Kind::Write => bits |= code::W,
        Kind::Fetch if registers.nxe || registers.smep => bits |= code::I,
        Kind::Fetch => {}
    }
    Fault::Page(bits)
}

/// Where a walk may begin: a table, and what the entries above it allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its level: 1 is the lowest.
    pub level: u32,
    /// Where it is.
    pub at: PhysAddr,
    /// What is allowed below it.
    pub rights: Rights,
}

/// What a walk came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The tables that it passed, from the first entry on: what a CPU may remember of the way.
    pub tables: Vec<Table>,
    /// The leaf's address, …
    pub entry_at: PhysAddr,
    /// … and what it said.
    pub entry: u64,
    /// log2 of the page's size.
    pub shift: u32,
    /// What may be done to the page.
    pub rights: Rights,
}

impl Walk {
    /// Where the page is.
    #[must_use]
    pub const fn page(&self) -> PhysAddr {
        PhysAddr::new(self.entry & 0x000f_ffff_ffff_f000 & !((1 << self.shift) - 1))
    }

    /// Whether the leaf says that the page was written to.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.entry & bit::D != 0
    }

    /// Whether it is the same in all address spaces.
    #[must_use]
    pub const fn is_global(&self) -> bool {
        self.entry & bit::G != 0
    }
}

/// log2 of what an entry of a level spans.
const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

/// The bits of an entry that must be zero (SDM vol. 3A, tables of the formats with 4 and 5 levels).
fn reserved(level: u32, entry: u64, registers: &Registers) -> u64 {
    let mut reserved = 0x000f_ffff_ffff_ffff & !((1 << registers.phys_bits) - 1);
    if !registers.nxe {
        reserved |= bit::XD;
    }
    let may_be_leaf = level == 2 || (level == 3 && registers.gib_pages);
    if level > 1 && !may_be_leaf {
        reserved |= bit::PS;
    } else if level > 1 && entry & bit::PS != 0 {
        // Bit 12 is PAT; from there to the page's address there is nothing.
        reserved |= ((1 << shift(level)) - 1) & !0x1fff;
    }
    reserved
}

/// The entry at an address.
///
/// # Panics
/// If that is no RAM: what a CPU would read there is nothing to go on with.
pub(super) fn entry(ram: &Ram, at: PhysAddr) -> &AtomicU64 {
    let place = ram.at(PhysRange::from_size(at, 8));
    let place = place.unwrap_or_else(|| panic!("a page table at {at:?}, which is no RAM"));
    // SAFETY: eight bytes of RAM, aligned, which lives as long as `ram`; tables are changed by atomic
    // stores, as they must be where a CPU walks by itself.
    unsafe { AtomicU64::from_ptr(place.cast::<u64>().as_ptr()) }
}

/// Walks from a table down to the leaf, checks rights, and sets accessed and dirty bits.
///
/// # Errors
/// [`Fault`].
///
/// # Panics
/// If a table is no RAM.
pub fn walk(
    ram: &Ram,
    registers: &Registers,
    start: Table,
    addr: VirtAddr,
    access: Access,
) -> Result<Walk, Fault> {
    loop {
        let walk = look(ram, registers, start, addr, access)?;
        walk.rights.check(access, registers)?;
        let marks = match access.kind {
            Kind::Write => bit::A | bit::D,
            _ => bit::A,
        };
        let leaf = entry(ram, walk.entry_at);
        let marked = walk.entry | marks;
        // A locked cycle, so that nothing is marked that is not there any more (SDM vol. 3A, "Accessed and Dirty Flags").
        if leaf
            .compare_exchange(walk.entry, marked, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            return Ok(Walk {
                entry: marked,
                ..walk
            });
        }
    }
}

/// Walks without a mark on the leaf, and without a check of rights.
///
/// # Errors
/// [`Fault`], where there is no leaf.
pub(super) fn look(
    ram: &Ram,
    registers: &Registers,
    start: Table,
    addr: VirtAddr,
    access: Access,
) -> Result<Walk, Fault> {
    let mut table = start;
    let mut tables = Vec::new();
    loop {
        let index = addr.as_u64() >> shift(table.level) & 0x1ff;
        let entry_at = table.at.checked_add(index * 8).expect("an address");
        let place = entry(ram, entry_at);
        let found = place.load(Ordering::Acquire);
        if found & bit::P == 0 {
            return Err(fault(access, registers, 0));
        }
        if found & reserved(table.level, found, registers) != 0 {
            return Err(fault(access, registers, code::P | code::RSVD));
        }
        let rights = table.rights.under(found);
        if table.level == 1 || found & bit::PS != 0 {
            return Ok(Walk {
                tables,
                entry_at,
                entry: found,
                shift: shift(table.level),
                rights,
            });
        }
        // As the leaf: nothing is marked that is not there any more.
        let marked =
            place.compare_exchange(found, found | bit::A, Ordering::AcqRel, Ordering::Acquire);
        if marked.is_err() {
            continue;
        }
        table = Table {
            level: table.level - 1,
            at: PhysAddr::new(found & 0x000f_ffff_ffff_f000),
            rights,
        };
        tables.push(table);
    }
}

/// Where a walk begins that nothing is remembered for.
#[must_use]
pub fn top(registers: &Registers) -> Table {
    Table {
        level: registers.levels,
        at: PhysAddr::new(registers.root()),
        rights: Rights::ALL,
    }
}
