//! Requests for objects that fail on purpose, and R61 for what objects are used for: whatever fails, nothing
//! has changed, and the next try succeeds.

use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::platform::NodeId;
use mm::slab::{CacheError, NamePattern, SlabFlags};
use mm::system::{AllocError, FailPageAlloc, FailSlab, KBytes, KmemCache, NoFailSlab, Times};
use mm_tests::sim::{Machine, Usual};

const MIB: u64 = 1 << 20;

fn everywhere() -> NamePattern {
    NamePattern::new("*").unwrap()
}

/// A machine with a rule that does nothing yet.
fn machine() -> Machine<Usual> {
    let none = FailSlab::per_cent(0, everywhere(), 0);
    let builder = Machine::<Usual>::new().ram(0, 64 * MIB);
    builder
        .options(|options| options.failslab = Some(none))
        .boot()
}

fn free(machine: &Machine<Usual>, object: NonNull<u8>) {
    // SAFETY: of an object that the test owns and forgets.
    unsafe { machine.kfree(object) }.unwrap();
}

fn active(machine: &Machine<Usual>) -> u64 {
    let mut sum = 0;
    machine.for_each_cache(|_, stats| sum += stats.active_objects);
    sum
}

#[test]
fn about_as_many_fail_as_the_probability_says() {
    let machine = machine();
    for per_cent in [0, 1, 10, 50] {
        let rule = FailSlab::per_cent(per_cent, everywhere(), 7);
        machine.set_failslab(Some(rule)).unwrap();
        let failed = (0..20_000)
            .filter(|_| match machine.kmalloc(64, Gfp::KERNEL | Gfp::NOWARN) {
                Ok(object) => {
                    free(&machine, object);
                    false
                }
                Err(error) => {
                    assert_eq!(error, AllocError::OutOfMemory);
                    true
                }
            })
            .count();
        let expected = usize::from(per_cent) * 200;
        assert!(
            failed.abs_diff(expected) <= expected / 5,
            "{per_cent} %: {failed}"
        );
        assert_eq!(machine.injected_object_failures(), failed as u64);
    }
    assert_eq!(machine.hardware().take_forced_objects(), []);
    machine.finish();
}

#[test]
fn sizes_and_names_decide_and_it_is_told() {
    let machine = machine();
    let rule = FailSlab {
        sizes: (50, 60),
        cache: NamePattern::new("kmalloc-*").unwrap(),
        times: Times::AtMost(3),
        ..FailSlab::per_cent(100, everywhere(), 0)
    };
    machine.set_failslab(Some(rule)).unwrap();
    let fails = |size, gfp| {
        machine
            .kmalloc(size, gfp)
            .map(|object| free(&machine, object))
            .is_err()
    };
    assert!(!fails(49, Gfp::KERNEL) && !fails(61, Gfp::KERNEL));
    assert!(!fails(50, Gfp::KERNEL | Gfp::DMA), "another cache");
    assert!(!fails(50, Gfp::KERNEL | Gfp::NOFAIL));
    assert!(fails(50, Gfp::KERNEL) && fails(60, Gfp::KERNEL | Gfp::NOWARN));
    assert!(
        fails(55, Gfp::KERNEL) && !fails(55, Gfp::KERNEL),
        "three times"
    );
    let told = machine.hardware().take_forced_objects();
    assert_eq!(told.len(), 2);
    assert_eq!(
        told[0].to_string(),
        "FAULT_INJECTION: forcing a failure.\nname failslab, cache:kmalloc-64, size:50, mode:0xcc0"
    );
    machine.set_failslab(None).unwrap();
    assert_eq!(machine.injected_object_failures(), 0);
    machine.finish();
}

#[test]
fn without_a_cache_that_can_fail_there_is_no_rule() {
    let mut machine = Machine::<Usual>::with_ram(32 * MIB);
    let all = FailSlab::per_cent(100, everywhere(), 0);
    assert_eq!(machine.set_failslab(Some(all)), Err(NoFailSlab));
    let cache = KmemCache::create(&*machine, "failing", (64, 8), SlabFlags::FAILSLAB).unwrap();
    machine.set_failslab(Some(all)).unwrap();
    assert!(cache.alloc(Gfp::KERNEL | Gfp::NOWARN).is_err());
    free(&machine, machine.kmalloc(64, Gfp::KERNEL).unwrap());
    cache.destroy().unwrap();
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.rebase();
    machine.finish();
}

/// An operation that takes objects, and gives them back.
type Operation = fn(&Machine<Usual>, usize, Gfp) -> Result<(), AllocError>;

