//! R05: every public function with an integer argument, at every boundary: no panic, no wrap.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mm::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange, VirtAddr, to_count, to_index};
use mm::buddy::{Gfp, MigrateType, Request, policy};
use mm::collections::{Bit, Bitmap, Members, SetBank};
use mm::frame::{Event, FrameState, FrameTable, PageFlags, Word, ZoneId};
use mm::mem::{Array, RamClaim};
use mm::memblock::Memblock;
use mm::platform::{IrqState, NodeId};
use mm::sync::RefCount;
use mm::zone::plan::{CoreWish, NodePlan, Plan};
use mm_tests::oracles::state_hash;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, Usual};

const PAGE: u64 = 4096;
const GRID: [u64; 15] = [
    0,
    1,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    1 << 31,
    1 << 32,
    1 << 52,
    (1 << 52) - 1,
    u64::MAX / 2,
    u64::MAX / 2 + 1,
    u64::MAX - PAGE,
    u64::MAX - PAGE + 1,
    u64::MAX - 1,
    u64::MAX,
];

/// Calls `body` on every pair of the grid; answers how many calls that were.
fn everywhere(name: &str, body: impl Fn(u64, u64)) -> usize {
    for one in GRID {
        for other in GRID {
            let outcome = catch_unwind(AssertUnwindSafe(|| body(one, other)));
            assert!(outcome.is_ok(), "{name} panicked at {one:#x}, {other:#x}");
        }
    }
    GRID.len() * GRID.len()
}

/// The same number as far as 64 bits hold it.
fn exact(number: u128) -> Option<u64> {
    u64::try_from(number).ok()
}

fn wide(number: u64) -> u128 {
    u128::from(number)
}

fn order_of(number: u64) -> Order {
    Order::new((number % 11) as u8).unwrap()
}

#[test]
fn addresses_and_frame_numbers_are_exact_or_absent() {
    let mut calls = 0;
    calls += everywhere("PhysAddr", |a, b| {
        let (x, y) = (PhysAddr::new(a), PhysAddr::new(b));
        assert_eq!(
            x.checked_add(b).map(PhysAddr::as_u64),
            exact(wide(a) + wide(b))
        );
        assert_eq!(x.checked_sub(b).map(PhysAddr::as_u64), a.checked_sub(b));
        assert_eq!(
            x.saturating_add(b).as_u64(),
            exact(wide(a) + wide(b)).unwrap_or(u64::MAX)
        );
        assert_eq!(x.offset_from(y), a.checked_sub(b));
        assert_eq!(x.frame().as_u64(), a / PAGE);
        // Alignments are powers of two by contract.
        let align = 1_u64 << (b % 64);
        let up = wide(a).div_ceil(wide(align)) * wide(align);
        assert_eq!(x.align_up(align).map(PhysAddr::as_u64), exact(up));
        assert_eq!(x.align_down(align).as_u64(), a / align * align);
        assert_eq!(x.is_aligned(align), a % align == 0);
    });
    calls += everywhere("VirtAddr", |a, b| {
        let x = VirtAddr::new(a);
        assert_eq!(
            x.checked_add(b).map(VirtAddr::as_u64),
            exact(wide(a) + wide(b))
        );
        assert_eq!(x.offset_from(VirtAddr::new(b)), a.checked_sub(b));
    });
    calls += everywhere("PhysRange", |a, b| {
        let (x, y) = (PhysAddr::new(a), PhysAddr::new(b));
        let sized = PhysRange::from_size(x, b);
        assert_eq!(sized.size(), b.min(u64::MAX - a));
        assert_eq!(PhysRange::new(x, y).is_some(), a <= b);
        let whole = sized.whole_frames();
        let touched = sized.touched_frames();
        assert!(touched.covers(whole) || whole.is_empty());
        assert!(whole.frames() <= touched.frames());
        let other = PhysRange::from_size(y, a);
        assert_eq!(sized.overlaps(other), !sized.intersect(other).is_empty());
        let _ = (
            sized.covers(other),
            sized.contains(y),
            format!("{sized} {sized:?}"),
        );
    });
    calls += everywhere("Pfn", |a, b| {
        let (x, order) = (Pfn::new(a), order_of(b));
        assert_eq!(x.checked_add(b).map(Pfn::as_u64), exact(wide(a) + wide(b)));
        assert_eq!(x.saturating_add(b).as_u64(), a.saturating_add(b));
        assert_eq!(x.offset_from(Pfn::new(b)), a.checked_sub(b));
        assert_eq!(
            x.checked_addr().map(PhysAddr::as_u64),
            exact(wide(a) * wide(PAGE))
        );
        assert_eq!(x.buddy(order).buddy(order), x);
        assert!(x.align_down(order) <= x && x.align_down(order).is_aligned(order));
        assert!(x.align_up(order).is_aligned(order));
        assert_eq!(x.section(), a >> 15);
        let _ = (x.section_offset(), x.pageblock_offset(), x.addr());
    });
    calls += everywhere("PfnRange", |a, b| {
        let numbers = PfnRange::from_numbers(a, b);
        assert_eq!(numbers.frames(), b.saturating_sub(a));
        let counted = PfnRange::from_count(Pfn::new(a), b);
        assert_eq!(
            counted.map(PfnRange::frames),
            exact(wide(a) + wide(b)).map(|_| b)
        );
        assert_eq!(PfnRange::new(Pfn::new(a), Pfn::new(b)).is_some(), a <= b);
        assert!(PfnRange::block(Pfn::new(a), order_of(b)).frames() <= 1024);
        let first = numbers.blocks(Order::MAX).next();
        assert_eq!(first.is_none(), numbers.is_empty());
        assert!(first.is_none_or(|(pfn, order)| pfn.is_aligned(order)));
        let _ = (
            numbers.addrs(),
            numbers.iter().next(),
            numbers.iter().next_back(),
        );
        let _ = (numbers.contains(Pfn::new(b)), format!("{numbers:?}"));
    });
    calls += everywhere("Order", |a, b| {
        assert_eq!(Order::new(a as u8).is_some(), a as u8 <= 10);
        let frames = Order::for_frames(a);
        assert!(frames.map_or(a > 1024, |order| order.frames() >= a));
        let bytes = Order::for_bytes(a);
        assert!(bytes.map_or(a > 1 << 22, |order| order.bytes() >= a));
        let largest = order_of(b);
        assert!(Order::at_most(a, largest) <= largest);
        assert!(Pfn::new(a).is_aligned(Order::of_alignment(Pfn::new(a), largest)));
        assert_eq!(to_count(to_index(a)), a);
    });
    assert!(calls >= 1_350, "{calls} calls");
}

