//! The block that came back last: handed out again as it is, or merged before anything else happens.

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::{Gfp, Step};
use mm::frame::{FrameState, FreeError};
use mm::report::Corruption;
use mm::system::{AllocError, Block};
use mm_tests::sim::{Given, Machine, Plain, SimConfig, Usual, Vmemmap};

const MIB: u64 = 1 << 20;
const GFP: Gfp = Gfp::KERNEL;

fn order(number: u8) -> Order {
    Order::new(number).unwrap()
}

fn orders() -> impl Iterator<Item = Order> {
    [4, 5, 8, 10].into_iter().map(order)
}

fn taken<C: SimConfig>(machine: &Machine<C>, order: Order) -> Pfn {
    machine.alloc_pages(GFP, order).unwrap()
}

fn free<C: SimConfig>(machine: &Machine<C>, pfn: Pfn, order: Order) -> Result<(), FreeError> {
    // SAFETY: of a block that the test has; where it has not, the call must refuse.
    unsafe { machine.free_pages(pfn, order) }
}

/// The steps of an allocation, and of what frees it.
fn steps<C: SimConfig>(machine: &Machine<C>, order: Order) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut note = |step| steps.push(step);
    let block = Block::alloc_traced(&**machine, GFP, order, &mut note).unwrap();
    let pfn = block.into_raw();
    // SAFETY: allocated just now.
    unsafe { machine.free_pages_traced(pfn, order, &mut note) }.unwrap();
    steps
}

fn comes_and_goes<C: SimConfig>() {
    for order in orders() {
        let machine = Machine::<C>::with_ram(64 * MIB);
        let pfn = taken(&machine, order);
        free(&machine, pfn, order).unwrap();
        assert_eq!(
            steps(&machine, order),
            [Step::Latest { pfn, order }, Step::Unmerged { pfn, order }],
        );
        assert_eq!(taken(&machine, order), pfn);
        free(&machine, pfn, order).unwrap();
        machine.finish();
    }
}

#[test]
fn it_comes_and_goes_without_a_split_or_a_merge() {
    comes_and_goes::<Usual>();
    comes_and_goes::<(Plain, Vmemmap)>();
}

#[test]
fn it_counts_as_free_and_says_so() {
    for order in orders() {
        let machine = Machine::<Usual>::with_ram(64 * MIB);
        let free_frames = machine.free_frames();
        let pfn = taken(&machine, order);
        assert_eq!(machine.free_frames(), free_frames - order.frames());
        free(&machine, pfn, order).unwrap();
        assert_eq!(machine.free_frames(), free_frames);
        assert_eq!(machine.page(pfn).unwrap().state(), Some(FrameState::Free));
        assert_eq!(free(&machine, pfn, order), Err(FreeError::AlreadyFree));
        machine.finish();
    }
}

#[test]
fn whoever_wants_another_one_finds_it_merged() {
    // One block of the largest order is all that this node has.
    let machine = Given::new(&[(32 * MIB, 36 * MIB)]).boot::<Usual>();
    let here = GFP | Gfp::THISNODE;
    for small in [4, 8].map(order) {
        let pfn = taken(&machine, small);
        assert_eq!(
            machine.alloc_pages(here, Order::MAX),
            Err(AllocError::OutOfMemory)
        );
        free(&machine, pfn, small).unwrap();
        for wanted in [Order::MAX, order(9), order(6), Order::ZERO] {
            let block = machine.alloc_block(here, wanted).unwrap();
            assert_eq!(block.order(), wanted);
            drop(block);
            assert!(machine.drain_all_pages());
            let pfn = taken(&machine, small);
            free(&machine, pfn, small).unwrap();
        }
    }
    machine.finish();
}

#[test]
fn the_next_one_that_comes_back_takes_its_place() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let order = order(4);
    let blocks: Vec<_> = (0..4).map(|_| taken(&machine, order)).collect();
    for &pfn in &blocks {
        free(&machine, pfn, order).unwrap();
    }
    assert_eq!(taken(&machine, order), blocks[3]);
    free(&machine, blocks[3], order).unwrap();
    machine.finish();
}

