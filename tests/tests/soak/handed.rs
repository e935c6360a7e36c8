//! Objects that go from some CPUs to others for long, without memory growing.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use mm::buddy::Gfp;
use mm_tests::seed::cases;
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

use super::player::{MIB, filled, holds};

/// What slabs of `kmalloc-64` hold now: slabs, objects that are free included, and those that somebody has.
fn in_slabs<C: SimConfig>(machine: &Machine<C>) -> (u64, u64, u64) {
    let mut found = (0, 0, 0);
    machine.for_each_cache(|name, stats| {
        if name == "kmalloc-64" {
            found = (stats.slabs, stats.objects, stats.active_objects);
        }
    });
    found
}

/// Four CPUs of two nodes make objects, four give them back, half of them to the other node: ten million of them.
#[test]
fn memory_does_not_grow_while_objects_go_from_cpu_to_cpu() {
    const IN_FLIGHT: u64 = 200;
    let builder = Machine::<Listed<Usual>>::new()
        .node(0, 0, 64 * MIB)
        .node(1, 64 * MIB, 64 * MIB);
    let machine = builder.cpus_on(&[0, 0, 0, 0, 0, 1, 1, 1, 1]).boot();
    let each = cases(100) * 25_000;
    let (before, before_slabs) = (machine.free_frames(), in_slabs(&machine).0);
    // At the beginning, and later.
    let most = [const { AtomicU64::new(0) }; 2];
    thread::scope(|scope| {
        for pair in 0..4_u32 {
            let (send, receive) = sync_channel::<usize>(IN_FLIGHT as usize);
            let (machine, most) = (&machine, &most);
            scope.spawn(move || {
                let _here = machine.cpu(1 + 2 * pair);
                for number in 0..each {
                    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
                    filled(object, 64, number.to_le_bytes()[0]);
                    send.send(object.as_ptr().expose_provenance()).unwrap();
                    if number % 500 == 0 {
                        let (_, objects, _) = in_slabs(machine);
                        most[usize::from(number > each / 10)].fetch_max(objects, Ordering::Relaxed);
                    }
                }
            });
            scope.spawn(move || {
                // Of the other node, every second time.
                let _here = machine.cpu([2, 6, 4, 8][pair as usize]);
                for (number, address) in (0..).zip(receive) {
                    let object = NonNull::new(std::ptr::with_exposed_provenance_mut(address));
                    let object = object.unwrap();
                    holds(object, 64, u64::to_le_bytes(number)[0]);
                    // SAFETY: it was sent here.
                    unsafe { machine.kfree(object) }.unwrap();
                }
            });
        }
    });
    // In flight and in hands, at hand of CPUs, and six slabs of each node that are empty or begun.
    let working_set = 4 * (IN_FLIGHT + 2);
    let bound = working_set + 9 * 64 + 2 * 6 * 64;
    let [at_first, later] = most.map(AtomicU64::into_inner);
    println!(
        "{} objects: {at_first} at most in slabs at first, {later} later; bound {bound}, of which {working_set} in use",
        4 * each
    );
    assert!(at_first.max(later) <= bound, "{at_first}, {later}");
    machine.for_each_cache(|name, stats| assert_eq!(stats.active_objects, 0, "{name}"));
    machine.check();
    // Every slab is pages again.
    let (slabs, ..) = in_slabs(&machine);
    machine.shrink_caches();
    assert!(machine.drain_all_pages());
    println!("{slabs} slabs at the end, none after they were shrunk");
    assert_eq!(before_slabs, 0);
    machine.for_each_cache(|name, stats| assert_eq!(stats.slabs, 0, "{name}"));
    assert_eq!(machine.free_frames(), before);
    machine.finish();
}
