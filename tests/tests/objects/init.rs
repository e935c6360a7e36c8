//! What is in an object when it is handed out: the matrix of Linux's `test_meminit`, R11.

use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::slab::{SlabFlags, SlubDebug};
use mm::system::KmemCache;
use mm_tests::for_every_config;
use mm_tests::sim::{Machine, SimConfig};

const MIB: u64 = 1 << 20;

for_every_config! {
    nobody_sees_what_was_there_where_that_is_switched_off,
}

fn bytes(object: NonNull<u8>, size: usize) -> Vec<u8> {
    // SAFETY: an object of that size.
    unsafe { std::slice::from_raw_parts(object.as_ptr(), size) }.to_vec()
}

/// A thousand times: an object full of garbage is freed, and what comes next is looked at.
fn nobody_sees_what_was_there_where_that_is_switched_off<C: SimConfig>() {
    for (on_alloc, on_free) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut machine = Machine::<C>::new()
            .ram(0, 32 * MIB)
            .options(|options| {
                options.init_on_alloc = on_alloc;
                options.init_on_free = on_free;
                // Poison would be there instead.
                options.slub_debug = SlubDebug::OFF;
                options.page_poison = false;
            })
            .boot();
        let sizes = (0..10).map(|shift| 8 << shift);
        let mut seen = 0;
        for size in sizes.chain([1, 24, 100, 5000]) {
            let cache = KmemCache::create(&*machine, "test", (size, 8), SlabFlags::NO_MERGE);
            let cache = cache.unwrap();
            for round in 0..75 {
                // From what is at hand, from a slab, and on demand.
                let zeroed = round % 5 == 0;
                let gfp = Gfp::KERNEL | if zeroed { Gfp::ZERO } else { Gfp::empty() };
                let of_class = machine.kmalloc(size, gfp).unwrap();
                let of_cache = cache.alloc(gfp).unwrap();
                for object in [of_class, of_cache] {
                    let found = bytes(object, size);
                    let is_zero = found.iter().all(|&byte| byte == 0);
                    if on_alloc || on_free || zeroed {
                        assert!(is_zero, "{size}, round {round}: {found:x?}");
                    }
                    seen += usize::from(!is_zero);
                    // SAFETY: the test's own object.
                    unsafe { object.write_bytes(0xab, size) };
                }
                // SAFETY: allocated above.
                unsafe { machine.kfree(of_class) }.unwrap();
                // SAFETY: as above.
                unsafe { cache.free(of_cache) }.unwrap();
                if on_free {
                    let left = bytes(of_class, size);
                    let garbage = left.iter().filter(|&&byte| byte == 0xab).count();
                    // The word of a free object may hold any byte.
                    assert!(garbage <= 8, "{size}: {garbage} bytes left");
                }
                if round % 7 == 0 {
                    machine.shrink_caches();
                }
            }
            cache.destroy().unwrap();
        }
        let is_treated = on_alloc || on_free;
        assert!(is_treated || seen > 500, "what was there is there: {seen}");
        machine.shrink_caches();
        machine.drain_all_pages();
        machine.rebase();
        machine.finish();
    }
}
