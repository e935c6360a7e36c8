//! R62: everything that objects can do, while one request for pages in a hundred fails.

use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::slab::SlabFlags;
use mm::system::{DmaBuffer, DmaPool, DmaRequest, FailPageAlloc, KBytes, KmemCache, Memory};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig, SimPlatform, Usual};

const MIB: u64 = 1 << 20;

type Home<'m, C> = &'m Memory<SimPlatform<C>>;

/// What is alive, with the byte that it is filled with.
enum Held<'m, C: SimConfig> {
    Bytes(KBytes<Home<'m, C>>, u8),
    Raw(NonNull<u8>, usize, u8),
    Buffer(DmaBuffer<Home<'m, C>>, u8),
}

struct Play<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    random: Random,
    caches: Vec<Option<KmemCache<Home<'m, C>>>>,
    held: Vec<Held<'m, C>>,
    refused: u64,
    done: u64,
}

fn filled(object: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: an object of that size, just allocated.
    unsafe { object.write_bytes(byte, size) };
}

fn holds(object: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: as above; it was filled.
    let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
    assert!(bytes.iter().all(|&found| found == byte));
}

impl<'m, C: SimConfig> Play<'m, C> {
    fn size(&mut self) -> usize {
        let largest = 1 << (3 + self.random.below(12));
        1 + self.random.below(largest) as usize
    }

    fn gfp(&mut self) -> Gfp {
        let base = [
            Gfp::KERNEL,
            Gfp::NOWAIT,
            Gfp::ATOMIC,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
        ];
        base[self.random.below_index(4)] | Gfp::NOWARN
    }

    fn keep<T>(&mut self, made: Option<T>, held: impl FnOnce(T, u8) -> Held<'m, C>) {
        let byte = self.done.to_le_bytes()[0];
        match made {
            Some(made) => self.held.push(held(made, byte)),
            None => self.refused += 1,
        }
    }

    /// A cache of several that come and go.
    fn cache(&mut self) -> Option<usize> {
        let which = self.random.below_index(self.caches.len());
        if self.caches[which].is_none() {
            let layout = (8 + 40 * which, 8);
            let flags = [SlabFlags::NO_MERGE, SlabFlags::TYPESAFE_BY_RCU][which % 2];
            let made = KmemCache::create(&**self.machine, "endures", layout, flags);
            self.refused += u64::from(made.is_err());
            self.caches[which] = made.ok();
        }
        self.caches[which].is_some().then_some(which)
    }

    fn take(&mut self) {
        let (size, gfp) = (self.size(), self.gfp());
        match self.random.below(8) {
            0..=3 => {
                let made = KBytes::alloc(&**self.machine, size, gfp).ok();
                self.keep(made, |mut bytes, byte| {
                    bytes.fill(byte);
                    Held::Bytes(bytes, byte)
                });
            }
            4 => {
                let made = self.machine.kzalloc(size, gfp).ok();
                self.keep(made, |object, byte| {
                    holds(object, size, 0);
                    filled(object, size, byte);
                    Held::Raw(object, size, byte)
                });
            }
            5 => {
                let request = DmaRequest::new(size as u64).bits(26).align(64);
                let made = self.machine.dma_alloc(request, gfp).ok();
                self.keep(made, |mut buffer, byte| {
                    buffer.fill(byte);
                    Held::Buffer(buffer, byte)
                });
            }
            6 => {
                let Some(which) = self.cache() else { return };
                let made = self.caches[which].as_ref().unwrap().alloc_bytes(gfp).ok();
                self.keep(made, |mut bytes, byte| {
                    bytes.fill(byte);
                    Held::Bytes(bytes, byte)
                });
            }
            _ => {
                let Some(which) = self.cache() else { return };
                let cache = self.caches[which].as_ref().unwrap();
                let (mut objects, size) = ([None; 40], cache.stats().object_size as usize);
                let got = cache.alloc_bulk(gfp, &mut objects).unwrap();
                self.refused += u64::from(got < 40);
                let byte = self.done.to_le_bytes()[0];
                for object in objects.into_iter().flatten() {
                    filled(object, size, byte);
                    self.held.push(Held::Raw(object, size, byte));
                }
            }
        }
    }

