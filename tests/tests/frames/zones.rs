//! R14: constrained requests stay within their limits, and zones fall back in order.

use mm::addr::{Order, Pfn};
use mm::buddy::{Gfp, Step};
use mm::config::{DMA_LIMIT, DMA32_LIMIT};
use mm::system::{AllocError, Block};
use mm::zone::ZoneKind;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Builder, Machine, Plain, SimConfig, Usual, Vmemmap};

const MIB: u64 = 1 << 20;
type Quick = (Plain, Vmemmap);

/// All four zones: 16 MiB below 16 MiB, some below 4 GiB, some above, half of that movable.
fn four_zones<C: SimConfig>() -> Builder<C> {
    Machine::<C>::new()
        .ram(0, 24 * MIB)
        .ram(DMA32_LIMIT, 64 * MIB)
        .kernelcore(56 * MIB)
}

fn limit(gfp: Gfp) -> u64 {
    if gfp.contains(Gfp::DMA) {
        DMA_LIMIT
    } else if gfp.contains(Gfp::DMA32) {
        DMA32_LIMIT
    } else {
        u64::MAX
    }
}

#[test]
fn a_million_constrained_requests_stay_below_their_limits_and_on_their_node() {
    let machine = four_zones::<Quick>()
        .node(1, 2 * DMA32_LIMIT, 32 * MIB)
        .boot();
    let mut random = Random::new(seed("constrained"));
    let movable_start = machine.nodes()[0].zone(ZoneKind::Movable).span().first();
    let requests = [
        Gfp::KERNEL,
        Gfp::KERNEL | Gfp::DMA,
        Gfp::ATOMIC | Gfp::DMA32,
        Gfp::KERNEL | Gfp::MOVABLE,
        Gfp::HIGHUSER_MOVABLE,
        Gfp::USER | Gfp::RECLAIMABLE,
    ];
    let mut live: Vec<(Pfn, Order)> = Vec::new();
    for _ in 0..1_000_000 {
        if live.len() > 2_000 || (!live.is_empty() && random.below(3) == 0) {
            let (pfn, order) = live.swap_remove(random.below_index(live.len()));
            // SAFETY: live, and freed once.
            unsafe { machine.free_pages(pfn, order) }.unwrap();
            continue;
        }
        let gfp = requests[random.below_index(requests.len())];
        let order = Order::new([0, 0, 0, 1, 2, 4][random.below_index(6)]).unwrap();
        let Ok(pfn) = machine.alloc_pages(gfp | Gfp::THISNODE, order) else {
            continue;
        };
        let end = pfn.saturating_add(order.frames()).addr().as_u64();
        assert!(end <= limit(gfp), "{pfn} of {order} for {gfp:?}");
        assert!(end <= 2 * DMA32_LIMIT, "{pfn} is on node 1");
        assert!(pfn < movable_start || gfp.contains(Gfp::HIGHMEM | Gfp::MOVABLE));
        live.push((pfn, order));
    }
    for (pfn, order) in live {
        // SAFETY: live, and freed once.
        unsafe { machine.free_pages(pfn, order) }.unwrap();
    }
    machine.finish();
}

/// Exhausts a request and answers the kinds of the zones in the order in which they gave.
fn givers<C: SimConfig>(machine: &Machine<C>, gfp: Gfp) -> Vec<ZoneKind> {
    let mut blocks = Vec::new();
    let mut kinds: Vec<ZoneKind> = Vec::new();
    let refused = loop {
        match machine.alloc_block(gfp, Order::ZERO) {
            Ok(block) => {
                kinds.push(machine.zone_of(block.pfn()).unwrap().kind());
                kinds.dedup();
                blocks.push(block);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AllocError::OutOfMemory);
    kinds
}

#[test]
fn each_request_falls_back_from_its_highest_zone_downwards() {
    use ZoneKind::{Dma, Dma32, Movable, Normal};
    let machine = four_zones::<Usual>().boot();
    let cases: [(Gfp, &[ZoneKind]); 7] = [
        (Gfp::KERNEL, &[Normal, Dma32, Dma]),
        (Gfp::KERNEL | Gfp::HIGHMEM, &[Normal, Dma32, Dma]),
        (Gfp::KERNEL | Gfp::MOVABLE, &[Normal, Dma32, Dma]),
        (Gfp::KERNEL | Gfp::RECLAIMABLE, &[Normal, Dma32, Dma]),
        (Gfp::KERNEL | Gfp::DMA32, &[Dma32, Dma]),
        (Gfp::KERNEL | Gfp::DMA, &[Dma]),
        (Gfp::HIGHUSER_MOVABLE, &[Movable, Normal, Dma32, Dma]),
    ];
    for (gfp, expected) in cases {
        assert_eq!(givers(&machine, gfp), expected, "{gfp:?}");
    }
    machine.finish();
}

#[test]
fn the_trace_of_an_allocation_agrees_with_the_counters() {
    let machine = four_zones::<Usual>().boot();
    let stats = |zone: ZoneKind| {
        let zone = machine.nodes()[0].zone(zone);
        zone.snapshot(machine.hardware()).stats
    };
    for (gfp, order) in [
        (Gfp::KERNEL, 0),
        (Gfp::DMA | Gfp::KERNEL, 3),
        (Gfp::HIGHUSER_MOVABLE, 9),
    ] {
        let order = Order::new(order).unwrap();
        let mut steps = Vec::new();
        let before = ZoneKind::ALL.map(stats);
        let mut note = |step| steps.push(step);
        let block = Block::alloc_traced(&*machine, gfp, order, &mut note);
        let block = block.unwrap();
        let after = ZoneKind::ALL.map(stats);
        let zone = machine.zone_of(block.pfn()).unwrap().kind().index();
        let count =
            |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count() as u64;
        let splits = count(|step| matches!(step, Step::Split { .. }));
        let claims = count(|step| matches!(step, Step::Claim { .. }));
        assert_eq!(after[zone].splits - before[zone].splits, splits);
        assert_eq!(after[zone].claims - before[zone].claims, claims);
        assert_eq!(
            after[zone].allocated - before[zone].allocated,
            order.frames()
        );
        let found = steps.iter().find_map(|step| match step {
            Step::Found { pfn, order, .. } => Some((*pfn, *order)),
            _ => None,
        });
        let (pfn, from) = found.unwrap();
        assert_eq!(pfn, block.pfn());
        assert_eq!(u64::from(from.as_u8() - order.as_u8()), splits);
        assert!(matches!(steps[0], Step::Zone { .. }));
    }
    machine.finish();
}

#[test]
fn when_the_nearest_node_is_full_another_serves_unless_the_request_stays() {
    let machine = Machine::<Usual>::new()
        .node(0, 0, 32 * MIB)
        .node(1, 32 * MIB, 32 * MIB)
        .boot();
    let near = Gfp::KERNEL | Gfp::THISNODE;
    let next = || machine.alloc_block(near, Order::ZERO).ok();
    let mut held: Vec<_> = std::iter::from_fn(next).collect();
    let end = |page: &Block<_>| page.frames().end().addr().as_u64();
    assert!(held.iter().all(|page| end(page) <= 32 * MIB));
    let far = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    assert!(end(&far) > 32 * MIB);
    held.push(far);
    drop(held);
    machine.finish();
}
