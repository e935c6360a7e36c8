//! CPUs that go idle, park or go offline, and come back.

use crate::platform::Platform;
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