    fn give(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let which = self.random.below_index(self.held.len());
        match self.held.swap_remove(which) {
            Held::Bytes(bytes, byte) => assert!(bytes.iter().all(|&found| found == byte)),
            Held::Buffer(buffer, byte) => assert!(buffer.iter().all(|&found| found == byte)),
            Held::Raw(object, size, byte) => {
                holds(object, size, byte);
                match self.random.below(4) {
                    // SAFETY: it is this test's, which forgets it.
                    0 if unsafe { self.machine.kfree_deferred(object) }.is_ok() => {}
                    1 => self.resize((object, size, byte)),
                    // SAFETY: as above.
                    _ => unsafe { self.machine.kfree(object) }.unwrap(),
                }
            }
        }
    }

    fn resize(&mut self, (object, size, byte): (NonNull<u8>, usize, u8)) {
        let (new, gfp) = (self.size(), self.gfp());
        // SAFETY: it is this test's, of that size.
        let moved = unsafe { self.machine.krealloc(object, (size, new), gfp) };
        let Ok(moved) = moved else {
            self.refused += 1;
            self.held.push(Held::Raw(object, size, byte));
            return;
        };
        holds(moved, size.min(new), byte);
        filled(moved, new, byte);
        self.held.push(Held::Raw(moved, new, byte));
    }

    fn rare(&mut self) {
        match self.random.below(4) {
            0 => drop(self.machine.shrink_caches()),
            1 => drop(self.machine.grace().tend()),
            2 => {
                let which = self.random.below_index(self.caches.len());
                if let Some(cache) = self.caches[which].take() {
                    self.caches[which] = cache.destroy().err().map(|refused| refused.cache);
                }
            }
            _ => {
                let request = DmaRequest::new(72).bits(26);
                let Ok(pool) = DmaPool::create(&**self.machine, "short", request) else {
                    self.refused += 1;
                    return;
                };
                drop(pool.alloc(Gfp::NOWAIT));
                pool.destroy().unwrap();
            }
        }
    }
}

/// Waits until nothing is put off: what was is not poisoned before. Objects that are freed may be the last of slabs that
/// are put off in turn.
fn settle<C: SimConfig>(machine: &Machine<C>) {
    while machine.grace().pending() > 0 {
        machine.grace().barrier().unwrap();
    }
}

/// Operations are in tens of thousands.
fn mixed<C: SimConfig>(blocks: u64, live: usize) {
    let seed = seed("objects_faults");
    let rule = FailPageAlloc::per_cent(1, seed);
    let builder = Machine::<C>::new().ram(0, 96 * MIB);
    let machine = builder
        .options(|options| options.fail_page_alloc = Some(rule))
        .boot();
    let mut play = Play {
        machine: &machine,
        random: Random::new(seed),
        caches: (0..6).map(|_| None).collect(),
        held: Vec::new(),
        refused: 0,
        done: 0,
    };
    for _ in 0..blocks {
        for _ in 0..10_000 {
            play.done += 1;
            match play.random.below(200) {
                0 => play.rare(),
                _ if play.held.len() > live || play.random.below(2) == 0 => play.give(),
                _ => play.take(),
            }
        }
        settle(&machine);
        machine.check();
        machine.validate_caches().unwrap();
    }
    // A slab that is not to be had may be had smaller: few operations are refused.
    let refused = play.refused;
    assert!(machine.injected_failures() > 0, "{refused} refused");
    while !play.held.is_empty() {
        play.give();
    }
    settle(&machine);
    for cache in play.caches.drain(..).flatten() {
        cache.destroy().unwrap();
    }
    drop(play);
    machine.shrink_caches();
    // Slabs that readers might have seen.
    settle(&machine);
    machine.for_each_cache(|name, stats| assert_eq!(stats.slabs, 0, "{name}"));
    assert_eq!(machine.hardware().take_reports(), []);
    machine.check();
    machine.abandon();
}

/// Ten million operations: `MM_CASES=1000`.
#[test]
fn one_request_for_pages_in_a_hundred_fails_and_nothing_is_lost() {
    mixed::<Listed<Usual>>(cases(8), 3_000);
    mixed::<Listed<Checked>>(1, 500);
}
