//! Many single pages given back at once.

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::FreeError;
use mm_tests::for_every_config;
use mm_tests::oracles::state_hash;
use mm_tests::sim::{Checked, Machine, SimConfig};

const MIB: u64 = 1 << 20;

for_every_config! {
    pages_of_several_zones_come_back_with_gaps_between_them,
    a_page_that_is_in_the_list_twice_is_freed_once,
}

fn pages<C: SimConfig>(machine: &Machine<C>, gfp: Gfp, count: usize) -> Vec<Option<Pfn>> {
    let mut pages = vec![None; count];
    assert_eq!(machine.alloc_pages_bulk(gfp, &mut pages), Ok(count));
    pages
}

fn pages_of_several_zones_come_back_with_gaps_between_them<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let low = pages(&machine, Gfp::KERNEL | Gfp::DMA, 70);
    let high = pages(&machine, Gfp::KERNEL, 150);
    let mut all = vec![None; 3];
    for (place, page) in high.iter().enumerate() {
        all.push(*page);
        if place % 2 == 0 {
            all.extend([None, low.get(place / 2).copied().flatten()]);
        }
    }
    assert_eq!(all.iter().flatten().count(), 220);
    // SAFETY: allocated above, each once in the list.
    unsafe { machine.free_pages_bulk(&mut all) }.unwrap();
    assert!(all.iter().all(Option::is_none));
    machine.finish();
}

fn a_page_that_is_in_the_list_twice_is_freed_once<C: SimConfig>() {
    for (one, other) in [(0, 1), (3, 20), (0, 63), (5, 64), (60, 99)] {
        let machine = Machine::<C>::with_ram(64 * MIB);
        let mut list = pages(&machine, Gfp::KERNEL, 100);
        let lost = list[other];
        list[other] = list[one];
        // SAFETY: deliberately none for the second mention, which must be refused.
        let refused = unsafe { machine.free_pages_bulk(&mut list) };
        assert_eq!(refused, Err((other, FreeError::AlreadyFree)));
        assert!(list[..other].iter().all(Option::is_none));
        assert!(list[other..].iter().all(Option::is_some));
        machine.check();
        list[other] = lost;
        // SAFETY: what is left, with the page that was left out.
        unsafe { machine.free_pages_bulk(&mut list) }.unwrap();
        machine.finish();
    }
}

#[test]
fn a_wrong_number_stops_the_list_where_it_stands() {
    let machine = Machine::<Checked>::with_ram(64 * MIB);
    let block = machine.alloc_block(Gfp::KERNEL, Order::PAGEBLOCK).unwrap();
    let mut list = pages(&machine, Gfp::KERNEL, 20);
    list.insert(7, Some(block.pfn()));
    // SAFETY: the wrong number must be refused.
    let refused = unsafe { machine.free_pages_bulk(&mut list) };
    let actual = Order::PAGEBLOCK;
    assert_eq!(refused, Err((7, FreeError::WrongOrder { actual })));
    assert_eq!(list.iter().flatten().count(), 14);
    let before = state_hash(&machine);
    // SAFETY: as above.
    let again = unsafe { machine.free_pages_bulk(&mut list) };
    assert_eq!(again, Err((7, FreeError::WrongOrder { actual })));
    assert_eq!(state_hash(&machine), before);
    list[7] = None;
    // SAFETY: the rest of the pages allocated above.
    unsafe { machine.free_pages_bulk(&mut list) }.unwrap();
    drop(block);
    machine.finish();
}

#[test]
fn neighbours_of_one_zone_share_a_hold_of_its_lock() {
    let machine = Machine::<Checked>::with_ram(64 * MIB);
    let free = |list: &mut [Option<Pfn>]| {
        let before = machine.hardware().taken_locks();
        // SAFETY: each list below is allocated for this.
        unsafe { machine.free_pages_bulk(list) }.unwrap();
        machine.hardware().taken_locks() - before
    };
    assert_eq!(free(&mut []), 0);
    assert_eq!(free(&mut [None; 100]), 0);
    for (count, holds) in [(1, 1), (64, 1), (65, 2), (640, 10)] {
        assert_eq!(free(&mut pages(&machine, Gfp::KERNEL, count)), holds);
    }
    let mut two_zones = pages(&machine, Gfp::KERNEL, 30);
    two_zones.extend(pages(&machine, Gfp::KERNEL | Gfp::DMA, 30));
    assert_eq!(free(&mut two_zones), 2);
    machine.finish();
}
