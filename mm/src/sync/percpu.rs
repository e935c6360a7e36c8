//! One value for each CPU.

use core::marker::PhantomData;

use super::{OwnerCell, Seized};
use crate::mem::Array;
use crate::platform::{CpuId, Platform};

/// The calling task stays on this CPU, and no other task runs there, until the value is dropped.
#[derive(Debug)]
#[must_use = "the task may move again when this is dropped"]
pub struct Pin<'a, P: Platform> {
    platform: &'a P,
    cpu: CpuId,
    /// A pin holds the CPU that it was taken on.
    _not_send: PhantomData<*mut ()>,
}

impl<'a, P: Platform> Pin<'a, P> {
    /// Pins the caller. Context: any.
    #[inline]
    pub fn new(platform: &'a P) -> Self {
        platform.pin();
        Self {
            platform,
            cpu: platform.current_cpu(),
            _not_send: PhantomData,
        }
    }

    /// The machine.
    #[inline]
    #[must_use]
    pub const fn platform(&self) -> &'a P {
        self.platform
    }

    /// Which CPU it is.
    #[inline]
    #[must_use]
    pub const fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl<P: Platform> Drop for Pin<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.platform.unpin();
    }
}

/// A value for each CPU, which the CPU itself uses without a lock, and `S` beside it: see
/// [`OwnerCell`].
#[derive(Debug)]
pub struct PerCpu<T: 'static, S: 'static = ()> {
    cells: Array<OwnerCell<T, S>>,
}

impl<T: Send, S: Sync> PerCpu<T, S> {
    /// No CPU has one.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            cells: Array::empty(),
        }
    }

    /// The cells of as many CPUs as there are elements.
    #[must_use]
    pub const fn new(cells: Array<OwnerCell<T, S>>) -> Self {
        Self { cells }
    }

    /// What everybody may look at, by CPU.
    pub fn shared(&self) -> impl Iterator<Item = &S> {
        self.cells.iter().map(OwnerCell::shared)
    }

    /// A CPU's cell.
    #[inline]
    #[must_use]
    pub fn cell(&self, cpu: CpuId) -> Option<&OwnerCell<T, S>> {
        self.cells.at(u64::from(cpu.0))
    }

    /// Uses this CPU's value. Then, if another CPU wants it drained, `drain` is done to it. `None`
    /// where this CPU has no value, or the code that was interrupted is using it. Neither closure
    /// sleeps. Context: any.
    #[inline]
    pub fn with<P: Platform, R>(
        &self,
        pin: &Pin<'_, P>,
        body: impl FnOnce(&mut T, &S) -> R,
        drain: impl FnOnce(&mut T, &S),
    ) -> Option<R> {
        let cell = self.cell(pin.cpu())?;
        // SAFETY: the pin holds the CPU that owns the cell.
        let result = unsafe { cell.enter(body) }?;
        if cell.is_drain_wanted() {
            self.drain_cell(pin, drain);
        }
        Some(result)
    }

    /// Drains this CPU's value because another CPU wants it.
    #[cold]
    #[inline(never)]
    fn drain_cell<P: Platform>(&self, pin: &Pin<'_, P>, drain: impl FnOnce(&mut T, &S)) {
        let Some(cell) = self.cell(pin.cpu()) else {
            return;
        };
        // SAFETY: as in `with`.
        if unsafe { cell.enter(drain) }.is_some() {
            cell.drained();
        }
    }

    /// Does what other CPUs asked for, if they did. If the code that was interrupted is using the
    /// value, it will see the request when it is done. Context: any, on the CPU itself.
    pub fn serve<P: Platform>(&self, pin: &Pin<'_, P>, drain: impl FnOnce(&mut T, &S)) {
        let wanted = self.cell(pin.cpu()).is_some_and(OwnerCell::is_drain_wanted);
        if wanted {
            self.drain_cell(pin, drain);
        }
    }

    /// Uses the value of a CPU that is away, in its place. `None` if there is none, or the CPU
    /// left in the midst of using it.
    pub fn with_seized<R>(
        &self,
        seized: &Seized<'_>,
        body: impl FnOnce(&mut T, &S) -> R,
    ) -> Option<R> {
        let cell = self.cell(seized.cpu())?;
        // SAFETY: the hand-over was won, and the CPU keeps away (`Presence::leave`).
        let result = unsafe { cell.enter(body) }?;
        cell.drained();
        Some(result)
    }
}
