//! Who uses everything that a machine has: pages of all orders, objects, areas, per-CPU memory, page tables.

use std::ptr::NonNull;

use mm::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm::buddy::{Gfp, Step};
use mm::config::PAGE_SIZE;
use mm::pagetable::{Attributes, Change, PageSize, Protection};
use mm::platform::{CpuId, Platform};
use mm::slab::SlabFlags;
use mm::sync::grace::Cookie;
use mm::system::{Block, KBytes, KmemCache, Memory, PageRun};
use mm_tests::seed::Random;
use mm_tests::sim::{Builder, Machine, SimConfig, SimPlatform, SimSpace};

pub(crate) const MIB: u64 = 1 << 20;
const PAGE: usize = PAGE_SIZE as usize;
/// Where areas start.
const AREAS: u64 = 0xffff_c900_0000_0000;
/// Where players map pages themselves: a GiB for each.
const SLOTS: u64 = 0xffff_d000_0000_0000;
/// Caches of each player.
const CACHES: usize = 4;

pub(crate) type Home<'m, C> = &'m Memory<SimPlatform<C>>;

/// A machine with areas, and what it had before anybody played.
pub(crate) struct World<C: SimConfig> {
    pub(crate) machine: Machine<C>,
    pub(crate) space: SimSpace,
}

impl<C: SimConfig> World<C> {
    /// For so many players, and one cache more.
    pub(crate) fn new(builder: Builder<C>, players: usize) -> Self {
        let mut machine = builder.boot();
        let areas = VirtRange::from_size(VirtAddr::new(AREAS), 256 * MIB).unwrap();
        let space = SimSpace::adopt(&machine, areas).unwrap();
        // Records of areas stay: as many as there may be, with those that wait for a purge, and the 8,192 that may lie ready.
        machine.set_vmalloc_lazy_max(256);
        machine.vmalloc_reserve(10_000).unwrap();
        make_room(&machine, players * CACHES + 1);
        machine.shrink_caches();
        assert!(machine.drain_all_pages());
        machine.rebase();
        Self { machine, space }
    }

    /// Nobody holds anything: whatever waits is done, and what is kept for later goes back. Answers the frames that
    /// are free, and those of page tables, which stay where addresses were mapped.
    pub(crate) fn settle(&self) -> u64 {
        let _ = self.machine.vmalloc_purge();
        while self.machine.grace().pending() > 0 {
            self.machine.grace().barrier().unwrap();
        }
        self.machine.shrink_caches();
        while self.machine.grace().pending() > 0 {
            self.machine.grace().barrier().unwrap();
        }
        self.machine.shrink_percpu();
        assert!(self.machine.drain_all_pages());
        self.machine.free_frames() + self.space.count(&self.machine)
    }

    /// All oracles that a machine in use has.
    pub(crate) fn look(&self) {
        self.machine.check();
        self.machine.validate_caches().unwrap();
        self.machine.validate_vmalloc().unwrap();
        self.machine.validate_percpu().unwrap();
        self.machine.grace().validate().unwrap();
        let _ = self.space.count(&self.machine);
    }

    /// Nobody holds anything: everything goes back, and every oracle is asked.
    pub(crate) fn finish(self) {
        self.settle();
        self.look();
        self.machine
            .for_each_cache(|name, stats| assert_eq!(stats.slabs, 0, "{name}"));
        self.space.dismantle(&self.machine);
        self.machine.finish();
    }
}

/// Makes so many caches at once: what is kept of caches for those that come later is there then.
fn make_room<C: SimConfig>(machine: &Machine<C>, caches: usize) {
    let create = |number| {
        let (name, layout) = ("comes and goes", (24 + 8 * number, 8));
        let cache = KmemCache::create(&**machine, name, layout, SlabFlags::NO_MERGE).unwrap();
        drop(cache.alloc_bytes(Gfp::KERNEL).unwrap());
        cache
    };
    let caches: Vec<_> = (0..caches).map(create).collect();
    for cache in caches {
        cache.destroy().unwrap();
    }
}

