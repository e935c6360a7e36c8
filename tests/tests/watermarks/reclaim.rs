//! R06, R59: memory comes back from those who can do with less; a request that finds none ends, and
//! who may not sleep never waits.
//!
//! Shrinkers live for good, and so do the machines that they are registered with.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::buddy::relief::{Freed, OomNotifier, OutOfMemory, Relief, ShrinkControl, Shrinker};
use mm::platform::NodeId;
use mm::system::AllocError;
use mm_tests::seed::cases;
use mm_tests::sim::{Listed, Machine, Usual};

const MIB: u64 = 1 << 20;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn machine() -> &'static Machine<Usual> {
    leak(Machine::new().ram(16 * MIB, 64 * MIB).boot())
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// A cache of single pages.
struct Cache {
    machine: &'static Machine<Usual>,
    pages: Mutex<Vec<Pfn>>,
    /// Calls, and objects looked at.
    counted: AtomicU64,
    scanned: AtomicU64,
    /// Whether it allocates while it gives back.
    allocates: bool,
}

impl Cache {
    fn new(machine: &'static Machine<Usual>) -> Self {
        Self {
            machine,
            pages: Mutex::default(),
            counted: AtomicU64::new(0),
            scanned: AtomicU64::new(0),
            allocates: false,
        }
    }

    fn registered(self) -> &'static Self {
        let machine = self.machine;
        let cache = leak(self);
        let shrinker = leak(Shrinker::new("cache", cache));
        machine.register_shrinker(shrinker).unwrap();
        cache
    }

    /// Takes pages, at most so many, until there are none for an ordinary request that does not
    /// reclaim.
    fn fill(&self, most: usize) -> usize {
        let mut pages = self.pages.lock().unwrap();
        while pages.len() < most {
            match self.machine.alloc_page(Gfp::empty()) {
                Ok(page) => pages.push(page),
                Err(_) => break,
            }
        }
        pages.len()
    }

    fn give(&self, most: u64) -> u64 {
        let mut pages = self.pages.lock().unwrap();
        let left = pages.len().saturating_sub(most as usize);
        let given = pages.split_off(left);
        free(self.machine, &given);
        given.len() as u64
    }
}

impl Relief for Cache {
    fn count_objects(&self, _: &ShrinkControl) -> u64 {
        self.counted.fetch_add(1, Ordering::Relaxed);
        self.pages.lock().unwrap().len() as u64
    }

    fn scan_objects(&self, _: &ShrinkControl, objects: u64) -> Option<Freed> {
        self.scanned.fetch_add(objects, Ordering::Relaxed);
        if self.allocates {
            // Comes from the reserves, and asks nobody in turn.
            let page = self.machine.alloc_page(Gfp::KERNEL).unwrap();
            free(self.machine, &[page]);
        }
        let pages = self.give(objects);
        Some(Freed {
            objects: pages,
            pages,
        })
    }
}

impl OutOfMemory for Cache {
    fn out_of_memory(&self, _: Order) -> u64 {
        self.counted.fetch_add(1, Ordering::Relaxed);
        self.give(8)
    }
}

/// A cache that never lets anything go: it has nothing, or cannot.
struct Stubborn(u64);

impl Relief for Stubborn {
    fn count_objects(&self, _: &ShrinkControl) -> u64 {
        self.0
    }

    fn scan_objects(&self, _: &ShrinkControl, _: u64) -> Option<Freed> {
        None
    }
}

fn free(machine: &Machine<Usual>, pages: &[Pfn]) {
    for &page in pages {
        // SAFETY: taken as a number, freed once.
        unsafe { machine.free_pages(page, Order::ZERO) }.unwrap();
    }
}

fn is_above_high(machine: &Machine<Usual>) -> bool {
    let mut zones = machine.zones().filter(|zone| zone.is_managed());
    zones.all(|zone| zone.free_frames() > zone.watermarks().marks().high)
}

/// Requests by what they may do to be served.
const CLASSES: [Gfp; 10] = [
    Gfp::KERNEL,
    Gfp::KERNEL.union(Gfp::HIGH),
    Gfp::ATOMIC,
    Gfp::NOWAIT,
    Gfp::KERNEL.union(Gfp::MEMALLOC),
    Gfp::KERNEL.union(Gfp::NORETRY),
    Gfp::KERNEL.union(Gfp::RETRY_MAYFAIL),
    Gfp::HIGHUSER_MOVABLE,
    Gfp::KERNEL.union(Gfp::THISNODE),
    Gfp::KERNEL.union(Gfp::NOFAIL),
];

