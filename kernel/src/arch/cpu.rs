//! What this CPU is and can do, and the control registers the kernel insists on.

use core::arch::x86_64::{__cpuid, CpuidResult};
use core::fmt;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::Msr;

/// A feature the kernel cannot run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature(&'static str);

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this CPU lacks {}", self.0)
    }
}

/// Executes CPUID.
#[must_use]
pub fn cpuid(leaf: u32) -> CpuidResult {
    __cpuid(leaf)
}

/// The highest basic leaf, or the highest of the range that starts at `base`.
#[must_use]
pub fn max_leaf(base: u32) -> u32 {
    let max = cpuid(base).eax;
    // A CPU without the range answers with anything: only an answer inside it counts.
    if max.wrapping_sub(base) < 0x1_0000 {
        max
    } else {
        0
    }
}

/// Checks what the kernel relies on.
///
/// # Errors
///
/// Names the first feature that is missing.
pub(crate) fn check() -> Result<(), MissingFeature> {
    let basic = cpuid(1);
    let extended = if max_leaf(0x8000_0000) >= 0x8000_0001 {
        cpuid(0x8000_0001).edx
    } else {
        0
    };
    let needed = [
        (basic.edx, 4, "a time stamp counter (TSC)"),
        (basic.edx, 5, "model-specific registers (MSR)"),
        (basic.edx, 13, "global pages (PGE)"),
        (basic.edx, 24, "FXSAVE/FXRSTOR (FXSR)"),
        (basic.edx, 26, "SSE2"),
        (extended, 20, "execute disable (NX)"),
    ];
    for (word, bit, name) in needed {
        if word & (1_u32 << bit) == 0 {
            return Err(MissingFeature(name));
        }
    }
    Ok(())
}

/// Sets the control bits the kernel relies on, on this CPU: write protection in ring 0, SSE,
/// global pages, no-execute, and machine checks as exceptions (else they reset the machine).
pub(super) fn init() {
    // SAFETY: Rust code runs on SSE already and the boot tables use no reserved bits; WP only
    // takes rights away.
    unsafe {
        Cr0::update(|flags| {
            flags.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::MONITOR_COPROCESSOR);
            flags.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
        });
    }
    let has_machine_check = cpuid(1).edx & (1 << 7) != 0;
    // SAFETY: `check` saw the first three features, and CPUID the last.
    unsafe {
        Cr4::update(|flags| {
            flags.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE | Cr4Flags::PAGE_GLOBAL);
            flags.set(Cr4Flags::MACHINE_CHECK_EXCEPTION, has_machine_check);
        });
    }
    protect_from_user_code();
    if basic_has(PAT_BIT) {
        // SAFETY: the CPU has the register, and the entries that are in use so far keep their meaning.
        unsafe { Msr::new(PAT_MSR).write(mm::pagetable::PAT) };
    }
    // SAFETY: `check` saw NX.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE)) };
}

/// Bit of CPUID leaf 1, EDX: the page attribute table; and the register (SDM vol. 4, table 2-2).
const PAT_BIT: u32 = 16;
const PAT_MSR: u32 = 0x277;

fn basic_has(bit: u32) -> bool {
    cpuid(1).edx & 1_u32.wrapping_shl(bit) != 0
}

/// Where the CPU can: the kernel neither executes pages of user code (SMEP) nor touches them unless it says so (SMAP), and
/// user code does not read where descriptor tables are (UMIP).
fn protect_from_user_code() {
    if max_leaf(0) < 7 {
        return;
    }
    let features = cpuid(7);
    let wanted = [
        (
            features.ebx,
            7,
            Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
        ),
        (
            features.ebx,
            20,
            Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
        ),
        (features.ecx, 2, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
    ];
    for (word, bit, flag) in wanted {
        if word & (1_u32 << bit) != 0 {
            // SAFETY: CPUID has it; no page of user code is mapped, so that it takes nothing away.
            unsafe { Cr4::update(|flags| flags.insert(flag)) };
        }
    }
}

/// Whether the kernel is kept from executing pages of user code.
pub(crate) fn has_smep() -> bool {
    Cr4::read().contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)
}

/// Whether the kernel is kept from touching pages of user code.
pub(crate) fn has_smap() -> bool {
    Cr4::read().contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)
}

/// Whether page tables have five levels.
pub(crate) fn has_five_levels() -> bool {
    Cr4::read().contains(Cr4Flags::L5_PAGING)
}

/// Whether pages can be 1 GiB large.
pub(crate) fn has_gigabyte_pages() -> bool {
    max_leaf(0x8000_0000) >= 0x8000_0001 && cpuid(0x8000_0001).edx & (1 << 26) != 0
}

/// The TSC's rate in Hz, where CPUID gives it.
pub(super) fn tsc_rate() -> Option<u64> {
    if max_leaf(0) >= 0x15 {
        // Leaf 0x15 (SDM vol. 2A, CPUID): crystal Hz in ECX, times EBX / EAX.
        let leaf = cpuid(0x15);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            return u64::from(leaf.ecx)
                .checked_mul(u64::from(leaf.ebx))?
                .checked_div(u64::from(leaf.eax));
        }
    }
    if is_virtual() && max_leaf(0x4000_0000) >= 0x4000_0010 {
        // The hypervisors' common timing leaf: TSC kHz in EAX.
        let khz = cpuid(0x4000_0010).eax;
        return u64::from(khz).checked_mul(1_000).filter(|&rate| rate != 0);
    }
    None
}

/// Whether a hypervisor (or emulator) says that it is there.
#[must_use]
pub fn is_virtual() -> bool {
    cpuid(1).ecx & (1 << 31) != 0
}

/// A name of at most 48 bytes, as CPUID spells it.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    bytes: [u8; 48],
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.bytes.iter().position(|&byte| byte == 0);
        let text = self.bytes.get(..end.unwrap_or(self.bytes.len()));
        let text = text.and_then(|text| core::str::from_utf8(text).ok());
        f.write_str(text.unwrap_or("?").trim())
    }
}

fn name_of(words: impl Iterator<Item = u32>) -> Name {
    let mut name = Name { bytes: [0; 48] };
    for (slot, word) in name.bytes.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    name
}

/// The manufacturer's twelve letters.
#[must_use]
pub fn vendor() -> Name {
    let leaf = cpuid(0);
    name_of([leaf.ebx, leaf.edx, leaf.ecx].into_iter())
}

/// The marketing name, where CPUID has one.
#[must_use]
pub fn model_name() -> Option<Name> {
    if max_leaf(0x8000_0000) < 0x8000_0004 {
        return None;
    }
    let words = (0x8000_0002..=0x8000_0004).flat_map(|leaf| {
        let leaf = cpuid(leaf);
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    });
    Some(name_of(words))
}

/// Bits of a physical and of a virtual address.
#[must_use]
pub fn address_bits() -> (u32, u32) {
    if max_leaf(0x8000_0000) < 0x8000_0008 {
        return (36, 48);
    }
    let sizes = cpuid(0x8000_0008).eax;
    (sizes & 0xff, (sizes >> 8) & 0xff)
}