const OPERATIONS: [Operation; 8] = [
    |machine, size, gfp| {
        machine
            .kmalloc(size, gfp)
            .map(|object| free(machine, object))
    },
    |machine, size, gfp| {
        machine
            .kzalloc(size, gfp)
            .map(|object| free(machine, object))
    },
    |machine, size, gfp| {
        machine
            .kcalloc(3, size / 3, gfp)
            .map(|object| free(machine, object))
    },
    |machine, size, gfp| {
        let object = machine.kmalloc_node(size, gfp, NodeId(0));
        object.map(|object| free(machine, object))
    },
    |machine, size, gfp| KBytes::alloc(&**machine, size, gfp).map(drop),
    // Two objects, the second of which is larger.
    |machine, size, gfp| {
        let object = machine.kmalloc(size / 8 + 1, gfp)?;
        // SAFETY: allocated above, with that many bytes.
        unsafe { object.write_bytes(7, size / 8 + 1) };
        // SAFETY: the same object, which is freed only once.
        let moved = unsafe { machine.krealloc(object, (size / 8 + 1, size), gfp) };
        // SAFETY: at least one byte.
        assert_eq!(unsafe { moved.unwrap_or(object).read() }, 7);
        free(machine, moved.unwrap_or(object));
        moved.map(drop)
    },
    // Many at once: what came before the one that fails goes back.
    |machine, size, gfp| {
        let mut objects = [None; 12];
        let mut error = Ok(());
        for place in &mut objects {
            match machine.kmalloc(size, gfp) {
                Ok(object) => *place = Some(object),
                Err(refused) => {
                    error = Err(refused);
                    break;
                }
            }
        }
        // SAFETY: allocated above.
        unsafe { machine.kfree_bulk(&mut objects) }.unwrap();
        error
    },
    // A cache of its own, of which one object is taken.
    |machine, size, gfp| {
        let cache = KmemCache::create(&**machine, "swept", (size, 8), SlabFlags::NO_MERGE);
        let cache = cache.map_err(|error| match error {
            CacheError::OutOfMemory => AllocError::OutOfMemory,
            error => panic!("{error}"),
        })?;
        let taken = cache.alloc(gfp & !(Gfp::DMA | Gfp::RECLAIMABLE | Gfp::ACCOUNT));
        let back = taken.map(|object| {
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
        });
        cache.destroy().unwrap();
        back
    },
];

/// R61: the first, the second, … request of an operation fails until it succeeds.
#[test]
fn whatever_fails_nothing_has_changed_and_the_next_try_succeeds() {
    let mut machine = machine();
    let kept = machine.kmalloc(77, Gfp::KERNEL).unwrap();
    let before = active(&machine);
    let mut injections = 0;
    let families = [Gfp::empty(), Gfp::RECLAIMABLE, Gfp::ACCOUNT, Gfp::DMA];
    for size in (1..40).map(|step| step * step * 5) {
        for family in families {
            let gfp = Gfp::KERNEL | Gfp::NOWARN | family;
            for operation in OPERATIONS {
                for number in 1.. {
                    let rule = FailSlab::nth(number, everywhere());
                    machine.set_failslab(Some(rule)).unwrap();
                    let result = operation(&machine, size, gfp);
                    let failed = machine.injected_object_failures();
                    assert_eq!(active(&machine), before, "{size} {family:?} {number}");
                    if failed == 0 {
                        result.unwrap();
                        break;
                    }
                    assert_eq!(result, Err(AllocError::OutOfMemory));
                    injections += failed;
                    machine.set_failslab(None).unwrap();
                    operation(&machine, size, gfp).unwrap();
                }
            }
        }
        machine.validate_caches().unwrap();
    }
    assert!(injections >= 2_000, "{injections}");
    println!("{injections} injections");
    free(&machine, kept);
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.rebase();
    machine.finish();
}

/// R61 one level below: the first, the second, … request for pages of an operation fails, for a slab or for what a new
/// cache needs, until none does. Whoever can do without those pages succeeds.
#[test]
fn whatever_pages_are_refused_nothing_has_changed_and_the_next_try_succeeds() {
    let mut injections = 0;
    for size in [8, 100, 700, 3000, 8000, 20_000] {
        for operation in OPERATIONS {
            for number in 1.. {
                let rule = FailPageAlloc {
                    interval: number,
                    times: Times::AtMost(1),
                    ..FailPageAlloc::per_cent(100, 0)
                };
                let builder = Machine::<Usual>::new().ram(0, 16 * MIB);
                let mut machine = builder
                    .options(|options| options.fail_page_alloc = Some(rule))
                    .boot();
                let gfp = Gfp::KERNEL | Gfp::NOWARN;
                let result = operation(&machine, size, gfp);
                let failed = machine.injected_failures();
                assert!(result.is_ok() || result == Err(AllocError::OutOfMemory));
                assert!(failed > 0 || result.is_ok());
                assert_eq!(active(&machine), 0, "{size} {number}");
                machine.check();
                if failed > 0 {
                    operation(&machine, size, gfp).unwrap();
                    assert_eq!(active(&machine), 0, "{size} {number}");
                }
                machine.shrink_caches();
                // What caches need stays.
                machine.rebase();
                machine.finish();
                injections += failed;
                if failed == 0 {
                    break;
                }
            }
        }
    }
    println!("{injections} injections");
    assert!(injections >= 48, "{injections}");
}
