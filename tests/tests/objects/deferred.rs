//! Objects that are freed when a grace period is over.

use std::ptr::NonNull;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::slab::{BadFree, SlabFlags};
use mm::system::{DeferError, KmemCache, Memory};
use mm_tests::for_four_configs;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, SimConfig, SimPlatform, Usual};

const MIB: u64 = 1 << 20;

for_four_configs! {
    readers_see_objects_until_they_are_done,
    everything_that_was_put_off_comes_back,
    caches_end_while_objects_are_put_off,
    objects_are_replaced_under_readers_on_all_cpus,
}

fn stamped<C: SimConfig>(machine: &Machine<C>, stamp: u64) -> NonNull<u8> {
    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    // SAFETY: an object of 64 bytes that was just allocated.
    unsafe { object.cast::<[u64; 8]>().write([stamp; 8]) };
    object
}

fn stamps(object: NonNull<u8>) -> [u64; 8] {
    // SAFETY: an object of 64 bytes that a reader sees.
    unsafe { object.cast::<[u64; 8]>().read() }
}

fn defer<C: SimConfig>(machine: &Machine<C>, object: NonNull<u8>) {
    // SAFETY: nobody but readers uses it.
    unsafe { machine.kfree_deferred(object) }.unwrap();
}

fn readers_see_objects_until_they_are_done<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let objects: Vec<_> = (0..300).map(|number| stamped(&machine, number)).collect();
    let reader = machine.grace().pin().unwrap();
    objects.iter().for_each(|object| defer(&machine, *object));
    for _ in 0..10 {
        machine.grace().tend();
        let _ = stamped(&machine, 0xdead);
    }
    for (number, &object) in (0..).zip(&objects) {
        assert_eq!(stamps(object), [number; 8]);
    }
    let active = || {
        let mut active = 0;
        machine.for_each_cache(|_, stats| active += stats.active_objects);
        active
    };
    assert_eq!(active(), 310);
    drop(reader);
    machine.grace().barrier().unwrap();
    assert_eq!((active(), machine.grace().pending()), (10, 0));
    machine.check();
    machine.abandon();
}

/// Objects of all sizes, of pages too, from tasks and interrupts.
fn everything_that_was_put_off_comes_back<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let mut random = Random::new(seed("objects_deferred"));
    for step in 0..3_000 {
        let largest = 1 << (3 + random.below(13));
        let size = 1 + random.below(largest) as usize;
        let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
        match random.below(3) {
            0 => machine.hardware().in_atomic(|| defer(&machine, object)),
            1 => defer(&machine, object),
            // SAFETY: allocated above.
            _ => unsafe { machine.kfree(object) }.unwrap(),
        }
        if step % 500 == 0 {
            machine.grace().tend();
        }
    }
    machine.grace().barrier().unwrap();
    machine.grace().validate().unwrap();
    machine.finish();
}

fn ending<C: SimConfig>(machine: &Machine<C>) -> KmemCache<&Memory<SimPlatform<C>>> {
    KmemCache::create(&**machine, "ends", (104, 8), SlabFlags::NO_MERGE).unwrap()
}

/// R23: as often as it is done.
fn caches_end_while_objects_are_put_off<C: SimConfig>() {
    let mut machine = Machine::<C>::with_ram(32 * MIB);
    ending(&machine).destroy().unwrap();
    machine.drain_all_pages();
    machine.rebase();
    for round in 0..10 {
        let cache = ending(&machine);
        for _ in 0..(round * 37) {
            let object = cache.alloc(Gfp::KERNEL).unwrap();
            defer(&machine, object);
        }
        cache.destroy().unwrap();
        assert_eq!(machine.hardware().take_reports(), []);
    }
    machine.check();
    machine.finish();
}

/// R23, while other CPUs do the same.
#[test]
fn caches_end_while_other_cpus_put_objects_off() {
    let machine = Machine::<Listed<Usual>>::new()
        .ram(0, 64 * MIB)
        .cpus(4)
        .boot();
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for cpu in 1..4 {
            let (machine, start) = (&machine, &start);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                start.wait();
                for round in 0..10_u32 {
                    let cache = ending(machine);
                    for _ in 0..(round * 23 + cpu) {
                        defer(machine, cache.alloc(Gfp::KERNEL).unwrap());
                    }
                    cache.destroy().unwrap();
                    let _ = machine.grace().quiescent();
                }
            });
        }
    });
    machine.grace().barrier().unwrap();
    assert_eq!(machine.hardware().take_reports(), []);
    machine.check();
    machine.abandon();
}

/// Each CPU reads what the others replace.
fn objects_are_replaced_under_readers_on_all_cpus<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(4).boot();
    let slots: Vec<_> = (0..8)
        .map(|number| AtomicPtr::new(stamped(&machine, number).as_ptr()))
        .collect();
    thread::scope(|scope| {
        for cpu in 1..4_u32 {
            let (machine, slots) = (&machine, &slots);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                let mut random = Random::new(seed("objects_replaced") ^ u64::from(cpu));
                for step in 0..3_000 {
                    let slot = &slots[random.below_index(slots.len())];
                    if random.below(3) == 0 {
                        let new = stamped(machine, u64::from(cpu) << 32 | step);
                        let old = slot.swap(new.as_ptr(), Ordering::AcqRel);
                        defer(machine, NonNull::new(old).unwrap());
                    } else {
                        let guard = machine.grace().pin().unwrap();
                        let found = NonNull::new(slot.load(Ordering::Acquire)).unwrap();
                        let [first, rest @ ..] = stamps(found);
                        assert_eq!(rest, [first; 7]);
                        drop(guard);
                    }
                    let _ = machine.grace().quiescent();
                }
            });
        }
    });
    for slot in slots {
        let last = NonNull::new(slot.into_inner()).unwrap();
        // SAFETY: nobody reads any more.
        unsafe { machine.kfree(last) }.unwrap();
    }
    machine.grace().barrier().unwrap();
    machine.grace().validate().unwrap();
    machine.check();
    machine.finish();
}

#[test]
fn what_is_no_object_is_refused_at_once() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let mut on_stack = 0_u64;
    let object = NonNull::from(&mut on_stack).cast();
    // SAFETY: it is refused.
    let refused = unsafe { machine.kfree_deferred(object) };
    assert_eq!(refused, Err(DeferError::Bad(BadFree::NotASlab)));
    machine.finish();
}

#[test]
fn without_a_page_to_note_it_an_object_is_waited_for() {
    let machine = Machine::<Listed<Usual>>::with_ram(16 * MIB);
    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    let mut all = Vec::new();
    while let Ok(page) = machine.alloc_page(Gfp::NOWAIT | Gfp::MEMALLOC) {
        all.push(page);
    }
    let refused = machine.hardware().in_atomic(|| {
        // SAFETY: nobody uses it.
        unsafe { machine.kfree_deferred(object) }
    });
    assert_eq!(refused, Err(DeferError::OutOfMemory));
    defer(&machine, object);
    assert_eq!(machine.grace().pending(), 0);
    // SAFETY: allocated above.
    all.into_iter()
        .for_each(|page| unsafe { machine.free_pages(page, Order::ZERO) }.unwrap());
    machine.finish();
}
