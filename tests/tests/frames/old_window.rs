//! A CPU may go on reading zeros where the frame table's array was not mapped before. Here all do so for good: whatever
//! is given back is found by its section, and wrong frees are told apart as always.

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::FreeError;
use mm::slab::{BadFree, SlabFlags};
use mm::system::KmemCache;
use mm_tests::sim::{Debug, Hardened, Listed, Machine, OldVmemmap, Plain, SimConfig, Vmemmap};

const MIB: u64 = 1 << 20;

fn gives_everything_back<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    for order in Order::all() {
        drop(machine.alloc_block(Gfp::KERNEL, order).unwrap());
        let pfn = machine.alloc_pages(Gfp::KERNEL, order).unwrap();
        // SAFETY: allocated just now.
        unsafe { machine.free_pages(pfn, order) }.unwrap();
        // SAFETY: nobody has it: that it is refused is what is tested.
        let again = unsafe { machine.free_pages(pfn, order) };
        assert_eq!(again, Err(FreeError::AlreadyFree), "{order:?}");
    }
    // SAFETY: as above.
    let nowhere = unsafe { machine.free_pages(Pfn::new(1 << 40), Order::ZERO) };
    assert_eq!(nowhere, Err(FreeError::NotPresent));
    let mut pages = [None; 100];
    let full = machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages);
    assert_eq!(full, Ok(100));
    // SAFETY: allocated just now.
    unsafe { machine.free_pages_bulk(&mut pages) }.unwrap();
    machine.finish();
}

fn takes_objects_back<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    for size in [8, 64, 200, 4_096, 10_000, 16_384, 100_000] {
        let objects: Vec<_> = (0..50)
            .map(|_| machine.kmalloc(size, Gfp::KERNEL).unwrap())
            .collect();
        for object in objects {
            // SAFETY: allocated just now.
            unsafe { machine.kfree(object) }.unwrap();
        }
    }
    let block = machine.kmalloc(16_384, Gfp::KERNEL).unwrap();
    // SAFETY: within the block, and refused.
    let inside = unsafe { machine.kfree(block.add(4_096)) };
    assert!(matches!(
        inside,
        Err(BadFree::NotASlab | BadFree::NotAnObject)
    ));
    // SAFETY: allocated just now.
    unsafe { machine.kfree(block) }.unwrap();
    let memory = &*machine;
    let cache = KmemCache::create(memory, "old", (200, 8), SlabFlags::NO_MERGE).unwrap();
    let mut objects = [None; 100];
    assert_eq!(cache.alloc_bulk(Gfp::KERNEL, &mut objects), Ok(100));
    // SAFETY: allocated just now.
    unsafe { cache.free_bulk(&mut objects) }.unwrap();
    let object = cache.alloc(Gfp::KERNEL).unwrap();
    // SAFETY: as above.
    unsafe { cache.free(object) }.unwrap();
    cache.destroy().unwrap();
    machine.shrink_caches();
    machine.check();
    // What the cache was made of stays.
    machine.abandon();
}

macro_rules! for_old_windows {
    ($($body:ident),*) => {$(
        mod $body {
            use super::*;

            #[test]
            fn plain() { super::$body::<(Plain, OldVmemmap)>(); }
            #[test]
            fn listed_plain() { super::$body::<Listed<(Plain, OldVmemmap)>>(); }
            #[test]
            fn listed_hardened() { super::$body::<Listed<(Hardened, OldVmemmap)>>(); }
            #[test]
            fn listed_debug() { super::$body::<Listed<(Debug, OldVmemmap)>>(); }
            #[test]
            fn listed_plain_not_old() { super::$body::<Listed<(Plain, Vmemmap)>>(); }
        }
    )*};
}

for_old_windows!(gives_everything_back, takes_objects_back);
