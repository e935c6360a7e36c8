//! Implementing the platform is a promise.
//~ E0200

use core::ptr::NonNull;

use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::platform::{CpuId, IrqState, Platform};
use mm::report::Corruption;

pub struct Liar;

impl Platform for Liar {
    fn direct_map(&self, _: PhysRange) -> Option<NonNull<u8>> {
        None
    }
    fn virt_to_phys(&self, _: VirtAddr) -> Option<PhysAddr> {
        None
    }
    fn current_cpu(&self) -> CpuId {
        CpuId(0)
    }
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn corruption(&self, _: &Corruption) {}
}
