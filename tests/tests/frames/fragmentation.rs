//! What long histories leave of large blocks.

use std::collections::BTreeSet;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm_tests::oracles::Shape;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, Plain, SimConfig, Vmemmap};

const GIB: u64 = 1 << 30;
type Quick = (Plain, Vmemmap);

fn page<C: SimConfig>(machine: &Machine<C>, gfp: Gfp) -> Option<Pfn> {
    machine.alloc_page(gfp).ok()
}

fn give<C: SimConfig>(machine: &Machine<C>, pfn: Pfn) {
    // SAFETY: the tests below free what they allocated by number, once.
    unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
}

/// BENCH §2: free memory usable as 2 MiB after 250 rounds of churn at 50 % use.
#[test]
fn nine_tenths_of_free_memory_stay_usable_as_2_mib() {
    let mut random = Random::new(seed("nine_tenths"));
    let machine = Machine::<Quick>::with_ram(GIB);
    let mut live: Vec<_> = std::iter::from_fn(|| page(&machine, Gfp::KERNEL)).collect();
    let half = live.len() / 2;
    while live.len() > half {
        give(&machine, live.swap_remove(random.below_index(live.len())));
    }
    for _ in 0..250 {
        let churned = half / 10;
        for _ in 0..churned {
            give(&machine, live.swap_remove(random.below_index(live.len())));
        }
        for _ in 0..churned {
            live.push(page(&machine, Gfp::KERNEL).unwrap());
        }
    }
    let shape = Shape::of(&machine);
    let usable = shape.huge_frames() * 1000 / shape.frames();
    println!("usable as 2 MiB: {}.{} %", usable / 10, usable % 10);
    assert!(usable >= 900, "only {usable} per mille");
    machine.check();
    live.into_iter().for_each(|pfn| give(&machine, pfn));
    machine.finish();
}

/// What a page is used for, as far as the test knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Movable,
    Unmovable,
    Reclaimable,
}

/// A million operations at 90 % use, 70/20/10 movable, unmovable, reclaimable. Answers how many
/// pageblocks hold an unmovable page, and how few could.
fn mix(machine: &Machine<Quick>, gfp: impl Fn(Use) -> Gfp) -> (u64, u64) {
    let mut random = Random::new(seed("mix"));
    let choose = |random: &mut Random| match random.below(10) {
        0..=6 => Use::Movable,
        7 | 8 => Use::Unmovable,
        _ => Use::Reclaimable,
    };
    let fill = machine.managed_frames() / 10 * 9;
    let mut live = Vec::new();
    for _ in 0..1_000_000 {
        let full = live.len() as u64 >= fill;
        if full || (random.below(4) == 0 && !live.is_empty()) {
            let (pfn, _) = live.swap_remove(random.below_index(live.len()));
            give(machine, pfn);
        } else {
            let used = choose(&mut random);
            let pfn = page(machine, gfp(used)).expect("a tenth is free");
            live.push((pfn, used));
        }
    }
    let unmovable = live.iter().filter(|(_, used)| *used == Use::Unmovable);
    let blocks: BTreeSet<_> = unmovable
        .clone()
        .map(|(pfn, _)| pfn.as_u64() >> 9)
        .collect();
    let ideal = (unmovable.count() as u64).div_ceil(512);
    machine.check();
    live.into_iter().for_each(|(pfn, _)| give(machine, pfn));
    (blocks.len() as u64, ideal)
}

/// R09: pages that cannot be moved gather in few pageblocks; without grouping they do not, or
/// the test would prove nothing.
#[test]
fn unmovable_pages_do_not_spread_over_all_pageblocks() {
    let machine = Machine::<Quick>::with_ram(GIB);
    let (grouped, ideal) = mix(&machine, |used| match used {
        Use::Movable => Gfp::HIGHUSER_MOVABLE,
        Use::Unmovable => Gfp::KERNEL,
        Use::Reclaimable => Gfp::KERNEL | Gfp::RECLAIMABLE,
    });
    machine.finish();
    let machine = Machine::<Quick>::with_ram(GIB);
    let (ungrouped, its_ideal) = mix(&machine, |_| Gfp::HIGHUSER_MOVABLE);
    machine.finish();
    println!("unmovable in {grouped} blocks of {ideal}; ungrouped {ungrouped} of {its_ideal}");
    assert!(
        grouped * 10 <= ideal * 15,
        "{grouped} blocks, ideal {ideal}"
    );
    assert!(
        ungrouped > its_ideal * 3,
        "{ungrouped} blocks, ideal {its_ideal}"
    );
}