#[test]
fn every_request_ends_when_nothing_can_be_reclaimed() {
    for stubborn in [None, Some(0), Some(1 << 20)] {
        let machine = machine();
        if let Some(objects) = stubborn {
            let shrinker = leak(Shrinker::new("stubborn", leak(Stubborn(objects))));
            machine.register_shrinker(shrinker).unwrap();
        }
        let before = machine.free_frames();
        let mut taken = Vec::new();
        // To the last page, so that not even reserves help.
        while let Ok(page) = machine.alloc_page(Gfp::MEMALLOC | Gfp::NOWARN) {
            taken.push(page);
        }
        // kswapd has given the node up after so many runs; they do not count.
        for _ in 0..16 {
            let balance = machine.balance_node(NodeId(0));
            assert!(!balance.is_balanced && balance.reclaimed == 0);
        }
        for gfp in CLASSES {
            for size in Order::all() {
                if gfp.contains(Gfp::NOFAIL) && size.as_u8() > 1 {
                    continue;
                }
                let rounds = machine.hardware().reschedules();
                let result = machine.alloc_pages(gfp | Gfp::NOWARN, size);
                assert_eq!(result, Err(AllocError::OutOfMemory), "{gfp:?} {size:?}");
                let rounds = machine.hardware().reschedules() - rounds;
                assert!(rounds <= 32, "{gfp:?} {size:?}: {rounds} rounds");
                let waits = gfp.contains(Gfp::DIRECT_RECLAIM)
                    && !gfp.intersects(Gfp::MEMALLOC | Gfp::NORETRY)
                    && (size.as_u8() <= 3 || gfp.contains(Gfp::RETRY_MAYFAIL));
                assert_eq!(rounds > 0, waits, "{gfp:?} {size:?}: {rounds} rounds");
            }
        }
        free(machine, &taken);
        assert_eq!(machine.free_frames(), before);
        machine.check();
    }
}

