//! All CPUs at once: objects that other CPUs give back, and chunks that come and go meanwhile.

use std::ptr::NonNull;
use std::sync::Barrier;
use std::sync::mpsc::sync_channel;
use std::thread;

use mm_tests::for_four_configs;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, SimConfig};

use super::{MIB, alloc, dirty, free, is_dirty};

for_four_configs! {
    objects_that_other_cpus_give_back_all_come_back,
    chunks_come_and_go_while_all_cpus_use_them,
}

/// An object on its way to another thread.
struct Sent(NonNull<u8>, usize, u8);

// SAFETY: whoever has it owns the object.
unsafe impl Send for Sent {}

fn objects_that_other_cpus_give_back_all_come_back<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(7).boot();
    thread::scope(|scope| {
        for pair in 0..3_u32 {
            let (send, receive) = sync_channel::<Sent>(100);
            let machine = &machine;
            scope.spawn(move || {
                let _here = machine.cpu(1 + pair);
                for number in 0..3_000_usize {
                    let size = [8, 64, 24, 16, 300][number % 5];
                    let first = alloc(machine, (size, 8));
                    dirty(machine, first, size, number as u8);
                    send.send(Sent(first, size, number as u8)).unwrap();
                }
            });
            scope.spawn(move || {
                let _here = machine.cpu(6 - pair);
                for Sent(first, size, stamp) in receive {
                    is_dirty(machine, first, size, stamp);
                    free(machine, first, size);
                }
            });
        }
    });
    let stats = machine.percpu_stats();
    assert_eq!(stats.objects, stats.at_hand);
    assert!(stats.at_hand <= 3 * 3 * 16, "{stats:?}");
    machine.check();
    machine.finish();
}

fn chunks_come_and_go_while_all_cpus_use_them<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(5).boot();
    let start = Barrier::new(4);
    let seed = seed("percpu_come_and_go");
    thread::scope(|scope| {
        for cpu in 0..4_u32 {
            let (machine, start) = (&machine, &start);
            scope.spawn(move || {
                let _here = machine.cpu(1 + cpu);
                let mut random = Random::new(seed ^ u64::from(cpu));
                let mut mine: Vec<Sent> = Vec::new();
                start.wait();
                for step in 0..1_500_u64 {
                    match random.below(20) {
                        0 => drop(machine.shrink_percpu()),
                        1..=10 => {
                            let size = [8, 64, 4, 1000, 20_000][random.below_index(5)];
                            let first = alloc(machine, (size, 4));
                            dirty(machine, first, size, step as u8);
                            mine.push(Sent(first, size, step as u8));
                        }
                        _ if mine.is_empty() => {}
                        _ => {
                            let which = random.below_index(mine.len());
                            let Sent(first, size, stamp) = mine.swap_remove(which);
                            is_dirty(machine, first, size, stamp);
                            free(machine, first, size);
                        }
                    }
                }
                for Sent(first, size, stamp) in mine {
                    is_dirty(machine, first, size, stamp);
                    free(machine, first, size);
                }
            });
        }
    });
    machine.check();
    machine.finish();
}
