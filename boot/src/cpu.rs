//! The machine below `start`: what the CPU can do, page-table memory, and the jump.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::ptr;

use bootloader_api::BootInfo;

use crate::arena::{Arena, Pieces};
use crate::paging::{PageSize, Tables};

const EXTENDED: u32 = 0x8000_0000;
/// What a CPU addresses that does not say: the minimum of the architecture's first ones.
const LEAST_PHYSICAL_BITS: u32 = 36;

/// Returns how many bits a physical address has.
pub(crate) fn physical_bits() -> u32 {
    const SIZES: u32 = EXTENDED | 8;
    if __cpuid(EXTENDED).eax < SIZES {
        return LEAST_PHYSICAL_BITS;
    }
    __cpuid(SIZES).eax & 0xff
}

/// Returns whether the CPU has five levels of page tables: leaf 7, ECX bit 16 (SDM vol. 2A, CPUID).
pub(crate) fn has_five_levels() -> bool {
    const FEATURES: u32 = 7;
    __cpuid(0).eax >= FEATURES && __cpuid_count(FEATURES, 0).ecx >> 16 & 1 == 1
}

/// Calls the entry code's way from four levels of page tables to five.
///
/// # Safety
///
/// 1. The entry code's own tables are in use.
/// 2. `code` is its `__boot_use_five_levels`.
/// 3. The CPU has five levels.
pub(crate) unsafe fn use_five_levels(code: u64) {
    // SAFETY: (1), (2) the code is mapped low and high, and keeps what the System V ABI has a callee
    // keep; the stack is aligned as before any call; (3) the bit it sets in CR4 is not reserved.
    unsafe { asm!("call {}", in(reg) code, clobber_abi("sysv64")) };
}

/// Returns the largest page size of the CPU.
pub(crate) fn largest_page() -> PageSize {
    // The entry code has found this leaf; bit 26 of EDX is pdpe1gb.
    if __cpuid(EXTENDED | 1).edx >> 26 & 1 == 1 {
        PageSize::Size1GiB
    } else {
        PageSize::Size2MiB
    }
}

/// Page tables in physical memory, reached through the identity map.
///
/// # Invariants
///
/// Every table address that `paging` passes came from `allocate`, as a whole page of unused RAM
/// below 4 GiB, or is that of the entry code's table in the image.
#[derive(Debug)]
pub(crate) struct PhysicalTables<'a> {
    arena: Arena<'a>,
}

impl<'a> PhysicalTables<'a> {
    /// Creates tables in pages of `arena`.
    ///
    /// # Safety
    ///
    /// The pages the arena gives are unused, writable RAM, mapped at their physical addresses
    /// while the value lives.
    pub(crate) const unsafe fn new(arena: Arena<'a>) -> Self {
        Self { arena }
    }

    /// Returns the memory taken.
    pub(crate) fn into_pieces(self) -> Pieces {
        self.arena.into_pieces()
    }

    fn entry(table: u64, index: u64) -> *mut u64 {
        let address = table.wrapping_add((index & 511).wrapping_mul(8));
        // Tables lie below 4 GiB, so the conversion never falls back to null.
        ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default())
    }
}

impl Tables for PhysicalTables<'_> {
    fn allocate(&mut self) -> Option<u64> {
        let page = self.arena.take()?;
        for index in 0..512 {
            self.write(page, index, 0);
        }
        Some(page)
    }

    fn read(&self, table: u64, index: u64) -> u64 {
        // SAFETY: `table` is one of ours or the entry code's (Invariants): its 512 entries are mapped, and nobody else's.
        unsafe { Self::entry(table, index).read_volatile() }
    }

    fn write(&mut self, table: u64, index: u64, entry: u64) {
        // SAFETY: as in `read`.
        unsafe { Self::entry(table, index).write_volatile(entry) };
    }
}

/// Switches to the tables at `root` and calls `entry(boot_info)` on an empty stack.
///
/// # Safety
///
/// 1. The tables map this code, the stack below `stack_top` and `boot_info` where they are now.
/// 2. `entry` is the kernel's `extern "C" fn(&'static mut BootInfo) -> !`.
/// 3. Nothing on the stack is needed any more.
pub(crate) unsafe fn leave(
    root: u64,
    stack_top: u64,
    entry: u64,
    boot_info: &'static mut BootInfo,
) -> ! {
    // SAFETY: (1) the code goes on under the new tables; (2) the call is as the System V ABI
    // wants it, rsp = 8 mod 16 at the first instruction; (3) rbp = 0 ends backtraces here.
    unsafe {
        asm!(
            "mov cr3, {root}",
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {entry}",
            "ud2",
            root = in(reg) root,
            stack = in(reg) stack_top,
            entry = in(reg) entry,
            in("rdi") ptr::from_mut(boot_info),
            options(noreturn),
        )
    }
}