/// R06 on eight CPUs at once: `MM_CASES` sets how often each CPU asks for each class and order.
#[test]
fn every_request_of_eight_cpus_ends_when_nothing_can_be_reclaimed() {
    let builder = Machine::<Listed<Usual>>::new().ram(16 * MIB, 64 * MIB);
    let machine = builder.cpus(9).boot();
    let mut taken = Vec::new();
    let gfp = Gfp::MEMALLOC | Gfp::NOWARN;
    while let Ok(page) = machine.alloc_block(gfp, Order::ZERO) {
        taken.push(page);
    }
    let attempts = cases(10);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for cpu in 1..=8 {
            let (machine, total) = (&machine, &total);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                let hardware = machine.hardware();
                let each = || CLASSES.into_iter().flat_map(orders);
                for (gfp, size) in (0..attempts).flat_map(|_| each()) {
                    let rounds = hardware.reschedules_here();
                    let result = machine.alloc_pages(gfp | Gfp::NOWARN, size);
                    assert_eq!(result, Err(AllocError::OutOfMemory), "{gfp:?} {size:?}");
                    let rounds = hardware.reschedules_here() - rounds;
                    assert!(rounds <= 16 + 16, "{gfp:?} {size:?}: {rounds} rounds");
                    total.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} requests ended", total.into_inner());
    drop(taken);
    machine.finish();
}

/// A class of requests with every order that it may ask for.
fn orders(gfp: Gfp) -> impl Iterator<Item = (Gfp, Order)> {
    let may = move |size: &Order| !gfp.contains(Gfp::NOFAIL) || size.as_u8() <= 1;
    Order::all().filter(may).map(move |size| (gfp, size))
}

#[test]
fn a_cache_gives_back_what_a_request_needs() {
    let machine = machine();
    machine.hardware().has_kswapd();
    let before = machine.free_frames();
    let cache = Cache::new(machine).registered();
    let filled = cache.fill(usize::MAX);
    let mut taken = Vec::new();
    for _ in 0..1000 {
        taken.push(machine.alloc_page(Gfp::KERNEL).unwrap());
    }
    let left = cache.pages.lock().unwrap().len();
    // Little more than was needed: a cluster, or the least share of the cache, at a time.
    assert!(
        (1000..1000 + 512).contains(&(filled - left)),
        "{left} of {filled}"
    );
    let stats = machine.reclaim_stats();
    assert_eq!(stats.pgsteal_direct, (filled - left) as u64);
    assert_eq!(stats.pgscan_direct, cache.scanned.load(Ordering::Relaxed));
    assert!(stats.allocstall[2] > 0);
    assert_eq!((stats.pgsteal_kswapd, stats.pageoutrun), (0, 0));
    // Who may not wait gets nothing of it.
    let asked = cache.counted.load(Ordering::Relaxed);
    while let Ok(page) = machine.alloc_page(Gfp::NOWAIT) {
        taken.push(page);
    }
    assert_eq!(cache.counted.load(Ordering::Relaxed), asked);
    free(machine, &taken);
    cache.give(u64::MAX);
    assert_eq!(machine.free_frames(), before);
    machine.check();
}

#[test]
fn caches_are_asked_in_proportion_to_what_they_have() {
    let machine = machine();
    let large = Cache::new(machine).registered();
    let small = Cache::new(machine).registered();
    let dear = leak(Cache::new(machine));
    let shrinker = leak(Shrinker::new("dear", dear).seeks(8));
    machine.register_shrinker(shrinker).unwrap();
    assert!(machine.register_shrinker(shrinker).is_err());
    small.fill(2048);
    dear.fill(2048);
    large.fill(8192);
    assert_eq!(large.pages.lock().unwrap().len(), 8192);
    // The rest goes to nobody who would give it back.
    let rest = leak(Cache::new(machine));
    rest.fill(usize::MAX);
    machine.set_min_free_kbytes(16 << 10).unwrap();
    let balance = machine.balance_node(NodeId(0));
    assert!(balance.is_balanced && is_above_high(machine));
    let scanned = |cache: &Cache| cache.scanned.load(Ordering::Relaxed);
    let (large_part, small_part, dear_part) = (scanned(large), scanned(small), scanned(dear));
    assert!(small_part > 0, "{large_part} {small_part} {dear_part}");
    // Whole calls of 128 only: within one of each.
    assert!(
        large_part.abs_diff(4 * small_part) <= 5 * 128,
        "{large_part} {small_part}"
    );
    assert!(
        small_part.abs_diff(4 * dear_part) <= 5 * 128,
        "{small_part} {dear_part}"
    );
    // One that has left is not asked any more.
    assert!(machine.unregister_shrinker(shrinker));
    let asked = dear.counted.load(Ordering::Relaxed);
    rest.fill(usize::MAX);
    assert!(machine.balance_node(NodeId(0)).is_balanced);
    assert_eq!(dear.counted.load(Ordering::Relaxed), asked);
    for cache in [large, small, dear, rest] {
        cache.give(u64::MAX);
    }
    machine.check();
}

#[test]
fn kswapd_is_woken_by_who_finds_memory_low_and_restores_the_high_mark() {
    let machine = machine();
    let cache = Cache::new(machine).registered();
    // The marks so far apart that a call to a cache does not reach from one to the next.
    machine.set_watermark_scale_factor(1000).unwrap();
    let low = machine.zones().map(|zone| zone.watermarks().marks().low);
    let low: u64 = low.sum();
    machine.hardware().has_kswapd();
    let room = machine.free_frames() - low;
    cache.fill(room as usize);
    let page = machine.alloc_page(Gfp::empty()).unwrap();
    assert!(
        machine.hardware().woken().is_empty(),
        "it did not ask for it"
    );
    let second = machine.alloc_page(Gfp::ATOMIC).unwrap();
    assert_eq!(machine.hardware().woken(), [NodeId(0)]);
    assert_eq!(
        cache.counted.load(Ordering::Relaxed),
        0,
        "that is kswapd's work"
    );
    let balance = machine.balance_node(NodeId(0));
    assert!(balance.is_balanced && is_above_high(machine));
    let stats = machine.reclaim_stats();
    assert_eq!(
        (stats.pageoutrun, stats.pgsteal_kswapd),
        (1, balance.reclaimed)
    );
    assert_eq!(stats.allocstall, [0; 5]);
    // Above the mark, there is nothing to do.
    assert_eq!(machine.balance_node(NodeId(0)).reclaimed, 0);
    assert_eq!(machine.reclaim_stats().pageoutrun, 1);
    free(machine, &[page, second]);
    cache.give(u64::MAX);
    machine.check();
}

#[test]
fn without_a_thread_a_request_that_may_wait_does_the_work_of_kswapd() {
    let machine = machine();
    let cache = Cache::new(machine).registered();
    cache.fill(usize::MAX);
    let first = machine.alloc_page(Gfp::ATOMIC).unwrap();
    assert!(!is_above_high(machine), "it may not wait");
    let second = machine.alloc_page(Gfp::KERNEL).unwrap();
    let stats = machine.reclaim_stats();
    // It is the request that reclaimed.
    assert_eq!((stats.allocstall[2], stats.pageoutrun), (1, 0));
    let scanned = cache.scanned.load(Ordering::Relaxed);
    assert_eq!((stats.pgscan_direct, stats.pgscan_kswapd), (scanned, 0));
    assert!(stats.pgsteal_direct > 0 && stats.pgsteal_kswapd == 0);
    free(machine, &[first]);
    assert!(is_above_high(machine));
    free(machine, &[second]);
    cache.give(u64::MAX);
    machine.check();
}

#[test]
fn what_reclaim_allocates_comes_from_the_reserves_and_does_not_reclaim() {
    let machine = machine();
    machine.hardware().has_kswapd();
    // Nobody runs kswapd here, so nobody would lower marks again that are raised.
    machine.set_watermark_boost_factor(0).unwrap();
    let mut cache = Cache::new(machine);
    cache.allocates = true;
    let cache = cache.registered();
    cache.fill(usize::MAX);
    let page = machine.alloc_page(Gfp::KERNEL).unwrap();
    assert_eq!(machine.reclaim_stats().allocstall[2], 1);
    free(machine, &[page]);
    cache.give(u64::MAX);
    machine.check();
}

#[test]
fn who_may_not_sleep_is_reported_and_does_not_wait() {
    let machine = machine();
    let cache = Cache::new(machine).registered();
    cache.fill(usize::MAX);
    let hardware = machine.hardware();
    let gfp = Gfp::KERNEL | Gfp::NOWARN;
    let result = hardware.in_atomic(|| machine.alloc_pages(gfp, order(2)));
    assert_eq!(result, Err(AllocError::OutOfMemory));
    assert_eq!(cache.counted.load(Ordering::Relaxed), 0);
    let reports = hardware.take_sleeps();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].order, reports[0].mode), (order(2), gfp.bits()));
    // Who does not ask to wait, and who may, are not reported.
    let page = hardware
        .in_atomic(|| machine.alloc_page(Gfp::ATOMIC))
        .unwrap();
    let second = machine.alloc_page(Gfp::KERNEL).unwrap();
    assert!(hardware.take_sleeps().is_empty());
    free(machine, &[page, second]);
    cache.give(u64::MAX);
    machine.check();
}

