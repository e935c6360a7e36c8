//! CPUs that go idle, park or go offline, and come back.

use crate::platform::Platform;
use crate::sync::shootdown::Lazy;
use crate::system::Memory;

impl<P: Platform> Memory<P> {
    /// This CPU goes away: idle, parked or offline. Others may take what it has on its page lists
    /// until it [returns](Self::return_cpu). Nothing has to call this; without it, a CPU that sleeps
    /// is woken for what it has. Context: any, pinned.
    ///
    /// # Safety
    ///
    /// Until it returns, this CPU uses nothing of the library: an interrupt handler that may do so
    /// calls [`Self::return_cpu`] first. An NMI handler must not wait as that does; it may use
    /// [`Self::alloc_pages_nolock`] and [`Self::free_pages_nolock`], nothing else.
    pub unsafe fn leave_cpu(&self) {
        if let Some(core) = self.core() {
            let cpu = self.platform().current_cpu();
            // SAFETY: the caller's word.
            unsafe { core.cpus.presence.leave(cpu) };
        }
    }

    /// This CPU has nothing to do, or stops: who has others flush their TLBs does not interrupt it from now on, nor
    /// wait for it, until [`tlb_lazy_leave`](Self::tlb_lazy_leave) (Linux: `is_lazy`). A CPU begins that way, but for the one
    /// that brings memory up. Context: any, pinned; not NMI, unless that has left it first.
    ///
    /// # Safety
    ///
    /// Until it leaves, the CPU uses no address that anybody may unmap or map elsewhere; every handler leaves
    /// first. With [`Lazy::Offline`] it does not even take interrupts but one that starts it, or leaves first.
    pub unsafe fn tlb_lazy_enter(&self, lazy: Lazy) {
        let cpu = self.platform().current_cpu();
        if let Some(seat) = self.core().and_then(|core| core.tlb.seat(cpu)) {
            seat.enter_lazy(lazy);
        }
    }

    /// This CPU is back; waits while another one acts for it, which is short. Without effect on a
    /// CPU that was not away. Context: any, pinned.
    pub fn return_cpu(&self) {
        if let Some(core) = self.core() {
            core.cpus
                .presence
                .return_from(self.platform().current_cpu());
        }
    }
}
