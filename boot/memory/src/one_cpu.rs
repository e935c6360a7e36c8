//! The machine as `mm` sees it.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use mm::addr::{DirectMap, PhysAddr, PhysRange, VirtAddr};
use mm::memblock::INLINE_REGIONS;
use mm::platform::{CpuId, IrqState, Platform, TlbFeatures, TlbFlush, TlbStep};
use mm::report::Corruption;
use mm::sync::Once;
use mm::system::Memory;
use x86_64::instructions::{interrupts, tlb};
use x86_64::registers::control::{Cr4, Cr4Flags};

/// A machine that runs one CPU, without threads that are preempted.
pub struct OneCpu {
    pub(crate) ram: Once<[PhysRange; INLINE_REGIONS]>,
    pub(crate) direct_map: Once<DirectMap>,
    interrupts: AtomicU32,
    report: fn(&Corruption),
}

impl OneCpu {
    /// The memory of such a machine, not up yet: what a kernel has as a `static`. `report` takes notice of damage that `mm`
    /// finds ([`Platform::corruption`]): it must not allocate. Context: any.
    #[must_use]
    pub const fn memory(report: fn(&Corruption)) -> Memory<Self> {
        Memory::new(Self {
            ram: Once::new(),
            direct_map: Once::new(),
            interrupts: AtomicU32::new(0),
            report,
        })
    }

    /// Begins the handler of an interrupt: what it asks for does not wait until the value is dropped. A handler that uses no
    /// memory needs none. Context: any but NMI.
    #[must_use = "the handler ends where this is dropped"]
    pub fn interrupt(&self) -> InInterrupt<'_> {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        InInterrupt(self)
    }
}

/// The handler of an interrupt runs.
#[derive(Debug)]
pub struct InInterrupt<'a>(&'a OneCpu);

impl Drop for InInterrupt<'_> {
    fn drop(&mut self) {
        self.0.interrupts.fetch_sub(1, Ordering::Relaxed);
    }
}

// SAFETY: (1, 2) `direct_map` is filled once, with RAM that the boot loader mapped for good; who may use which part of it is
// the claim's affair, in `bring_up`; (3) `cli` masks interrupts, and nothing moves a task; (4, 8, 9) there is one CPU, which
// does one thing after the other; (5, 6, 7, 10) the defaults promise nothing; (11) each step is the instruction of its
// name; (12) no other CPU is started.
unsafe impl Platform for OneCpu {
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        self.direct_map.get()?.phys_to_virt(range)
    }
    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.direct_map.get()?.virt_to_phys(addr)
    }
    fn current_cpu(&self) -> CpuId {
        CpuId(0)
    }
    fn irq_save(&self) -> IrqState {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        IrqState::new(were_on.into())
    }
    fn irq_restore(&self, state: IrqState) {
        if state.flags() != 0 {
            interrupts::enable();
        }
    }
    fn corruption(&self, report: &Corruption) {
        (self.report)(report);
    }
    // What follows is optional: without it, no `vmalloc` and no `ioremap`, …
    const FLUSHES_TLB: bool = true;
    fn flush_tlb_here(&self, what: TlbFlush) {
        self.tlb_features().steps(what).for_each(carry_out);
    }
    fn tlb_features(&self) -> TlbFeatures {
        let control = Cr4::read();
        TlbFeatures {
            global_pages: control.contains(Cr4Flags::PAGE_GLOBAL),
            pcids: control.contains(Cr4Flags::PCID),
            invpcid: false,
        }
    }
    // … handlers of interrupts that must not use memory, …
    fn may_sleep(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) == 0
    }
    // … order and links of free objects that anybody can tell, …
    fn random_seed(&self) -> u64 {
        // SAFETY: every x86_64 has the instruction.
        unsafe { _rdtsc() }
    }
    // … and a few instructions more for each object that is freed.
    fn direct_map_base(&self) -> Option<VirtAddr> {
        Some(self.direct_map.get()?.base())
    }
}

/// Forgets translations (SDM vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches").
fn carry_out(step: TlbStep) {
    match step {
        // SAFETY: forgets what may be looked up again. Not the `x86_64` crate's: its addresses have 48 bits.
        TlbStep::Page(page) => unsafe {
            asm!("invlpg [{}]", in(reg) page.as_u64(), options(nostack, preserves_flags));
        },
        TlbStep::ReloadCr3 => tlb::flush_all(),
        // INVPCID is never asked for: the features say that there is none.
        TlbStep::TogglePge | TlbStep::Everything => {
            for _there_and_back in 0..2 {
                // SAFETY: tables stay as they are; what is global may change for a moment.
                unsafe { Cr4::update(|flags| flags.toggle(Cr4Flags::PAGE_GLOBAL)) };
            }
        }
    }
}

impl fmt::Debug for OneCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneCpu")
            .field("direct_map", &self.direct_map)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_of_interrupts_do_not_wait_and_tasks_do() {
        let memory = OneCpu::memory(|_| ());
        let platform = memory.platform();
        assert!(platform.may_sleep());
        let outer = platform.interrupt();
        let inner = platform.interrupt();
        assert!(!platform.may_sleep());
        drop(inner);
        assert!(!platform.may_sleep(), "the outer one still runs");
        drop(outer);
        assert!(platform.may_sleep());
    }

    #[test]
    fn nothing_is_reached_before_the_loaders_map_is_known() {
        let memory = OneCpu::memory(|_| ());
        let platform = memory.platform();
        let page = PhysRange::from_size(PhysAddr::new(0x1000), 0x1000);
        assert_eq!(platform.direct_map(page), None);
        assert_eq!(platform.direct_map_base(), None);
        assert_eq!(platform.virt_to_phys(VirtAddr::new(0x1000)), None);
    }

    #[test]
    fn damage_goes_to_who_was_named() {
        static REPORTS: AtomicU32 = AtomicU32::new(0);
        let memory = OneCpu::memory(|_| {
            REPORTS.fetch_add(1, Ordering::Relaxed);
        });
        let damage = Corruption::LostObject {
            pfn: mm::addr::Pfn::ZERO,
            offset: 0,
        };
        memory.platform().corruption(&damage);
        assert_eq!(REPORTS.load(Ordering::Relaxed), 1);
    }
}
