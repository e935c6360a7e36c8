//! Forgetting translations on this CPU, and asking others to (SDM vol. 3A, "Invalidation of TLBs and Paging-Structure
//! Caches"). Who has to, and when, is the memory core's affair: `Memory::flush_tlb`.

use super::apic::{self, Message, vector};
use super::{cpu, smp};
use crate::num::to_u64;
use core::arch::asm;
use mm::addr::VirtAddr;
use mm::platform::{CpuId, TlbFeatures, TlbFlush, TlbStep};
use spin::Once;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};

/// What CPUs could use (SDM vol. 2A, CPUID); the same on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    /// PCIDs: leaf 1, ECX bit 17. There is one address space, so the kernel uses none.
    pub(crate) pcids: bool,
    /// INVPCID: leaf 7, EBX bit 10.
    pub(crate) invpcid: bool,
}

/// What there is, by CPUID.
///
/// # Context
/// Any.
pub(crate) fn offered() -> Offered {
    static OFFERED: Once<Offered> = Once::new();
    *OFFERED.call_once(|| Offered {
        pcids: cpu::cpuid(1).ecx & (1 << 17) != 0,
        invpcid: cpu::max_leaf(0) >= 7 && cpu::cpuid(7).ebx & (1 << 10) != 0,
    })
}

/// What this CPU uses right now. A handler that comes while [`TlbStep::TogglePge`] is under way finds nothing global.
///
/// # Context
/// Any.
pub(crate) fn features() -> TlbFeatures {
    let control = Cr4::read();
    TlbFeatures {
        global_pages: control.contains(Cr4Flags::PAGE_GLOBAL),
        pcids: control.contains(Cr4Flags::PCID),
        invpcid: offered().invpcid,
    }
}

/// What a step is called, for people.
pub(crate) const fn name(step: TlbStep) -> &'static str {
    match step {
        TlbStep::Page(_) => "INVLPG",
        TlbStep::Everything => "INVPCID",
        TlbStep::TogglePge => "CR4.PGE off and on",
        TlbStep::ReloadCr3 => "CR3 anew",
    }
}

/// Says how this kernel has CPUs forget translations, and what they have for it.
///
/// # Context
/// Boot.
pub(crate) fn log() {
    let (used, offered) = (features(), offered());
    let there = |is_there| if is_there { "yes" } else { "no" };
    log::info!(
        "tlb: flushed as a whole by {}; INVPCID: {}, PCIDs: {}, not used",
        name(used.whole()),
        there(offered.invpcid),
        there(offered.pcids)
    );
}

/// Has this CPU forget translations.
///
/// # Context
/// Any; the caller stays on this CPU.
pub(crate) fn flush(what: TlbFlush) {
    features().steps(what).for_each(carry_out);
}

fn carry_out(step: TlbStep) {
    match step {
        TlbStep::Page(page) => flush_page(page),
        TlbStep::Everything => invalidate_everything(),
        TlbStep::TogglePge => toggle_global_pages(),
        TlbStep::ReloadCr3 => {
            let (root, flags) = Cr3::read();
            // SAFETY: what was there.
            unsafe { Cr3::write(root, flags) };
        }
    }
}

fn flush_page(page: VirtAddr) {
    // SAFETY: forgets what may be looked up again. Memory is clobbered on purpose: nothing behind this is read before.
    unsafe { asm!("invlpg [{}]", in(reg) page.as_u64(), options(nostack, preserves_flags)) };
}

/// INVPCID of type 2. Not tested where the kernel's tests run: the emulator does not have it.
fn invalidate_everything() {
    let descriptor = [0_u64; 2];
    let place = to_u64(descriptor.as_ptr().expose_provenance());
    // SAFETY: CPUID says that there is such an instruction; type 2 looks at the descriptor only as far as that its
    // reserved bits are zero.
    unsafe {
        asm!("invpcid {}, [{}]", in(reg) 2_u64, in(reg) place, options(nostack, preserves_flags));
    }
}

fn toggle_global_pages() {
    // SAFETY: the tables stay as they are; what is global may change for a moment.
    unsafe { Cr4::update(|flags| flags.toggle(Cr4Flags::PAGE_GLOBAL)) };
    // SAFETY: as it was before.
    unsafe { Cr4::update(|flags| flags.toggle(Cr4Flags::PAGE_GLOBAL)) };
}

/// Interrupts a CPU that is to forget translations; answers whether the interrupt got out.
///
/// # Context
/// Any but NMI.
pub(crate) fn kick(cpu: CpuId) -> bool {
    let target = smp::cpu(cpu.0);
    target.is_some_and(|cpu| apic::send(cpu.apic_id(), Message::Interrupt(vector::TLB)).is_ok())
}
