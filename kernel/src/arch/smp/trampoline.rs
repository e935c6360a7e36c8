//! The first instructions of another CPU: from real mode to the kernel, in one page below 1 MiB.
//!
//! A CPU starts in real mode at the page whose number the start-up message carries. The page is
//! RAM that the firmware calls usable; early memory gives it before it is handed over, and it
//! stays reserved with the rest of the first MiB ever after. [`Trampoline::close`] is where its
//! use ends: all it holds then is a loop that stands still.
//!
//! Paging comes on with as many levels as the boot CPU has, with tables that map this one page at its own address, executable, and above
//! that whatever the kernel maps in the upper half; the kernel's own tables follow as soon as the
//! CPU runs in the upper half ([`use_kernel_tables`]).
//!
//! The code is copied, so it names its own parts by their distance from its start.

use super::super::cpu;
use super::super::local::CpuLocal;
use super::super::registers;
use crate::memory::{Kernel, Pages};
use crate::num::{low_byte, to_u64, to_usize};
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use mm::addr::{Order, PhysRange};
use mm::buddy::Gfp;
use mm::mem::EarlyRam;
use mm::system::AllocError;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

const PAGE: u64 = 4096;
/// No CPU is expected, or the one that was has come in.
const NOBODY: u32 = u32::MAX;
/// Where in the page the parameters lie: behind the code.
const PARAMETERS: u64 = 0x800;
/// `hlt` and a jump back to it.
const STAND_STILL: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// EFER's bits that a CPU may be given before it is in long mode: SCE, LME, NXE.
const EFER_BITS: u64 = 1 | 1 << 8 | 1 << 11;
/// CR4.PCIDE cannot be set outside of long mode.
const CR4_PCIDE: u64 = 1 << 17;

/// Present and writable.
const TABLE_RIGHTS: u64 = 3;
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The first entry of a top table that is the upper half's.
const UPPER_HALF: usize = 256;

/// What the code reads; the offsets are in the assembly below.
#[derive(Debug)]
#[repr(C)]
struct Parameters {
    /// Null, 64-bit code, data, 32-bit code.
    gdt: [u64; 4],
    stack: u64,
    local: u64,
    entry: u64,
    cr0: u32,
    cr3: u32,
    cr4: u32,
    efer: u32,
    far32: [u32; 2],
    far64: [u32; 2],
    /// The APIC identifier of the CPU that may come in.
    ticket: AtomicU32,
    gdt_limit_and_base: [u16; 3],
}

global_asm!(
    ".pushsection .rodata.mm_trampoline, \"a\"",
    ".balign 16",
    ".globl __mm_trampoline_start",
    ".globl __mm_trampoline_32",
    ".globl __mm_trampoline_64",
    ".globl __mm_trampoline_end",
    "__mm_trampoline_start:",
    ".code16",
    "cli",
    "cld",
    "xorl %ebx, %ebx",
    "movw %cs, %bx",
    "movw %bx, %ds",
    "shll $4, %ebx",
    "lgdtl {params} + {gdt_pointer}",
    "movl %cr0, %eax",
    "orl $1, %eax",
    "movl %eax, %cr0",
    "ljmpl *{params} + {far32}",
    "__mm_trampoline_32:",
    ".code32",
    "movw $0x10, %ax",
    "movw %ax, %ds",
    "movw %ax, %es",
    "movw %ax, %ss",
    "movl ({params} + {cr4})(%ebx), %eax",
    "movl %eax, %cr4",
    "movl ({params} + {cr3})(%ebx), %eax",
    "movl %eax, %cr3",
    "movl $0xc0000080, %ecx",
    "xorl %edx, %edx",
    "movl ({params} + {efer})(%ebx), %eax",
    "wrmsr",
    "movl ({params} + {cr0})(%ebx), %eax",
    "movl %eax, %cr0",
    "ljmpl *({params} + {far64})(%ebx)",
    "__mm_trampoline_64:",
    ".code64",
    "movl %ebx, %esi",
    // A CPU that was given up must not take another's stack: only the expected one comes in.
    "movl $1, %eax",
    "cpuid",
    "shrl $24, %ebx",
    "movl %ebx, %eax",
    "movl $0xffffffff, %ecx",
    "lock cmpxchgl %ecx, ({params} + {ticket})(%rsi)",
    "jne 2f",
    "fninit",
    "movq ({params} + {local})(%rsi), %rdi",
    "movq ({params} + {stack})(%rsi), %rsp",
    "movq ({params} + {entry})(%rsi), %rax",
    "xorl %ebp, %ebp",
    // As after a call: rsp = 8 mod 16, and a return address of zero ends backtraces.
    "pushq %rbp",
    "jmpq *%rax",
    "2: cli",
    "hlt",
    "jmp 2b",
    "__mm_trampoline_end:",
    ".popsection",
    params = const PARAMETERS,
    gdt_pointer = const offset_of!(Parameters, gdt_limit_and_base),
    far32 = const offset_of!(Parameters, far32),
    far64 = const offset_of!(Parameters, far64),
    cr0 = const offset_of!(Parameters, cr0),
    cr3 = const offset_of!(Parameters, cr3),
    cr4 = const offset_of!(Parameters, cr4),
    efer = const offset_of!(Parameters, efer),
    ticket = const offset_of!(Parameters, ticket),
    local = const offset_of!(Parameters, local),
    stack = const offset_of!(Parameters, stack),
    entry = const offset_of!(Parameters, entry),
    options(att_syntax),
);

