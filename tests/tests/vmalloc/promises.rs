//! What a platform, or a CPU, leaves out of its part in forgetting is refused or told.

use std::thread;

use mm::buddy::Gfp;
use mm::config::Layout;
use mm::pagetable::{Level, PageSize};
use mm::platform::CpuId;
use mm::report::Corruption;
use mm::system::{KernelSpaceError, VmallocError};
use mm_tests::lean;
use mm_tests::sim::{Debug, Listed, Machine, Sparse};

use crate::world::{MIB, PAGE, World};

/// Its flush is the default one, which does nothing.
#[test]
fn a_platform_that_flushes_nothing_gets_no_areas() {
    let memory = lean::boot(32 << 20);
    let tables = memory.new_page_table(Level::P4D).unwrap();
    // SAFETY: it is refused, and no CPU uses the tables.
    let adopted =
        unsafe { memory.adopt_kernel_space(tables, Layout::LINUX_LIKE, PageSize::Size4K) };
    assert_eq!(adopted, Err(KernelSpaceError::NoFlush));
    assert!(memory.kernel_space().is_none());
    assert_eq!(memory.vmalloc_init(), Err(VmallocError::NotUp));
}

#[test]
fn a_cpu_that_nobody_waits_for_is_told_of_when_it_uses_areas() {
    let world =
        World::<Listed<(Debug, Sparse)>>::on(Machine::new().ram(0, 64 * MIB).cpus(2), 64 * MIB, 64);
    let one_area = || {
        let area = world.vmalloc(PAGE, Gfp::KERNEL).unwrap();
        world.free(area);
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            // As in a kernel that starts a CPU and never calls `tlb_lazy_leave`.
            let cpu = world.hardware().cpu(1);
            one_area();
            let reports = world.hardware().take_reports();
            let expected = Corruption::LazyCpu { cpu: CpuId(1) };
            assert!(!reports.is_empty(), "nothing was told");
            assert!(reports.iter().all(|report| *report == expected));
            drop(cpu);
            let _cpu = world.cpu(1);
            one_area();
            assert_eq!(world.hardware().take_reports(), []);
        });
        other.join().unwrap();
    });
    let _ = world.vmalloc_purge();
    world.finish();
}