#[test]
fn whoever_looks_sees_it_merged() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let shape = || {
        let zones = machine.zones();
        zones
            .map(|zone| zone.snapshot(machine.hardware()).blocks)
            .collect::<Vec<_>>()
    };
    // The pageblock stays of the type that it has by then.
    let pfn = taken(&machine, order(4));
    free(&machine, pfn, order(4)).unwrap();
    let before = shape();
    for order in [4, 5, 8].map(order) {
        let pfn = taken(&machine, order);
        assert_ne!(shape(), before);
        free(&machine, pfn, order).unwrap();
        assert_eq!(shape(), before);
    }
    machine.finish();
}

#[test]
fn the_low_mark_holds_for_it() {
    let machine = Machine::<Usual>::new().ram(16 * MIB, 64 * MIB).boot();
    let zone = machine.zones().find(|zone| zone.is_managed()).unwrap();
    let order = order(4);
    let pfn = taken(&machine, order);
    // Others take what there is, down to the mark; then this one is given back and asked for by who
    // may not go below.
    let mut others = Vec::new();
    while let Ok(block) = machine.alloc_block(GFP | Gfp::NOWARN, Order::ZERO) {
        others.push(block);
    }
    free(&machine, pfn, order).unwrap();
    let floor = zone.watermarks().marks().min;
    let mut got = Vec::new();
    while let Ok(block) = machine.alloc_block(Gfp::NOWAIT | Gfp::NOWARN, order) {
        got.push(block);
    }
    assert!(zone.free_frames() >= floor, "{} left", zone.free_frames());
    drop((got, others));
    machine.finish();
}

#[test]
fn a_request_of_another_type_does_not_get_it() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let pfn = taken(&machine, order(4));
    free(&machine, pfn, order(4)).unwrap();
    let movable = machine
        .alloc_block(Gfp::HIGHUSER_MOVABLE, order(4))
        .unwrap();
    assert_ne!(movable.pfn(), pfn);
    // A compound page is of the same type, and remembered as compound.
    let page = machine.alloc_block(GFP | Gfp::COMP, order(4)).unwrap();
    assert!(
        machine
            .page(page.pfn())
            .unwrap()
            .frame()
            .word()
            .is_compound()
    );
    drop(page);
    let plain = machine.alloc_block(GFP, order(4)).unwrap();
    assert!(
        !machine
            .page(plain.pfn())
            .unwrap()
            .frame()
            .word()
            .is_compound()
    );
    drop((movable, plain));
    machine.finish();
}

#[test]
fn an_exact_range_around_it_can_be_had() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let pfn = taken(&machine, order(4));
    free(&machine, pfn, order(4)).unwrap();
    let range = PfnRange::block(pfn.align_down(Order::PAGEBLOCK), Order::PAGEBLOCK);
    let run = machine.alloc_contig_range(range, GFP).unwrap();
    assert!(run.frames().contains(pfn));
    drop(run);
    machine.finish();
}

#[test]
fn damaged_it_is_reported_and_stays_out() {
    let machine = Machine::<Usual>::with_ram(64 * MIB);
    let order = order(4);
    let pfn = taken(&machine, order);
    free(&machine, pfn, order).unwrap();
    let frame = machine.page(pfn).unwrap().frame();
    let record = core::ptr::from_ref(frame).cast::<u8>().cast_mut();
    // SAFETY: the state's byte of a record in this machine's RAM; records are atomics, so there is no
    // reference that forbids writing, and no other thread is there.
    unsafe { record.write_volatile(0x44) };
    let other = taken(&machine, order);
    assert_ne!(other, pfn);
    let reports = machine.hardware().take_reports();
    assert!(
        matches!(reports[..], [Corruption::NotFree { pfn: found, .. }] if found == pfn),
        "{reports:?}"
    );
    machine.abandon();
}
