//! A value for each CPU, with an owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mm::buddy::Gfp;
use mm::platform::CpuId;
use mm::sync::Pin;
use mm::system::{PerCpuBox, PerCpuError};
use mm_tests::for_four_configs;
use mm_tests::sim::{Machine, SimConfig, Usual};
use mm_tests::threads::join;

use super::MIB;

for_four_configs! { each_cpu_counts_its_own }

fn each_cpu_counts_its_own<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(5).boot();
    let home = &*machine;
    let zero = |_| AtomicU64::new(0);
    let counter = PerCpuBox::new_with(home, Gfp::KERNEL, zero).unwrap();
    std::thread::scope(|scope| {
        let run = |cpu| {
            let (machine, counter) = (&machine, &counter);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                for _ in 0..u64::from(cpu) * 100 {
                    let pin = Pin::new(machine.hardware());
                    let mine = counter.this_cpu(&pin);
                    // Nobody else writes to it.
                    mine.store(mine.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
            })
        };
        join((1..5).map(run));
    });
    let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let each: Vec<_> = counter.iter().map(|(_, value)| count(value)).collect();
    assert_eq!(each, [0, 100, 200, 300, 400]);
    assert_eq!(counter.sum(count), 1000);
    assert_eq!(counter.get(CpuId(4)).map(count), Some(400));
    assert!(counter.get(CpuId(5)).is_none());
    assert!(format!("{counter:?}").starts_with("{0: 0, 1: 100"));
    drop(counter);
    machine.finish();
}

#[test]
fn values_are_made_and_dropped_once_for_each_cpu() {
    let machine = Machine::<Usual>::new().ram(0, 64 * MIB).cpus(3).boot();
    let alive = Arc::new(());
    let make = |cpu: CpuId| (cpu, Arc::clone(&alive));
    let mut values = PerCpuBox::new_with(&*machine, Gfp::KERNEL, make).unwrap();
    assert_eq!(Arc::strong_count(&alive), 4);
    values.for_each_mut(|cpu, value| {
        assert_eq!(value.0, cpu);
        value.0 = CpuId(cpu.0 + 10);
    });
    values.get_mut(CpuId(1)).unwrap().0 = CpuId(100);
    assert!(values.get_mut(CpuId(3)).is_none());
    let mut seen = Vec::new();
    values.for_each_cpu(|cpu, value| seen.push((cpu.0, value.0.0)));
    assert_eq!(seen, [(0, 10), (1, 100), (2, 12)]);
    drop(values);
    assert_eq!(Arc::strong_count(&alive), 1);
    machine.finish();
}

#[test]
fn values_are_aligned_and_may_be_large() {
    #[repr(align(512))]
    struct Large([AtomicU64; 700]);
    let machine = Machine::<Usual>::new().ram(0, 64 * MIB).cpus(3).boot();
    let make = |_| Large([const { AtomicU64::new(7) }; 700]);
    let values = PerCpuBox::new_with(&*machine, Gfp::KERNEL, make).unwrap();
    for (_, value) in values.iter() {
        assert_eq!(std::ptr::from_ref(value).addr() % 512, 0);
    }
    let all = |value: &Large| {
        value
            .0
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .sum()
    };
    assert_eq!(values.sum(all), 3 * 700 * 7);
    drop(values);
    let refused = PerCpuBox::new_with(&*machine, Gfp::KERNEL, |_| ());
    assert_eq!(refused.err(), Some(PerCpuError::ZeroSize));
    machine.finish();
}
