//! One CPU after the other: what is forgotten when. Several at once: `loom_tests::shootdown_tests`.

use std::collections::BTreeMap;

use super::ring::PLACES;
use super::*;
use crate::addr::{VirtAddr, VirtRange, to_count, to_index};

const PAGE: u64 = 4096;

fn pages(first: u64, count: u64) -> VirtRange {
    let start = VirtAddr::new(first.wrapping_mul(PAGE));
    VirtRange::from_size(start, count.wrapping_mul(PAGE)).unwrap_or_default()
}

fn raise(requests: &Requests, range: VirtRange) -> Generation {
    requests.raise(to_forget(range).unwrap_or(TlbFlush::All))
}

/// What a CPU forgets when it catches up.
fn forgotten(seat: &Seat, requests: &Requests) -> Vec<TlbFlush> {
    let mut flushes = Vec::new();
    seat.catch_up(requests, &mut |what| flushes.push(what));
    flushes
}

#[test]
fn a_range_is_widened_to_pages_and_a_long_one_to_everything() {
    let forget = |start, size| to_forget(VirtRange::from_size(VirtAddr::new(start), size).unwrap());
    assert_eq!(forget(0x5000, 0), None);
    assert_eq!(forget(0x5fff, 2), Some(TlbFlush::Pages(pages(5, 2))));
    assert_eq!(forget(0x5001, 1), Some(TlbFlush::Pages(pages(5, 1))));
    assert_eq!(
        forget(0, CEILING.wrapping_mul(PAGE)),
        Some(TlbFlush::Pages(pages(0, CEILING)))
    );
    assert_eq!(forget(1, CEILING.wrapping_mul(PAGE)), Some(TlbFlush::All));
    assert_eq!(forget(u64::MAX - 1, 1), Some(TlbFlush::All));
}

#[test]
fn a_cpu_forgets_ranges_in_order_and_everything_where_it_missed_too_many_or_too_much() {
    let requests = Requests::new();
    let seat = Seat::running(&requests);
    assert_eq!(forgotten(&seat, &requests), []);
    for page in 1..=to_count(PLACES) {
        let _ = raise(&requests, pages(page, 1));
    }
    let each: Vec<_> = (1..=to_count(PLACES))
        .map(|page| TlbFlush::Pages(pages(page, 1)))
        .collect();
    assert_eq!(forgotten(&seat, &requests), each);
    assert_eq!(forgotten(&seat, &requests), []);
    for page in 0..=to_count(PLACES) {
        let _ = raise(&requests, pages(page, 1));
    }
    assert_eq!(forgotten(&seat, &requests), [TlbFlush::All]);
    let _ = raise(&requests, pages(0, 20));
    let _ = raise(&requests, pages(50, 14));
    assert_eq!(forgotten(&seat, &requests), [TlbFlush::All]);
    let stats = seat.stats();
    assert_eq!((stats.local_flush_all, stats.local_flush_one), (2, 8));
}

#[test]
fn one_interrupt_is_under_way_to_a_cpu_at_a_time() {
    let requests = Requests::new();
    let seat = Seat::running(&requests);
    let first = raise(&requests, pages(1, 1));
    assert_eq!(seat.ask(first, Reach::Pages), Need::Interrupt);
    let second = raise(&requests, pages(2, 1));
    assert_eq!(seat.ask(second, Reach::Pages), Need::Time);
    assert!(!seat.has_flushed(first, Reach::Pages));
    assert_eq!(forgotten(&seat, &requests).len(), 2);
    assert!(seat.has_flushed(first, Reach::Pages) && seat.has_flushed(second, Reach::Tables));
    assert_eq!(seat.ask(second, Reach::Pages), Need::Nothing);
    let third = raise(&requests, pages(3, 1));
    assert_eq!(seat.ask(third, Reach::Pages), Need::Interrupt);
    seat.note_unsent();
    assert_eq!(seat.ask(third, Reach::Pages), Need::Interrupt);
}