#[test]
fn records_tables_and_requests_accept_any_number() {
    let mut calls = 0;
    let machine = Machine::<Usual>::with_ram(16 << 20);
    let table = machine.frames().unwrap();
    calls += everywhere("Word", |a, b| {
        let word = Word::from_bits(a);
        let home = ZoneId {
            node: NodeId(b as u16),
            zone: b as u8,
        };
        let order = order_of(b);
        for word in [
            word,
            Word::free(home, order),
            Word::unique(home, order, b as u8),
        ] {
            let _ = (word.state(), word.order(), word.mobility(), word.zone_id());
            let _ = (word.flags(), word.belongs_to(home), word.is_compound());
            let _ = (word.with_order(order), word.compound(), format!("{word:?}"));
            assert_eq!(
                word.with_state(FrameState::Free).state(),
                Some(FrameState::Free)
            );
        }
        assert!(Word::free(home, order).is_free_block(home, order));
        let _ = (FrameState::from_bits(a), MigrateType::from_bits(b as u8));
        for event in Event::ALL {
            let _ = FrameState::from_bits(a % 5).unwrap().after(event);
        }
    });
    calls += everywhere("Frame", |a, b| {
        let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
        let frame = machine.page(block.pfn()).unwrap().frame();
        let before = frame.word();
        block.set_private(a);
        assert_eq!(frame.private(), a);
        let flags = PageFlags::from_bits_retain(b as u32);
        block.set_flags(flags);
        assert!(block.test(flags));
        assert_eq!(block.clear_flags(flags), flags);
        assert_eq!(frame.word(), before);
        drop(block);
        let count = RefCount::new(a as u32);
        let _ = (count.inc_not_zero(), count.dec(), count.dec(), count.get());
        assert_eq!(IrqState::new(a).flags(), a);
    });
    calls += everywhere("FrameTable", |a, b| {
        let (x, home) = (
            Pfn::new(a),
            ZoneId {
                node: NodeId(0),
                zone: 0,
            },
        );
        assert_eq!(table.frame(x).is_some(), a < 1 << 15);
        let _ = (table.page(x), table.head(x), table.try_get(x));
        let _ = FrameTable::bytes_for(x);
        let _ = table.virt_to_page(machine.hardware(), VirtAddr::new(b));
        if a >= 1 << 15 {
            assert!(table.reserve_once(x, home).is_err());
        }
    });
    calls += everywhere("SetBank and Array", |a, b| {
        let _ = SetBank::bytes_for(a, b);
        let expected = exact(wide(a) * 8);
        assert_eq!(Array::<u64>::bytes_for(to_index(a)), expected);
        let mut bank = SetBank::empty();
        bank.insert(a, b);
        let _ = bank.remove(a, b);
        assert_eq!((bank.first(a), bank.contains(a, b)), (None, false));
        assert!(bank.is_consistent(a));
    });
    calls += everywhere("Request and policy", |a, b| {
        let gfp = Gfp::from_bits_retain(a as u32);
        if Request::new(gfp, order_of(b)).is_ok() {
            assert!(Gfp::from_bits(a as u32).is_some());
        }
        let survey = policy::Survey {
            free: a,
            movable: b,
        };
        for kind in MigrateType::ALL {
            let _ = policy::may_claim(survey, kind, MigrateType::Movable);
            let _ = policy::may_claim(survey, MigrateType::Movable, kind);
            let _ = policy::worth_claiming(order_of(a), kind);
        }
    });
    machine.finish();
    assert!(calls >= 1_100, "{calls} calls");
}

