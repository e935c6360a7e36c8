//! The same of kernel addresses.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use mm::addr::{PhysAddr, VirtAddr, VirtRange};
use mm::pagetable::{Attributes, Cache};
use mm::system::VmallocError;
use mm_tests::sim::SimSpace;

use super::{Action, Call, World};

const START: u64 = 0xffff_c900_0000_0000;

fn range() -> VirtRange {
    VirtRange::from_size(VirtAddr::new(START), 1 << 30).unwrap()
}

/// Has areas ready, so that none needs memory for its record.
pub(super) fn init(world: &World) -> Result<(), VmallocError> {
    let _space = SimSpace::adopt(world, range())?;
    world.vmalloc_reserve(64)
}

fn vfree(call: &Call, area: Result<NonNull<u8>, VmallocError>) {
    // SAFETY: it was taken just now.
    unsafe { call.world.vfree(area.unwrap()) }.unwrap();
}

fn kvfree(call: &Call, first: NonNull<u8>) {
    // SAFETY: it was taken just now.
    unsafe { call.world.kvfree(first) }.unwrap();
}

/// Where nothing is.
const DEVICE: PhysAddr = PhysAddr::new(0xfed0_0000);

fn device(call: &Call) -> NonNull<u8> {
    // SAFETY: nobody uses the address.
    unsafe { call.world.ioremap(DEVICE, 100, Cache::Uncached) }.unwrap()
}

fn iounmap(call: &Call) {
    // SAFETY: nobody uses it.
    unsafe { call.world.iounmap(device(call)) }.unwrap();
}

fn memunmap(call: &Call) {
    // SAFETY: nobody uses the address.
    let device = unsafe { call.world.memremap(DEVICE, 100, Cache::Uncached) };
    // SAFETY: as above.
    unsafe { call.world.memunmap(device.unwrap()) }.unwrap();
}

fn vunmap(call: &Call) {
    let frames = [call.shared.pfn()];
    // SAFETY: the page stays, and nobody uses the addresses.
    let area = unsafe { call.world.vmap(&frames, Attributes::KERNEL) };
    // SAFETY: as above.
    unsafe { call.world.vunmap(area.unwrap()) }.unwrap();
}

fn vm_unmap_ram(call: &Call) {
    // SAFETY: as above.
    let area = unsafe { call.world.vm_map_ram(&[call.shared.pfn()]) };
    // SAFETY: as above.
    unsafe { call.world.vm_unmap_ram(area.unwrap()) }.unwrap();
}

pub(super) const CALLS: &[(&str, Action)] = &[
    ("ioremap", iounmap),
    ("iounmap", iounmap),
    ("memremap", memunmap),
    ("memunmap", memunmap),
    ("vm_map_ram", vm_unmap_ram),
    ("vm_unmap_ram", vm_unmap_ram),
    ("vmap", vunmap),
    ("vunmap", vunmap),
    ("kmap_local", |call| {
        assert!(call.world.kmap_local(call.shared.pfn()).is_some());
    }),
    ("kvfree", |call| {
        kvfree(call, call.world.kvmalloc(100, call.gfp).unwrap());
    }),
    ("kvfree_deferred", |call| {
        let area = call.world.kvmalloc(10_000, call.gfp).unwrap();
        // SAFETY: it was taken just now.
        unsafe { call.world.kvfree_deferred(area) }.unwrap();
    }),
    ("kvmalloc", |call| {
        kvfree(call, call.world.kvmalloc(10_000, call.gfp).unwrap());
    }),
    ("kvrealloc", |call| {
        let first = call.world.kvmalloc(100, call.gfp).unwrap();
        // SAFETY: it was taken just now.
        let moved = unsafe { call.world.kvrealloc(first, (100, 9000), call.gfp) };
        kvfree(call, moved.unwrap());
    }),
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
        let again = call.world.vmalloc_init();
        assert_eq!(again, Err(VmallocError::Known), "once");
    }),
    ("vmalloc_node", |call| {
        let node = mm::platform::NodeId(0);
        vfree(call, call.world.vmalloc_node(1, call.gfp, node));
    }),
    ("publish", |call| {
        let _ = call.world.publish();
    }),
    ("publish_events", |call| {
        static CELLS: [mm::inspect::EventCell; 1] = [[const { AtomicU64::new(0) }; 2]];
        let ring = Box::leak(Box::new(mm::inspect::EventRing::new(&CELLS)));
        let cpu = mm::platform::CpuId(0);
        call.world.publish_events(cpu, ring, 0).unwrap();
    }),
    ("vmalloc_purge", |call| {
        let _ = call.world.vmalloc_purge();
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