#[test]
fn a_lazy_cpu_is_left_out_and_catches_up_when_it_is_back() {
    let requests = Requests::new();
    let seat = Seat::running(&requests);
    seat.enter_lazy(Lazy::Idle);
    let generation = raise(&requests, pages(1, 1));
    assert_eq!(seat.ask(generation, Reach::Pages), Need::Nothing);
    assert!(seat.is_lazy() && seat.has_flushed(generation, Reach::Pages));
    // Where tables go it is interrupted.
    assert!(!seat.has_flushed(generation, Reach::Tables));
    assert_eq!(seat.ask(generation, Reach::Tables), Need::Interrupt);
    let mut flushes = Vec::new();
    let was = seat.leave_lazy(&requests, &mut |what| flushes.push(what));
    assert_eq!(was, Some(Lazy::Idle));
    assert_eq!(flushes, [TlbFlush::Pages(pages(1, 1))]);
    assert!(seat.has_flushed(generation, Reach::Tables));
    assert_eq!(seat.leave_lazy(&requests, &mut |_| panic!()), None);

    seat.enter_lazy(Lazy::Offline);
    let generation = raise(&requests, pages(1, 1));
    assert_eq!(seat.ask(generation, Reach::Tables), Need::Nothing);
    assert!(seat.has_flushed(generation, Reach::Tables));
}

#[test]
fn what_nests_in_a_flush_is_not_taken_back() {
    let requests = Requests::new();
    let seat = Seat::running(&requests);
    let first = raise(&requests, pages(1, 1));
    let mut nested = Vec::new();
    let mut outer = Vec::new();
    seat.catch_up(&requests, &mut |what| {
        if outer.is_empty() {
            let _ = raise(&requests, pages(2, 1));
            nested = forgotten(&seat, &requests);
        }
        outer.push(what);
    });
    assert_eq!((outer.len(), nested.len()), (1, 2));
    assert_eq!(seat.flushed(), requests.latest());
    assert!(requests.latest().is_after(first));
}

/// A TLB, or a page table: the operation in which each page was mapped as it is there.
type Table = BTreeMap<u64, u64>;

/// R41. The numbers start again soon after a machine begins; here they do so in the midst of it.
#[test]
fn generations_that_start_again_are_told_apart() {
    let requests = Requests::new();
    let mut cpus: Vec<_> = (0..4)
        .map(|_| (Seat::running(&requests), Table::new()))
        .collect();
    let mut table = Table::new();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let (mut starts, mut before) = (0_u32, requests.latest());
    for operation in 1..10_000_u64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (page, cpu) = ((random >> 8) & 15, to_index((random >> 20) & 3));
        if random & 3 == 0 {
            table.insert(page, operation);
            let generation = raise(&requests, pages(page, 1));
            assert!(generation.is_after(before) && !before.is_after(generation));
            assert_eq!(generation.since(before), 1);
            starts = starts.wrapping_add(u32::from(generation.number() < before.number()));
            before = generation;
            for (seat, tlb) in cpus.iter_mut().skip(cpu) {
                assert_ne!(seat.ask(generation, Reach::Pages), Need::Nothing);
                catch_up(seat, &requests, tlb);
                assert!(seat.has_flushed(generation, Reach::Pages));
            }
        }
        let (seat, tlb) = &mut cpus[cpu];
        if random & 63 < 3 {
            catch_up(seat, &requests, tlb);
        }
        let now = table.get(&page).copied().unwrap_or_default();
        let found = *tlb.entry(page).or_insert(now);
        if seat.has_flushed(before, Reach::Pages) {
            assert_eq!(found, now, "stale, operation {operation}");
        }
    }
    assert_eq!(starts, 1, "the numbers started again, once");
}

fn catch_up(seat: &Seat, requests: &Requests, tlb: &mut Table) {
    seat.catch_up(requests, &mut |what| match what {
        TlbFlush::All => tlb.clear(),
        TlbFlush::Pages(range) => {
            let is_kept = |page: u64| !range.contains(VirtAddr::new(page.wrapping_mul(PAGE)));
            tlb.retain(|page, _| is_kept(*page));
        }
    });
}
