//! The same of kernel addresses.

use std::ptr::NonNull;

use mm::addr::{VirtAddr, VirtRange};
use mm::system::VmallocError;
use mm_tests::sim::SimTables;

use super::{Action, Call, World};

const START: u64 = 0xffff_c900_0000_0000;

fn range() -> VirtRange {
    VirtRange::from_size(VirtAddr::new(START), 1 << 30).unwrap()
}

/// Has areas ready, so that none needs memory for its record.
pub(super) fn init(world: &World) -> Result<(), VmallocError> {
    // SAFETY: nobody has these addresses.
    unsafe { world.vmalloc_init(range(), SimTables::leak(true)) }?;
    world.vmalloc_reserve(64)
}

fn vfree(call: &Call, area: Result<NonNull<u8>, VmallocError>) {
    // SAFETY: it was taken just now.
    unsafe { call.world.vfree(area.unwrap()) }.unwrap();
}

pub(super) const CALLS: &[(&str, Action)] = &[
    ("is_vmalloc_addr", |call| {
        assert!(call.world.is_vmalloc_addr(VirtAddr::new(START)));
    }),
    ("set_vmalloc_lazy_max", |call| {
        call.world.set_vmalloc_lazy_max(100);
    }),
    ("validate_vmalloc", |call| {
        call.world.validate_vmalloc().unwrap();
    }),
    ("vfree", |call| {
        vfree(call, call.world.vmalloc(5000, call.gfp));
    }),
    ("vmalloc", |call| {
        vfree(call, call.world.vmalloc(5000, call.gfp));
    }),
    ("vmalloc_align", |call| {
        vfree(call, call.world.vmalloc_align(1, 1 << 14, call.gfp));
    }),
    ("vmalloc_huge", |call| {
        vfree(call, call.world.vmalloc_huge(2 << 20, call.gfp));
    }),
    ("vmalloc_init", |call| {
        let again = init(call.world);
        assert_eq!(again, Err(VmallocError::BadRange(range())), "once");
    }),
    ("vmalloc_node", |call| {
        let node = mm::platform::NodeId(0);
        vfree(call, call.world.vmalloc_node(1, call.gfp, node));
    }),
    ("vmalloc_purge", |call| {
        assert!(call.world.vmalloc_purge().is_some());
    }),
    ("vmalloc_reserve", |call| {
        call.world.vmalloc_reserve(64).unwrap();
    }),
    ("vmalloc_stats", |call| {
        assert!(call.world.vmalloc_stats().lazy_max_pages > 0);
    }),
    ("vmalloc_to_pfn", |call| {
        let nowhere = call.world.vmalloc_to_pfn(VirtAddr::new(0));
        assert_eq!(nowhere, None);
    }),
    ("vzalloc", |call| vfree(call, call.world.vzalloc(1))),
];
