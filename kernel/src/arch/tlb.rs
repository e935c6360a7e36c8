//! Forgetting translations on this CPU, and asking others to (SDM vol. 3A, "Invalidation of TLBs and Paging-Structure
//! Caches"). Who has to, and when, is the memory core's affair: `Memory::flush_tlb`.

use super::apic::{self, Message, vector};
use super::{cpu, smp};
use crate::num::to_u64;
use core::arch::asm;
use mm::addr::VirtAddr;
use mm::config::PAGE_SIZE;
use mm::platform::{CpuId, TlbFlush};
use spin::Once;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};

/// How a CPU forgets everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// INVPCID of type 2: one instruction. Not tested where the kernel's tests run: the emulator does not have it.
    Invpcid,
    /// CR4.PGE off and on, which forgets global pages too.
    GlobalPages,
    /// CR3 anew, where nothing is global.
    Cr3,
}

impl Way {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Invpcid => "INVPCID",
            Self::GlobalPages => "CR4.PGE off and on",
            Self::Cr3 => "CR3 anew",
        }
    }

    /// What is there now: whether CPUs have INVPCID is the same on all.
    pub(crate) fn current() -> Self {
        static HAS_INVPCID: Once<bool> = Once::new();
        // Leaf 7, EBX bit 10 (SDM vol. 2A, CPUID).
        let has_invpcid = || cpu::max_leaf(0) >= 7 && cpu::cpuid(7).ebx & (1 << 10) != 0;
        if *HAS_INVPCID.call_once(has_invpcid) {
            return Self::Invpcid;
        }
        // A handler that comes while the bit is off finds nothing global: CR3 is enough for it.
        match Cr4::read().contains(Cr4Flags::PAGE_GLOBAL) {
            true => Self::GlobalPages,
            false => Self::Cr3,
        }
    }
}

/// Has this CPU forget translations.
///
/// # Context
/// Any; the caller stays on this CPU.
pub(crate) fn flush(what: TlbFlush) {
    let TlbFlush::Pages(range) = what else {
        return flush_all();
    };
    let mut page = range.start();
    while page < range.end() {
        flush_page(page);
        let Some(next) = page.checked_add(PAGE_SIZE) else {
            return;
        };
        page = next;
    }
}

fn flush_page(page: VirtAddr) {
    // SAFETY: forgets what may be looked up again. Memory is clobbered on purpose: nothing behind this is read before.
    unsafe { asm!("invlpg [{}]", in(reg) page.as_u64(), options(nostack, preserves_flags)) };
}

fn flush_all() {
    match Way::current() {
        Way::Invpcid => {
            let descriptor = [0_u64; 2];
            let place = to_u64(descriptor.as_ptr().expose_provenance());
            // SAFETY: CPUID says that there is such an instruction; type 2 looks at the descriptor only as far as that
            // its reserved bits are zero.
            unsafe {
                asm!("invpcid {}, [{}]", in(reg) 2_u64, in(reg) place,
                    options(nostack, preserves_flags));
            }
        }
        Way::GlobalPages => {
            // SAFETY: the tables stay as they are; without the bit nothing is global for a moment.
            unsafe { Cr4::update(|flags| flags.remove(Cr4Flags::PAGE_GLOBAL)) };
            // SAFETY: it was set before.
            unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::PAGE_GLOBAL)) };
        }
        Way::Cr3 => {
            let (root, flags) = Cr3::read();
            // SAFETY: what was there.
            unsafe { Cr3::write(root, flags) };
        }
    }
}

/// Interrupts a CPU that is to forget translations; answers whether the interrupt got out.
///
/// # Context
/// Any but NMI.
pub(crate) fn kick(cpu: CpuId) -> bool {
    let target = smp::cpu(cpu.0);
    target.is_some_and(|cpu| apic::send(cpu.apic_id(), Message::Interrupt(vector::TLB)).is_ok())
}
