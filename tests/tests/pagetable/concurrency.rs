//! Many CPUs at once in neighbouring ranges, so that tables come and go under each other.

use std::thread;

use mm::addr::{Pfn, PfnRange, VirtAddr};
use mm::pagetable::{Attributes, Change, Level, PageSize, Protection};
use mm::sync::shootdown::Lazy;
use mm_tests::for_every_config;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Machine, SimConfig};

use crate::model::range;

const MIB: u64 = 1 << 20;
const BASE: u64 = 0xffff_c900_0000_0000;

for_every_config! {
    neighbours_do_not_disturb_each_other,
}

fn neighbours_do_not_disturb_each_other<C: SimConfig>() {
    let cpus = 4;
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(cpus + 1).boot();
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let seed = seed("neighbours");
    on_cpus(&machine, cpus, |cpu| {
        let mut random = Random::new(seed ^ u64::from(cpu));
        for _ in 0..cases(400) {
            // Ranges of a few pages up to a few tables, in one another's tables; each CPU has every fourth slot.
            let (unit, slots) = [(4, 64), (700, 4), (4, 64)][random.below(3) as usize];
            let slot = random.below(slots) * u64::from(cpus) + u64::from(cpu - 1);
            let area = if unit == 4 { 0 } else { 1 << 30 };
            let start = BASE + area + slot * unit * 4096;
            let first = Pfn::new(slot * 1024);
            let count = 1 + random.below(unit);
            let row = (
                VirtAddr::new(start),
                PfnRange::from_count(first, count).unwrap(),
            );
            // SAFETY: nobody runs through these tables, and the slot is this CPU's; also below.
            unsafe { machine.map_pages(&tables, row, Attributes::KERNEL, PageSize::Size4K) }
                .unwrap();
            let last = VirtAddr::new(start + (count - 1) * 4096);
            let found = machine.walk(&tables, last).phys(last);
            assert_eq!(found, Some(first.checked_add(count - 1).unwrap().addr()));
            let all = range(start, count * 4096);
            if random.below(2) == 0 {
                let change = Change::Forbid(Protection::WRITE);
                // SAFETY: as above.
                unsafe { machine.change_pages(&tables, all, change) }
                    .unwrap()
                    .complete();
            }
            let mut seen = 0;
            // SAFETY: as above.
            let receipt = unsafe { machine.unmap_pages(&tables, all, |_, _| seen += 1) };
            receipt.unwrap().complete();
            assert_eq!(seen, count);
            let _ = machine.grace().quiescent();
        }
    });
    assert_eq!(machine.validate_page_table(&tables), Ok(2));
    machine.grace().barrier().unwrap();
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.finish();
}

/// Runs `body` on CPUs 1 to `cpus`, each with a thread of its own; this thread's CPU is away.
fn on_cpus<C: SimConfig>(machine: &Machine<C>, cpus: u32, body: impl Fn(u32) + Sync) {
    machine.idle(Lazy::Offline, || {
        thread::scope(|scope| {
            for cpu in 1..=cpus {
                let body = &body;
                scope.spawn(move || {
                    let _here = machine.cpu(cpu);
                    body(cpu);
                });
            }
        });
    });
}