/// What is held, with the byte that it is filled with.
enum Held<'m, C: SimConfig> {
    Pages(Block<Home<'m, C>>, u8),
    Run(PageRun<Home<'m, C>>, u8),
    Bytes(KBytes<Home<'m, C>>, u8),
    Object(NonNull<u8>, usize, u8),
    Area(NonNull<u8>, usize, u8),
    PerCpu(NonNull<u8>, usize, u8),
    Mapped(Block<Home<'m, C>>, VirtRange, u8),
}

/// One CPU's part.
pub(crate) struct Player<'m, C: SimConfig> {
    world: &'m World<C>,
    random: Random,
    number: u64,
    caches: Vec<Option<KmemCache<Home<'m, C>>>>,
    held: Vec<Held<'m, C>>,
    /// Slots that are mapped.
    slots: u64,
    done: u64,
    /// Requests that were not served.
    pub(crate) refused: u64,
    cookie: Option<Cookie>,
}

pub(crate) fn filled(object: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: that large, and the caller's.
    unsafe { object.write_bytes(byte, size) };
}

pub(crate) fn holds(object: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: as above; it was filled.
    let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
    assert!(bytes.iter().all(|&found| found == byte));
}

impl<'m, C: SimConfig> Player<'m, C> {
    pub(crate) fn new(world: &'m World<C>, number: u64, seed: u64) -> Self {
        Self {
            world,
            random: Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            number,
            caches: (0..CACHES).map(|_| None).collect(),
            held: Vec::new(),
            slots: 0,
            done: 0,
            refused: 0,
            cookie: None,
        }
    }

    fn machine(&self) -> &'m Machine<C> {
        &self.world.machine
    }

    /// Does one of all things; holds `live` at most.
    pub(crate) fn step(&mut self, live: usize) {
        self.done += 1;
        self.machine().serve_tlb();
        match self.random.below(64) {
            0 => self.rare(),
            1 => drop(self.machine().grace().quiescent()),
            _ if self.held.len() > live || self.random.below(2) == 0 => self.give(),
            _ => self.take(),
        }
    }

    /// Gives everything back.
    pub(crate) fn end(mut self) -> u64 {
        while !self.held.is_empty() {
            self.give();
        }
        for cache in self.caches.drain(..).flatten() {
            let mut cache = Some(cache);
            // Objects that are put off are in use until their grace period is over.
            while let Some(Err(left)) = cache.take().map(KmemCache::destroy) {
                self.world.machine.serve_tlb();
                let _ = self.world.machine.grace().quiescent();
                let _ = self.world.machine.grace().tend();
                std::thread::yield_now();
                cache = Some(left.cache);
            }
        }
        self.refused
    }

    fn gfp(&mut self) -> Gfp {
        let base = [
            Gfp::KERNEL,
            Gfp::NOWAIT,
            Gfp::ATOMIC,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
            Gfp::HIGHUSER_MOVABLE,
        ];
        base[self.random.below_index(5)] | Gfp::NOWARN
    }

    fn object_gfp(&mut self) -> Gfp {
        let base = [
            Gfp::KERNEL,
            Gfp::NOWAIT,
            Gfp::ATOMIC,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
        ];
        base[self.random.below_index(4)] | Gfp::NOWARN
    }

    fn size(&mut self) -> usize {
        let largest = 1 << (3 + self.random.below(12));
        1 + self.random.below(largest) as usize
    }

    fn byte(&self) -> u8 {
        self.done.to_le_bytes()[0]
    }

    fn keep<T>(&mut self, made: Option<T>, held: impl FnOnce(T, u8) -> Held<'m, C>) {
        let byte = self.byte();
        match made {
            Some(made) => self.held.push(held(made, byte)),
            None => self.refused += 1,
        }
    }

    fn take(&mut self) {
        match self.random.below(16) {
            0..=3 => self.take_pages(),
            4 => self.take_many_pages(),
            5 => self.take_run(),
            6..=8 => self.take_bytes(),
            9 => self.take_object(),
            10 => self.take_many_objects(),
            11 | 12 => self.take_area(),
            13 => self.take_per_cpu(),
            _ => self.map(),
        }
    }

    fn take_pages(&mut self) {
        let (gfp, order) = (
            self.gfp(),
            [0, 0, 0, 0, 1, 2, 3, 4, 5, 9][self.random.below_index(10)],
        );
        let order = Order::new(order).unwrap();
        let hardware = self.machine().hardware();
        // Tracers are called with locks held and lists in use.
        let mut trace = |_: Step| hardware.nmi_point();
        let made = Block::alloc_traced(&**self.machine(), gfp, order, &mut trace).ok();
        self.keep(made, |mut pages, byte| {
            pages.bytes_mut().fill(byte);
            Held::Pages(pages, byte)
        });
    }

    fn take_many_pages(&mut self) {
        let gfp = self.gfp();
        let mut pages = [None; 24];
        let got = self.machine().alloc_pages_bulk(gfp, &mut pages);
        self.refused += u64::from(got != Ok(24));
        if self.random.below(2) == 0 {
            // SAFETY: taken just now.
            return unsafe { self.machine().free_pages_bulk(&mut pages) }.unwrap();
        }
        for pfn in pages.into_iter().flatten() {
            // SAFETY: as above.
            unsafe { self.machine().free_pages(pfn, Order::ZERO) }.unwrap();
        }
    }

    fn take_run(&mut self) {
        let (gfp, bytes) = (self.gfp(), 1 + self.random.below(60_000));
        let made = self.machine().alloc_pages_exact(gfp, bytes).ok();
        self.keep(made, |mut run, byte| {
            run.bytes_mut().fill(byte);
            Held::Run(run, byte)
        });
    }

    fn take_bytes(&mut self) {
        let (size, gfp) = (self.size(), self.object_gfp());
        if self.random.below(3) == 0 {
            let made = self.machine().kzalloc(size, gfp).ok();
            return self.keep(made, |object, byte| {
                holds(object, size, 0);
                filled(object, size, byte);
                Held::Object(object, size, byte)
            });
        }
        let made = KBytes::alloc(&**self.machine(), size, gfp).ok();
        self.keep(made, |mut bytes, byte| {
            bytes.fill(byte);
            Held::Bytes(bytes, byte)
        });
    }

    /// A cache of several that come and go.
    fn cache(&mut self) -> Option<usize> {
        let which = self.random.below_index(CACHES);
        if self.caches[which].is_none() {
            let layout = (24 + 56 * which, 8);
            let flags = [SlabFlags::NO_MERGE, SlabFlags::TYPESAFE_BY_RCU][which % 2];
            let made = KmemCache::create(&**self.machine(), "soaks", layout, flags);
            self.refused += u64::from(made.is_err());
            self.caches[which] = made.ok();
        }
        self.caches[which].is_some().then_some(which)
    }

    fn take_object(&mut self) {
        let gfp = self.object_gfp();
        let Some(which) = self.cache() else { return };
        let made = self.caches[which].as_ref().unwrap().alloc_bytes(gfp).ok();
        self.keep(made, |mut bytes, byte| {
            bytes.fill(byte);
            Held::Bytes(bytes, byte)
        });
    }

    fn take_many_objects(&mut self) {
        let gfp = self.object_gfp();
        let Some(which) = self.cache() else { return };
        let cache = self.caches[which].as_ref().unwrap();
        let (mut objects, size) = ([None; 40], cache.stats().object_size as usize);
        let got = cache.alloc_bulk(gfp, &mut objects).unwrap_or_default();
        self.refused += u64::from(got < 40);
        let byte = self.byte();
        for object in objects.into_iter().flatten() {
            filled(object, size, byte);
            self.held.push(Held::Object(object, size, byte));
        }
    }

    /// The pages of an area, as the CPU finds them.
    fn each_page(&self, area: NonNull<u8>, pages: usize, mut each: impl FnMut(NonNull<u8>)) {
        let first = VirtAddr::from_ptr(area.as_ptr());
        for page in 0..pages {
            let at = first.checked_add((page * PAGE) as u64).unwrap();
            each(self.world.space.reach(self.machine(), at));
        }
    }

    fn take_area(&mut self) {
        let pages = 1 + self.random.below_index(8);
        let made = self
            .machine()
            .vmalloc(pages * PAGE, Gfp::KERNEL | Gfp::NOWARN);
        let byte = self.byte();
        if let Ok(area) = made {
            self.each_page(area, pages, |page| filled(page, PAGE, byte));
        }
        self.keep(made.ok(), |area, byte| Held::Area(area, pages, byte));
    }

    /// The copies of a per-CPU object.
    fn copies(&self, first: NonNull<u8>) -> impl Iterator<Item = (u8, NonNull<u8>)> {
        let cpus = self.machine().hardware().cpus();
        let machine = self.machine();
        (0..cpus).map(move |cpu| {
            let offset = machine.percpu_offset(CpuId(cpu)).unwrap();
            // SAFETY: a copy of an object that the player has.
            (cpu as u8, unsafe { first.add(offset) })
        })
    }

    fn take_per_cpu(&mut self) {
        let size = [8, 24, 64, 300, 2_000][self.random.below_index(5)];
        let made = self
            .machine()
            .alloc_percpu((size, 8), Gfp::KERNEL | Gfp::NOWARN);
        let byte = self.byte();
        if let Ok(first) = made {
            for (cpu, copy) in self.copies(first) {
                holds(copy, size, 0);
                filled(copy, size, byte.wrapping_add(cpu));
            }
        }
        self.keep(made.ok(), |first, byte| Held::PerCpu(first, size, byte));
    }

    fn map(&mut self) {
        let slot = self.slots.trailing_ones();
        if slot >= 16 {
            return;
        }
        let order = Order::new([0, 2, 3, 9][self.random.below_index(4)]).unwrap();
        let Ok(pages) = Block::alloc(&**self.machine(), Gfp::KERNEL | Gfp::NOWARN, order) else {
            self.refused += 1;
            return;
        };
        let start = SLOTS + (self.number << 30) + (u64::from(slot) << 21);
        let range = VirtRange::from_size(VirtAddr::new(start), order.bytes()).unwrap();
        let frames = PfnRange::block(pages.pfn(), order);
        let largest = [PageSize::Size4K, PageSize::Size2M][self.random.below_index(2)];
        let (tables, row) = (self.world.space.tables(), (range.start(), frames));
        // SAFETY: only the player goes through these addresses.
        let mapped = unsafe {
            self.machine()
                .map_pages(tables, row, Attributes::KERNEL, largest)
        };
        if mapped.is_err() {
            self.refused += 1;
            return;
        }
        let byte = self.byte();
        let at = range.start();
        filled(self.world.space.reach(self.machine(), at), PAGE, byte);
        self.slots |= 1 << slot;
        self.held.push(Held::Mapped(pages, range, byte));
    }

    fn unmap(&mut self, pages: Block<Home<'m, C>>, range: VirtRange, byte: u8) {
        let tables = self.world.space.tables();
        if self.random.below(2) == 0 {
            let change = Change::Forbid(Protection::WRITE);
            // SAFETY: as above.
            let changed = unsafe { self.machine().change_pages(tables, range, change) };
            match changed {
                Ok(receipt) => receipt.complete(),
                Err(_) => self.refused += 1,
            }
        }
        let at = range.start();
        holds(self.world.space.reach(self.machine(), at), PAGE, byte);
        // SAFETY: as above.
        let gone = unsafe { self.machine().unmap_pages(tables, range, |_, _| ()) };
        gone.unwrap().complete();
        let slot = (range.start().as_u64() - SLOTS - (self.number << 30)) >> 21;
        self.slots &= !(1 << slot);
        // Whoever goes by what it remembers now ends the test.
        drop(pages);
    }

    fn give(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let which = self.random.below_index(self.held.len());
        match self.held.swap_remove(which) {
            Held::Pages(pages, byte) => self.give_pages(pages, byte),
            Held::Run(run, byte) => assert!(run.bytes().iter().all(|&found| found == byte)),
            Held::Bytes(bytes, byte) => assert!(bytes.iter().all(|&found| found == byte)),
            Held::Object(object, size, byte) => self.give_object(object, size, byte),
            Held::Area(area, pages, byte) => {
                self.each_page(area, pages, |page| holds(page, PAGE, byte));
                // SAFETY: it is the player's, who forgets it.
                unsafe { self.machine().vfree(area) }.unwrap();
            }
            Held::PerCpu(first, size, byte) => {
                for (cpu, copy) in self.copies(first) {
                    holds(copy, size, byte.wrapping_add(cpu));
                }
                // SAFETY: as above.
                unsafe { self.machine().free_percpu(first, size) }.unwrap();
            }
            Held::Mapped(pages, range, byte) => self.unmap(pages, range, byte),
        }
    }

    fn give_pages(&mut self, pages: Block<Home<'m, C>>, byte: u8) {
        assert!(pages.bytes().iter().all(|&found| found == byte));
        if self.random.below(4) == 0 {
            return drop(pages.share());
        }
        let hardware = self.machine().hardware();
        let mut trace = |_: Step| hardware.nmi_point();
        let order = pages.order();
        let pfn = pages.into_raw();
        // SAFETY: given up for its number just now.
        unsafe { self.machine().free_pages_traced(pfn, order, &mut trace) }.unwrap();
    }

    fn give_object(&mut self, object: NonNull<u8>, size: usize, byte: u8) {
        holds(object, size, byte);
        match self.random.below(4) {
            // SAFETY: it is the player's, who forgets it.
            0 if unsafe { self.machine().kfree_deferred(object) }.is_ok() => {}
            1 => self.resize(object, size, byte),
            // SAFETY: as above.
            _ => unsafe { self.machine().kfree(object) }.unwrap(),
        }
    }

    fn resize(&mut self, object: NonNull<u8>, size: usize, byte: u8) {
        let (new, gfp) = (self.size(), self.object_gfp());
        // SAFETY: it is the player's, of that size.
        let moved = unsafe { self.machine().krealloc(object, (size, new), gfp) };
        let Ok(moved) = moved else {
            self.refused += 1;
            self.held.push(Held::Object(object, size, byte));
            return;
        };
        holds(moved, size.min(new), byte);
        filled(moved, new, byte);
        self.held.push(Held::Object(moved, new, byte));
    }

    fn rare(&mut self) {
        match self.random.below(8) {
            0 => drop(self.machine().shrink_caches()),
            1 => drop(self.machine().shrink_percpu()),
            2 => drop(self.machine().vmalloc_purge()),
            3 => self.machine().drain_local_pages(),
            4 => drop(self.machine().grace().tend()),
            5 => {
                let grace = self.machine().grace();
                let before = self.cookie.replace(grace.start());
                let _ = before.map(|cookie| grace.poll(cookie));
            }
            6 => self.take_contiguous(),
            _ => {
                let which = self.random.below_index(CACHES);
                if let Some(cache) = self.caches[which].take() {
                    self.caches[which] = cache.destroy().err().map(|refused| refused.cache);
                }
            }
        }
    }

    /// A range by its number, if nobody has anything of it.
    fn take_contiguous(&mut self) {
        let Ok(block) = Block::alloc(
            &**self.machine(),
            Gfp::NOWAIT | Gfp::NOWARN,
            Order::PAGEBLOCK,
        ) else {
            self.refused += 1;
            return;
        };
        let frames = PfnRange::block(block.pfn(), Order::PAGEBLOCK);
        drop(block);
        let taken = self
            .machine()
            .alloc_contig_range(frames, Gfp::KERNEL | Gfp::NOWARN);
        self.refused += u64::from(taken.is_err());
    }
}
