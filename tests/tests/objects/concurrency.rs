//! Objects that are freed by other CPUs than allocated them.

use std::ptr::NonNull;
use std::sync::Barrier;
use std::sync::mpsc::sync_channel;
use std::thread;

use mm::buddy::Gfp;
use mm_tests::for_every_config;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, SimConfig};

const MIB: u64 = 1 << 20;

for_every_config! {
    objects_that_go_from_cpu_to_cpu_all_come_back,
    caches_are_shrunk_while_all_cpus_use_them,
}

/// An object on its way to another thread.
struct Sent(NonNull<u8>, u64);

// SAFETY: whoever has it owns the object.
unsafe impl Send for Sent {}

fn stamp(object: NonNull<u8>, value: u64) {
    // SAFETY: an object of 64 bytes that the caller owns.
    unsafe { object.cast::<[u64; 8]>().write([value; 8]) };
}

fn is_stamped(object: NonNull<u8>, value: u64) -> bool {
    // SAFETY: as above; it was stamped.
    unsafe { object.cast::<[u64; 8]>().read() == [value; 8] }
}

/// Four CPUs on two nodes make objects, four give them back; memory does not grow.
fn objects_that_go_from_cpu_to_cpu_all_come_back<C: SimConfig>() {
    let builder = Machine::<C>::new()
        .node(0, 0, 64 * MIB)
        .node(1, 64 * MIB, 64 * MIB);
    let machine = builder.cpus_on(&[0, 0, 0, 0, 0, 1, 1, 1, 1]).boot();
    const EACH: u64 = 20_000;
    thread::scope(|scope| {
        for pair in 0..4_u32 {
            let (send, receive) = sync_channel::<Sent>(200);
            let machine = &machine;
            scope.spawn(move || {
                let _here = machine.cpu(1 + pair);
                for number in 0..EACH {
                    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
                    let value = u64::from(pair) << 32 | number;
                    stamp(object, value);
                    send.send(Sent(object, value)).unwrap();
                }
            });
            scope.spawn(move || {
                let _here = machine.cpu(8 - pair);
                for Sent(object, value) in receive {
                    assert!(is_stamped(object, value));
                    // SAFETY: it was sent here.
                    unsafe { machine.kfree(object) }.unwrap();
                }
            });
        }
    });
    let mut slabs = 0;
    machine.for_each_cache(|name, stats| {
        assert_eq!(stats.active_objects, 0, "{name}");
        slabs += stats.slabs;
    });
    // 200 in each of four channels, 64 at hand of each CPU, and some empty ones, 64 objects a slab.
    assert!(slabs <= 40, "{slabs} slabs");
    machine.check();
    machine.finish();
}

fn caches_are_shrunk_while_all_cpus_use_them<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(5).boot();
    let start = Barrier::new(4);
    let seed = seed("objects_shrunk");
    thread::scope(|scope| {
        for cpu in 0..4_u32 {
            let (machine, start) = (&machine, &start);
            scope.spawn(move || {
                let _here = machine.cpu(1 + cpu);
                let mut random = Random::new(seed ^ u64::from(cpu));
                let mut mine: Vec<(NonNull<u8>, u64)> = Vec::new();
                start.wait();
                for step in 0..5_000_u64 {
                    match random.below(20) {
                        0 => drop(machine.shrink_caches()),
                        1..=10 => {
                            let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
                            stamp(object, step);
                            mine.push((object, step));
                        }
                        _ => {
                            let which = random.below(mine.len().max(1) as u64) as usize;
                            if which < mine.len() {
                                let (object, value) = mine.swap_remove(which);
                                assert!(is_stamped(object, value));
                                // SAFETY: it is this thread's.
                                unsafe { machine.kfree(object) }.unwrap();
                            }
                        }
                    }
                }
                for (object, value) in mine {
                    assert!(is_stamped(object, value));
                    // SAFETY: as above.
                    unsafe { machine.kfree(object) }.unwrap();
                }
            });
        }
    });
    machine.check();
    machine.finish();
}