unsafe extern "C" {
    #[link_name = "__mm_trampoline_start"]
    safe static START: u8;
    #[link_name = "__mm_trampoline_32"]
    safe static ENTER_32: u8;
    #[link_name = "__mm_trampoline_64"]
    safe static ENTER_64: u8;
    #[link_name = "__mm_trampoline_end"]
    safe static END: u8;
}

/// Distance of a symbol from the start of the code.
fn distance(symbol: *const u8) -> u64 {
    to_u64(symbol.addr().wrapping_sub((&raw const START).addr()))
}

/// Why other CPUs cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrampolineError {
    /// The page is not one whole page below 1 MiB.
    BadPage(PhysRange),
    /// Something that 32-bit code must reach lies above 4 GiB.
    TooHigh(u64),
    /// No pages for page tables below 4 GiB.
    NoMemory(AllocError),
}

impl core::fmt::Display for TrampolineError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadPage(range) => write!(f, "{range} is no page below 1 MiB"),
            Self::TooHigh(at) => write!(f, "{at:#x} is out of reach of 32-bit code"),
            Self::NoMemory(error) => write!(f, "no page tables below 4 GiB: {error}"),
        }
    }
}

/// The page with the code in it, open for one CPU at a time.
///
/// # Invariants
///
/// 1. `page` belongs to this value, is mapped at `offset`, and holds the code and valid
///    `Parameters`.
/// 2. `tables` holds as many tables as there are levels, top first, that map the page at its own address.
#[derive(Debug)]
pub(super) struct Trampoline {
    page: EarlyRam,
    offset: u64,
    tables: Pages,
    /// A CPU may still be using the tables.
    is_lost: bool,
}

