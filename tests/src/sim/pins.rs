//! On which CPUs the code of a host thread is pinned: it may not sleep there. A thread that is several CPUs in turn has pins
//! on each of them.

use std::cell::RefCell;

use mm::platform::CpuId;

thread_local! {
    /// Pins, by CPU.
    static PINS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

fn with<R>(cpu: CpuId, body: impl FnOnce(&mut u32) -> R) -> R {
    let CpuId(cpu) = cpu;
    PINS.with_borrow_mut(|pins| {
        let least = cpu as usize + 1;
        if pins.len() < least {
            pins.resize(least, 0);
        }
        body(&mut pins[cpu as usize])
    })
}

/// One pin more.
pub(super) fn pin(cpu: CpuId) {
    with(cpu, |pins| *pins += 1);
}

/// One less. A test may drop what it took on another CPU.
pub(super) fn unpin(cpu: CpuId) {
    PINS.with_borrow_mut(|pins| {
        let here = cpu.0 as usize;
        let is_pinned = |cpu: &usize| pins.get(*cpu).is_some_and(|count| *count > 0);
        let cpu = std::iter::once(here).chain(0..pins.len()).find(is_pinned);
        pins[cpu.expect("pinned")] -= 1;
    });
}

/// Whether this thread is pinned on a CPU.
pub(super) fn is_pinned(cpu: CpuId) -> bool {
    with(cpu, |pins| *pins > 0)
}
