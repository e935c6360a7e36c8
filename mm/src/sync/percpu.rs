//! One value for each CPU.

use core::marker::PhantomData;
use core::ptr::NonNull;
#[cfg(not(loom))]
use core::ptr::from_ref;

use super::atomic::{AtomicPtr, Ordering};
use super::owner::Entered;
use super::{OwnerCell, Seized};
use crate::addr::to_index;
#[cfg(not(loom))]
use crate::addr::{Rows, VirtAddr, to_count};
use crate::mem::Array;
use crate::platform::{CpuId, Platform};

/// The calling task stays on this CPU, and no other task runs there, until the value is dropped.
#[derive(Debug)]
#[must_use = "the task may move again when this is dropped"]
pub struct Pin<'a, P: Platform> {
    platform: &'a P,
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
    pub fn cpu(&self) -> CpuId {
        self.platform.current_cpu()
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
///
/// # Invariants
/// It is part of a [`Memory`](crate::system::Memory), and only pins of that memory's platform, and seats
/// won of its CPUs, are shown to it.
#[derive(Debug)]
pub(crate) struct PerCpu<T: 'static, S: 'static = ()> {
    cells: &'static [OwnerCell<T, S>],
}

impl<T: Send, S: Sync> PerCpu<T, S> {
    /// No CPU has one.
    #[must_use]
    pub(crate) const fn empty() -> Self {
        Self { cells: &[] }
    }

    /// The cells of as many CPUs as there are elements.
    #[must_use]
    pub(crate) const fn new(cells: Array<OwnerCell<T, S>>) -> Self {
        let cells = cells.leak();
        Self { cells }
    }

    /// The same in a model.
    #[cfg(all(test, loom))]
    pub(crate) fn of_a_model(cells: Vec<OwnerCell<T, S>>) -> Self {
        let cells = cells.leak();
        Self { cells }
    }

    /// Whether no CPU has one.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// What everybody may look at, by CPU.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &S> {
        self.cells.iter().map(OwnerCell::shared)
    }

    /// Where what everybody may look at is: of the first CPU, and how far it is to the next one's. The fields are not said.
    #[cfg(not(loom))]
    pub(crate) fn rows(&self) -> Option<Rows> {
        let first = self.cells.first()?;
        Some(Rows {
            at: VirtAddr::from_ptr(first.shared()),
            count: to_count(self.cells.len()),
            stride: to_count(size_of::<OwnerCell<T, S>>()),
            fields: [0; 8],
        })
    }

    /// A CPU's cell.
    #[inline]
    #[must_use]
    pub(crate) fn cell(&self, cpu: CpuId) -> Option<&OwnerCell<T, S>> {
        self.own(cpu)
    }

    fn own(&self, cpu: CpuId) -> Option<&'static OwnerCell<T, S>> {
        self.cells.get(to_index(u64::from(cpu.0)))
    }

    /// Enters this CPU's value. `None` where this CPU has none, or the code that was interrupted
    /// is using it. Whoever leaves looks at [`OwnerCell::is_drain_wanted`]. Context: any.
    #[inline(always)]
    pub(crate) fn enter<'a, P: Platform>(&'a self, pin: &'a Pin<'_, P>) -> Option<Owned<'a, T, S>> {
        let cell = self.cell(pin.cpu())?;
        // SAFETY: the pin holds the CPU that owns the cell for as long as the answer lives.
        let entered = unsafe { cell.enter() }?;
        Some(Owned { cell, entered })
    }

    /// Does what other CPUs asked for, if they did. If the code that was interrupted is using the
    /// value, it will see the request when it is done. Context: any, on the CPU itself.
    pub(crate) fn serve<P: Platform>(&self, pin: &Pin<'_, P>, drain: impl FnOnce(&mut T, &S)) {
        let Some(cell) = self.cell(pin.cpu()).filter(|cell| cell.is_drain_wanted()) else {
            return;
        };
        if let Some(mut owned) = self.enter(pin) {
            let (value, shared) = owned.parts();
            drain(value, shared);
            cell.drained();
        }
    }

    /// Uses the value of a CPU that is away, in its place. `false` if there is none, or the CPU
    /// left in the midst of using it.
    pub(crate) fn with_seized(&self, seized: &Seized<'_>, body: impl FnOnce(&mut T, &S)) -> bool {
        let Some(cell) = self.cell(seized.cpu()) else {
            return false;
        };
        // SAFETY: the hand-over was won, and the CPU keeps away (`Presence::leave`).
        let Some(mut entered) = (unsafe { cell.enter() }) else {
            return false;
        };
        let (value, shared) = entered.parts();
        body(value, shared);
        cell.drained();
        true
    }
}