impl Trampoline {
    /// Puts the code into `page`, and makes tables for it.
    pub(super) fn open(page: EarlyRam, offset: u64) -> Result<Self, TrampolineError> {
        let range = page.range();
        let base = range.start().as_u64();
        if range.size() != PAGE || !base.is_multiple_of(PAGE) || base >= 0xa_0000 {
            return Err(TrampolineError::BadPage(range));
        }
        let control = registers::control();
        let low = |value: u64| u32::try_from(value).map_err(|_| TrampolineError::TooHigh(value));
        let tables = identity_tables(base)?;
        let place = |symbol| low(base.wrapping_add(distance(symbol)));
        let gdt = low(base.wrapping_add(PARAMETERS))?.to_le_bytes();
        let [a, b, c, d] = gdt;
        let parameters = Parameters {
            gdt: [
                0,
                0x00af_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x00cf_9b00_0000_ffff,
            ],
            stack: 0,
            local: 0,
            entry: 0,
            cr0: low(control.cr0)?,
            cr3: low(tables.frames().addrs().start().as_u64())?,
            cr4: low(control.cr4 & !CR4_PCIDE)?,
            efer: low(control.efer & EFER_BITS)?,
            far32: [place(&raw const ENTER_32)?, 0x18],
            far64: [place(&raw const ENTER_64)?, 0x08],
            ticket: AtomicU32::new(NOBODY),
            gdt_limit_and_base: [31, u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])],
        };

        let this = Self {
            page,
            offset,
            tables,
            is_lost: false,
        };
        let length = to_usize(distance(&raw const END));
        // SAFETY: source: the code, `length` bytes of it; target: the page is ours and mapped at
        // the offset, and the code ends before the parameters.
        unsafe {
            this.at(0)
                .copy_from_nonoverlapping(&raw const START, length)
        };
        // SAFETY: as above; the place is aligned to 2 KiB.
        unsafe { this.at(PARAMETERS).cast::<Parameters>().write(parameters) };
        Ok(this)
    }

    /// The number of the page, for the start-up message.
    pub(super) fn page_number(&self) -> u8 {
        low_byte(self.page.range().start().as_u64() >> 12)
    }

    /// Lets the CPU with identifier `apic_id` in: it will call `entry(cpu)` on its main stack.
    #[expect(
        clippy::transmutes_expressible_as_ptr_casts,
        reason = "`as` casts are denied everywhere"
    )]
    pub(super) fn expect(
        &mut self,
        apic_id: u32,
        cpu: &'static CpuLocal,
        entry: extern "sysv64" fn(&'static CpuLocal) -> !,
    ) {
        self.copy_upper_half();
        // SAFETY: a function pointer is as wide as an address and all its bits are initialised.
        let code = unsafe {
            core::mem::transmute::<extern "sysv64" fn(&'static CpuLocal) -> !, *const ()>(entry)
        };
        let place = self.at(PARAMETERS).cast::<Parameters>();
        // SAFETY: invariant 1; nobody is expected now, so nobody reads these.
        let parameters = unsafe { &mut *place };
        parameters.stack = cpu.main_stack().top;
        parameters.local = to_u64(core::ptr::from_ref(cpu).expose_provenance());
        parameters.entry = to_u64(code.expose_provenance());
        parameters.ticket.store(apic_id, Ordering::Release);
    }

    /// Stops expecting a CPU. Answers false if it has come in already.
    pub(super) fn give_up(&self, apic_id: u32) -> bool {
        // SAFETY: invariant 1; only the ticket is touched, which is atomic.
        let ticket = unsafe {
            &*self
                .at(PARAMETERS.wrapping_add(to_u64(offset_of!(Parameters, ticket))))
                .cast::<AtomicU32>()
        };
        ticket
            .compare_exchange(apic_id, NOBODY, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The tables show what the kernel's show in the upper half: as of now, since stacks come.
    fn copy_upper_half(&mut self) {
        let root = registers::control().cr3 & CR3_ADDRESS;
        let root = to_usize(self.offset.wrapping_add(root));
        let root = core::ptr::with_exposed_provenance::<[u64; 512]>(root);
        let table = self.tables.bytes_mut().chunks_exact_mut(8).take(512);
        for (index, entry) in table.enumerate().skip(UPPER_HALF) {
            let source = root.cast::<u64>().wrapping_add(index);
            // SAFETY: CR3 names the top table in use, mapped at the offset as all RAM is; an
            // entry is one word, which the CPU may mark as accessed at any time.
            let bits = unsafe { source.read_volatile() };
            entry.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// A CPU got lost between the trampoline and the kernel: the tables must stay.
    pub(super) fn keep_tables(&mut self) {
        self.is_lost = true;
    }

    /// Ends the page's use: a CPU that starts after all stands still in it. The page is reserved,
    /// as all of the first MiB is, and stays so.
    pub(super) fn close(self) -> PhysRange {
        for (offset, byte) in (0..PAGE).zip(STAND_STILL.into_iter().cycle()) {
            // SAFETY: the page is ours and mapped.
            unsafe { self.at(offset).write_volatile(byte) };
        }
        if self.is_lost {
            let _pfn = self.tables.into_raw();
        }
        self.page.leak()
    }

    fn at(&self, offset: u64) -> *mut u8 {
        let base = self.page.range().start().as_u64();
        let address = self.offset.wrapping_add(base).wrapping_add(offset);
        core::ptr::with_exposed_provenance_mut(to_usize(address))
    }
}

/// Four or five tables, top first, that map the page at `base`, below 2 MiB, at its own address.
fn identity_tables(base: u64) -> Result<Pages, TrampolineError> {
    let request = Gfp::KERNEL.union(Gfp::DMA32).union(Gfp::ZERO);
    let levels = if cpu::has_five_levels() { 5 } else { 4 };
    let order = Order::for_bytes(PAGE.wrapping_mul(levels)).unwrap_or(Order::MAX);
    let mut tables = Pages::alloc(Kernel, request, order).map_err(TrampolineError::NoMemory)?;
    let first = tables.frames().addrs().start().as_u64();
    let mut target = first;
    let pages = tables.bytes_mut().chunks_exact_mut(to_usize(PAGE));
    for (left, table) in (0..levels).rev().zip(pages) {
        target = target.wrapping_add(PAGE);
        let (index, entry) = match left {
            0 => (base.wrapping_div(PAGE), base),
            _ => (0, target),
        };
        let entry = entry | TABLE_RIGHTS;
        let place = to_usize(index.wrapping_mul(8));
        if let Some(place) = table.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
            *place = entry.to_le_bytes();
        }
    }
    Ok(tables)
}

/// Leaves the trampoline's tables for those of the boot CPU, at `root`.
pub(super) fn use_kernel_tables(root: u64) {
    let root = PhysFrame::containing_address(PhysAddr::new_truncate(root));
    // SAFETY: the trampoline's tables have the same upper half, where code and stack are.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
}