#[test]
fn a_bitmap_finds_the_runs_that_a_row_of_flags_has() {
    const BITS: u64 = 700;
    let machine = Machine::<Usual>::new()
        .ram(0, 16 << 20)
        .reserve(8 << 20, 1 << 20)
        .boot();
    let range = PhysRange::from_size(PhysAddr::new(8 << 20), Bitmap::bytes_for(BITS));
    // SAFETY: reserved on this machine, for this test.
    let ram = unsafe { machine.hardware().early_ram(range) };
    let mut bitmap = Bitmap::carve(machine.hardware(), ram, BITS).unwrap();
    let mut flags = [false; BITS as usize];
    let mut random = Random::new(seed("a_bitmap"));
    for _ in 0..20_000 {
        let (first, len) = (random.below(BITS + 10), random.below(100));
        let value = random.below(2) == 0;
        bitmap.put(first, len, if value { Bit::Set } else { Bit::Clear });
        for flag in flags.iter_mut().skip(first as usize).take(len as usize) {
            *flag = value;
        }
        let (from, len) = (random.below(BITS + 10), random.below(80));
        let (align, offset) = (1 << random.below(7), random.below(100));
        let fits = |start: &u64| {
            let run = flags.get(*start as usize..(*start + len) as usize);
            (start + offset).is_multiple_of(align) && run.is_some_and(|run| !run.contains(&true))
        };
        let expected = (from..=BITS).find(fits);
        assert_eq!(bitmap.find_clear(from, len, (align, offset)), expected);
        let count = flags.iter().filter(|flag| **flag).count() as u64;
        assert_eq!(bitmap.count(), count);
    }
    assert_eq!(bitmap.find_clear(u64::MAX, 1, (1, 1)), None);
    assert_eq!(bitmap.find_clear(0, u64::MAX, (1, 1)), None);
    machine.finish();
}

#[test]
fn a_carved_bank_answers_for_sets_and_numbers_it_does_not_have() {
    let machine = Machine::<Usual>::new()
        .ram(0, 16 << 20)
        .reserve(8 << 20, 1 << 20)
        .boot();
    let bytes = SetBank::bytes_for(3, 5_000).unwrap();
    let range = PhysRange::from_size(PhysAddr::new(8 << 20), bytes);
    // SAFETY: reserved on this machine, for this test.
    let ram = unsafe { machine.hardware().early_ram(range) };
    let bank = SetBank::carve(machine.hardware(), ram, 3, 5_000).unwrap();
    let bank = std::cell::RefCell::new(bank);
    everywhere("SetBank", |set, member| {
        let mut bank = bank.borrow_mut();
        bank.insert(set, member);
        let _ = (
            bank.first(set),
            bank.contains(set, member),
            bank.is_consistent(set),
        );
        let _ = bank.remove(set, member);
    });
    let mut bank = bank.into_inner();
    for set in 0..3 {
        assert_eq!(bank.first(set), None, "set {set} is empty again");
    }
    // And for those it has, as a set of numbers would, across the levels of its summary.
    let mut random = Random::new(seed("a_carved_bank"));
    let mut numbers = BTreeSet::new();
    for _ in 0..20_000 {
        let number = random.below(5_000) / 700 * 700;
        if random.below(2) == 0 {
            bank.insert(1, number);
            numbers.insert(number);
        } else if numbers.remove(&number) {
            let left = bank.remove(1, number);
            assert_eq!(left == Members::None, numbers.is_empty());
        }
        assert_eq!(bank.first(1), numbers.first().copied());
        assert_eq!(bank.contains(1, number), numbers.contains(&number));
        assert!(bank.is_consistent(1) && bank.first(0).is_none());
    }
    machine.finish();
}