/// A value of no CPU, which nobody gets into.
#[derive(Debug)]
pub(crate) struct Vacant<T: 'static, S: 'static>(OwnerCell<T, S>);

#[cfg(not(loom))]
impl<T, S> Vacant<T, S> {
    /// Around a value that is never used.
    pub(crate) const fn new(value: T, shared: S) -> Self {
        Self(OwnerCell::vacant(value, shared))
    }
}

/// Values that [`Row`]s lead to.
pub(crate) trait Resident<S: 'static>: Sized + 'static {
    /// Where a way leads that leads nowhere yet.
    const VACANT: &'static Vacant<Self, S>;
}

/// The ways from one CPU to `N` of the values that it has, and `X`, which is the same for all CPUs or a
/// row of its own.
///
/// # Invariants
/// Each of `cells` points at a cell that is there for good.
#[derive(Debug)]
pub(crate) struct Row<T: 'static, S: 'static, X, const N: usize> {
    beside: X,
    cells: [AtomicPtr<OwnerCell<T, S>>; N],
}

#[cfg(not(loom))]
impl<T: Resident<S>, S, X, const N: usize> Row<T, S, X, N> {
    /// No ways yet.
    pub(crate) const fn new(beside: X) -> Self {
        // INVARIANT: a static's address.
        let cells = [const { AtomicPtr::new(from_ref(&T::VACANT.0).cast_mut()) }; N];
        Self { beside, cells }
    }

    /// What a platform keeps for a CPU that has no row yet.
    pub(crate) const fn no_anchor(&'static self) -> NonNull<()> {
        NonNull::from_ref(self).cast()
    }
}

impl<T, S, X, const N: usize> Row<T, S, X, N> {
    fn set(&self, slot: usize, cell: &'static OwnerCell<T, S>) {
        if let Some(place) = self.cells.get(slot) {
            // INVARIANT: as above.
            place.store(NonNull::from(cell).as_ptr(), Ordering::Release);
        }
    }
}

/// For each CPU the ways to `N` of its values: each is one load.
///
/// # Invariants
/// A CPU's row holds cells of that CPU, or the vacant one.
#[derive(Debug)]
pub(crate) struct Shortcuts<T: 'static, S: 'static, X: 'static, const N: usize> {
    rows: Array<Row<T, S, X, N>>,
}

impl<T: Send, S: Sync, X: Sync, const N: usize> Shortcuts<T, S, X, N> {
    /// With a row for each CPU.
    #[must_use]
    pub(crate) const fn new(rows: Array<Row<T, S, X, N>>) -> Self {
        // INVARIANT: only `set` changes a row.
        Self { rows }
    }

    /// Makes `slot` a CPU's way to its own one of `values`, if it has one.
    pub(crate) fn set(&self, cpu: CpuId, slot: usize, values: &PerCpu<T, S>) {
        let row = self.rows.get(to_index(u64::from(cpu.0)));
        if let Some((row, cell)) = row.zip(values.own(cpu)) {
            // INVARIANT: it is that CPU's.
            row.set(slot, cell);
        }
    }

    /// The row of this CPU, if it has one.
    #[inline]
    pub(crate) fn here<'a, P: Platform>(
        &'a self,
        pin: &'a Pin<'_, P>,
    ) -> Option<Here<'a, T, S, X, N>> {
        let row = self.rows.get(to_index(u64::from(pin.cpu().0)))?;
        // INVARIANT: the row is this CPU's (the invariant), on which the pin holds the caller.
        Some(Here { row })
    }

    /// What a platform keeps for a CPU, so that [`Anchors`] find its row.
    pub(crate) fn anchor(&self, cpu: CpuId) -> Option<NonNull<()>> {
        let row = self.rows.get(to_index(u64::from(cpu.0)))?;
        Some(NonNull::from(row).cast())
    }
}

/// Rows found by what the platform keeps for each CPU ([`Platform::anchor`]).
///
/// # Invariants
/// It is part of a [`Memory`](crate::system::Memory), the only one there; what that memory gives its
/// platform to keep are anchors of rows of this type, and only pins of that platform are shown to it.
pub(crate) struct Anchors<T: 'static, S: 'static, X: 'static, const N: usize> {
    rows: PhantomData<Row<T, S, X, N>>,
}