#[test]
fn those_who_want_to_know_are_told_that_there_is_no_memory_left() {
    let machine = machine();
    let cache = leak(Cache::new(machine));
    let notifier = leak(OomNotifier::new(cache));
    machine.register_oom_notifier(notifier).unwrap();
    assert!(machine.register_oom_notifier(notifier).is_err());
    cache.fill(usize::MAX);
    let told = || cache.counted.swap(0, Ordering::Relaxed);
    for (gfp, size) in [
        (Gfp::NOWAIT, 0),
        (Gfp::KERNEL | Gfp::NORETRY, 0),
        (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 0),
        (Gfp::KERNEL | Gfp::DMA32, 0),
        (Gfp::KERNEL, 4),
    ] {
        assert!(machine.alloc_pages(gfp, order(size)).is_err());
        assert_eq!(told(), 0, "{gfp:?} {size}");
    }
    let page = machine.alloc_page(Gfp::KERNEL).unwrap();
    assert_eq!(told(), 1);
    assert!(machine.unregister_oom_notifier(notifier));
    let mut taken = vec![page];
    while let Ok(page) = machine.alloc_page(Gfp::KERNEL) {
        taken.push(page);
    }
    assert_eq!(told(), 0);
    // One that must not fail takes the reserves.
    let reserve = machine.free_frames();
    assert!(reserve > 0);
    for _ in 0..reserve {
        taken.push(machine.alloc_page(Gfp::KERNEL | Gfp::NOFAIL).unwrap());
    }
    assert_eq!(machine.free_frames(), 0);
    free(machine, &taken);
    cache.give(u64::MAX);
    machine.check();
}