#[test]
fn the_memory_interface_refuses_every_impossible_number_without_a_trace() {
    let machine = Machine::<Usual>::with_ram(16 << 20);
    let before = state_hash(&machine);
    let mut calls = 0;
    calls += everywhere("Memory by number", |a, b| {
        let (x, order) = (Pfn::new(a), order_of(b));
        let (page, head) = (machine.page(x), machine.frames().unwrap().head(x));
        assert!(head.is_none() || page.is_some());
        assert_eq!(machine.zone_of(x).is_some(), head.is_some());
        assert_eq!(machine.get_page(x), None);
        // SAFETY: deliberately none: nothing is live, so there is nothing to free.
        unsafe { machine.free_pages(x, order) }.unwrap_err();
        // SAFETY: as above.
        unsafe { machine.put_page(x) }.unwrap_err();
        // SAFETY: as above.
        unsafe { machine.free_pages_bulk(&mut [None, Some(x)]) }.unwrap_err();
        let range = PfnRange::from_numbers(a, b);
        // 0..1 and the like are free memory; everything else must be refused.
        let run = machine.alloc_contig_range(range, Gfp::KERNEL);
        assert!(run.is_err() || b <= 4096, "{range:?}");
    });
    calls += everywhere("Memory by size", |a, b| {
        let run = machine.alloc_pages_exact(Gfp::KERNEL, a);
        assert_eq!(run.is_ok(), (1..=1 << 22).contains(&a));
        drop(run);
        let gfp = Gfp::from_bits_retain(b as u32);
        drop(machine.alloc_block(gfp, order_of(a)));
    });
    calls += everywhere("Zone", |a, b| {
        let range = PfnRange::from_numbers(a, b);
        for zone in machine.zones() {
            if zone.isolate(machine.hardware(), range).is_ok() {
                zone.unisolate(machine.hardware(), range);
            }
            zone.unisolate(machine.hardware(), range);
            let _ = zone.pageblock_type(machine.hardware(), Pfn::new(a));
            let _ = zone.owns(machine.frames().unwrap(), Pfn::new(b));
        }
    });
    assert!(calls >= 3 * 225);
    // What was taken for a moment is back; only the statistics say that it was.
    machine.check();
    assert_ne!(state_hash(&machine), before, "the statistics moved");
    machine.finish();
}

#[test]
fn memblock_and_plan_accept_any_range() {
    let machine = Machine::<Usual>::with_ram(16 << 20);
    let hardware = machine.hardware();
    let calls = everywhere("Memblock and Plan", |a, b| {
        // SAFETY: deliberately none for what is added: nothing is allocated here, so nothing is
        // ever read or written.
        let mut early = Memblock::new(unsafe { RamClaim::new() });
        let range = PhysRange::from_size(PhysAddr::new(a), b);
        early.add(hardware, range).unwrap();
        early
            .reserve(hardware, PhysRange::from_size(PhysAddr::new(b), a))
            .unwrap();
        early.set_node(hardware, range, NodeId(1)).unwrap();
        early.validate().unwrap();
        let mut nodes = [NodePlan::EMPTY; 2];
        if let Ok(plan) = Plan::compute(&early, CoreWish::default(), &mut nodes) {
            assert_eq!(plan.present(), range.whole_frames().frames());
            plan.unavailable(&early, &mut |_| {});
            plan.lines(&early, &mut |line| assert!(!line.to_string().is_empty()));
        }
        early
            .remove(hardware, PhysRange::from_size(PhysAddr::new(b), b))
            .unwrap();
        early.validate().unwrap();
        let whole = early.free_ranges().filter_map(|free| free.whole_frames());
        assert!(
            whole
                .map(|free| free.frames.frames())
                .all(|frames| frames > 0)
        );
    });
    assert_eq!(calls, 225);
    machine.finish();
}