impl<T: Send, S: Sync, X: Sync, const N: usize> Anchors<T, S, X, N> {
    /// Of a memory that is not up yet: its platform has nothing to keep.
    pub(crate) const fn new() -> Self {
        Self { rows: PhantomData }
    }

    /// The row of this CPU, if the platform has its anchor.
    #[inline(always)]
    pub(crate) fn here<'a, P: Platform>(
        &'a self,
        pin: &'a Pin<'_, P>,
    ) -> Option<Here<'a, T, S, X, N>> {
        Self::found(pin.platform.anchor())
    }

    /// The same for requests: none where the running task may have a policy.
    #[inline(always)]
    pub(crate) fn here_for_request<'a, P: Platform>(
        &'a self,
        pin: &'a Pin<'_, P>,
    ) -> Option<Here<'a, T, S, X, N>> {
        Self::found(pin.platform.request_anchor())
    }

    #[inline(always)]
    fn found<'a>(anchor: Option<NonNull<()>>) -> Option<Here<'a, T, S, X, N>> {
        let row = anchor?.cast::<Row<T, S, X, N>>();
        // SAFETY: the platform answers what `Memory::anchor` said for the CPU that it is asked on, or
        // `no_anchor` (Platform 10): the address of a row of this type (the invariant), which lives as long
        // as the platform.
        let row = unsafe { row.as_ref() };
        // INVARIANT: it is this CPU's, on which the caller's pin holds.
        Some(Here { row })
    }
}

/// The row of this CPU.
///
/// # Invariants
/// The caller is pinned to the CPU whose row it is, for `'a`.
pub(crate) struct Here<'a, T: 'static, S: 'static, X, const N: usize> {
    row: &'a Row<T, S, X, N>,
}

impl<'a, T, S, X, const N: usize> Here<'a, T, S, X, N> {
    /// What stands beside the ways.
    #[inline(always)]
    pub(crate) const fn beside(&self) -> &'a X {
        &self.row.beside
    }

    /// Enters one of this CPU's values. `None` as in [`PerCpu::enter`], and where there is no way.
    #[inline(always)]
    pub(crate) fn enter(&self, slot: usize) -> Option<Owned<'a, T, S>> {
        let cell = self.row.cells.get(slot)?.load(Ordering::Acquire);
        // SAFETY: it is there for good (the invariant of `Row`).
        let cell = unsafe { &*cell };
        // SAFETY: the caller is pinned to the CPU that owns the cell (the invariants of this and of
        // `Shortcuts`) for as long as the answer lives.
        let entered = unsafe { cell.enter() }?;
        Some(Owned { cell, entered })
    }
}

/// What stands beside the ways of a row that has another row beside it.
type Beside<A, U, V, const M: usize> = (A, Row<U, V, (), M>);

impl<T, S, A, U, V, const N: usize, const M: usize> Shortcuts<T, S, Beside<A, U, V, M>, N>
where
    T: Send,
    S: Sync,
    A: Sync,
    U: Send,
    V: Sync,
{
    /// Makes `slot` of the other row every CPU's way to its own one of `values`. What was its way before is
    /// one until a CPU sees this.
    pub(crate) fn set_others(&self, slot: usize, values: &PerCpu<U, V>) {
        for (cpu, row) in (0..).map(CpuId).zip(self.rows.iter()) {
            if let Some(cell) = values.own(cpu) {
                // INVARIANT: it is that CPU's.
                row.beside.1.set(slot, cell);
            }
        }
    }
}

impl<'a, T, S, A, U, V, const N: usize, const M: usize> Here<'a, T, S, Beside<A, U, V, M>, N> {
    /// The other row of this CPU.
    #[inline(always)]
    pub(crate) const fn other(&self) -> Here<'a, U, V, (), M> {
        // INVARIANT: it is part of this CPU's row.
        Here {
            row: &self.row.beside.1,
        }
    }
}

/// This CPU's value, entered.
#[derive(Debug)]
pub(crate) struct Owned<'a, T, S> {
    cell: &'a OwnerCell<T, S>,
    entered: Entered<'a, T, S>,
}

impl<'a, T, S> Owned<'a, T, S> {
    /// The value, and what everybody may look at.
    #[inline(always)]
    pub(crate) fn parts(&mut self) -> (&mut T, &'a S) {
        self.entered.parts()
    }

    /// Leaves. Answers whether another CPU wants the value drained: [`PerCpu::serve`] it.
    #[inline(always)]
    #[must_use]
    pub(crate) fn leave(self) -> bool {
        let cell = self.cell;
        drop(self.entered);
        cell.is_drain_wanted()
    }
}
