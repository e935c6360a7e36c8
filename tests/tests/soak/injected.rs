//! R30: interrupts and NMIs at every point of everything that the library does. Both take pages and give them back, interrupts
//! objects too.
//!
//! The points are the library's calls of its platform, and steps of page allocations that are told; a place is the instruction that
//! does that, a way there is the three calls above it, too.
//! That all is well between any two instructions of the shortest ways is shown in the kernel, by the tests of `single_step`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr::NonNull;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::platform::Platform;
use mm::slab::SlabFlags;
use mm::system::{AllocError, KmemCache};
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Listed, Machine, Place, Plain, SimConfig, Usual, Vmemmap};

use super::player::{Home, MIB, Player, World};

/// What a player holds at most.
const LIVE: usize = 120;
/// What a handler holds at most.
const HELD: usize = 40;
const OBJECT: usize = 104;

/// An object, how large it is, whether it is of the handler's cache, and the byte that it is full of.
type Object = (NonNull<u8>, usize, bool, u8);

/// What interrupts come to.
#[derive(Default)]
struct Counts {
    nmis: Cell<u64>,
    interrupts: Cell<u64>,
    served: Cell<u64>,
    blocked: Cell<u64>,
    objects: Cell<u64>,
    out_of_memory: Cell<u64>,
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// Where the library was interrupted: at so many instructions, and that many of them as often as they should.
struct Found {
    instructions: usize,
    often: usize,
    /// The same of ways there.
    ways: usize,
    ways_often: usize,
}

struct Handler<'m, C: SimConfig> {
    world: &'m World<C>,
    cache: KmemCache<Home<'m, C>>,
    pages: RefCell<Vec<(Pfn, Order)>>,
    objects: RefCell<Vec<Object>>,
    random: RefCell<Random>,
    /// How often something came, by place.
    places: RefCell<BTreeMap<Place, u64>>,
    counts: Counts,
    /// How often it comes to each place, before it is rare there.
    wanted: u64,
}

impl<C: SimConfig> Handler<'_, C> {
    fn come(&self, place: Place) {
        let mut random = self.random.borrow_mut();
        let mut places = self.places.borrow_mut();
        let times = places.entry(place).or_default();
        if *times >= self.wanted && random.below(32) != 0 {
            return;
        }
        *times += 1;
        let hardware = self.world.machine.hardware();
        if !hardware.irqs_are_on() || random.below(2) == 0 {
            add(&self.counts.nmis);
            return hardware.in_atomic(|| self.nmi(&mut random));
        }
        add(&self.counts.interrupts);
        let masked = hardware.irq_save();
        hardware.in_atomic(|| self.interrupt(&mut random));
        hardware.irq_restore(masked);
    }

    /// Any lock may be held, by who is interrupted.
    fn nmi(&self, random: &mut Random) {
        let machine = &self.world.machine;
        let mut held = self.pages.borrow_mut();
        if held.len() > HELD || (!held.is_empty() && random.below(2) == 0) {
            let place = random.below_index(held.len());
            let (pfn, order) = held.swap_remove(place);
            // SAFETY: allocated by this handler, and not given back yet.
            return unsafe { machine.free_pages_nolock(pfn, order) }.unwrap();
        }
        let order = Order::new([0, 0, 0, 1, 3, 5][random.below_index(6)]).unwrap();
        match machine.alloc_pages_nolock(Gfp::KERNEL, order) {
            Ok(pfn) => {
                assert!(held.iter().all(|&(other, _)| other != pfn), "{pfn} twice");
                add(&self.counts.served);
                held.push((pfn, order));
            }
            Err(AllocError::WouldBlock) => add(&self.counts.blocked),
            Err(AllocError::OutOfMemory) => add(&self.counts.out_of_memory),
            Err(error) => panic!("{error}"),
        }
    }

    /// No lock is held that is taken here.
    fn interrupt(&self, random: &mut Random) {
        let mut held = self.objects.borrow_mut();
        if held.len() > HELD || (!held.is_empty() && random.below(2) == 0) {
            let place = random.below_index(held.len());
            let object = held.swap_remove(place);
            return self.give(object, random.below(8) == 0);
        }
        let gfp = Gfp::ATOMIC | Gfp::NOWARN;
        let is_ours = random.below(2) == 0;
        let (size, made) = match is_ours {
            true => (OBJECT, self.cache.alloc(gfp)),
            false => {
                let size = [16, 64, 200, 1000, 5000, 9000][random.below_index(6)];
                (size, self.world.machine.kmalloc(size, gfp))
            }
        };
        match made {
            Ok(object) => {
                let byte = random.below(256) as u8;
                // SAFETY: allocated just now, that large.
                unsafe { object.write_bytes(byte, size) };
                add(&self.counts.objects);
                held.push((object, size, is_ours, byte));
            }
            Err(AllocError::OutOfMemory) => add(&self.counts.out_of_memory),
            Err(error) => panic!("{error}"),
        }
    }

    fn give(&self, (object, size, is_ours, byte): Object, is_late: bool) {
        // SAFETY: the handler's, that large, and filled.
        let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
        assert!(bytes.iter().all(|&found| found == byte));
        let machine = &self.world.machine;
        // SAFETY: the handler forgets it; also below.
        if is_late && unsafe { machine.kfree_deferred(object) }.is_ok() {
            return;
        }
        match is_ours {
            // SAFETY: as above.
            true => unsafe { self.cache.free(object) }.unwrap(),
            // SAFETY: as above.
            false => unsafe { machine.kfree(object) }.unwrap(),
        }
    }

    fn found(&self) -> Found {
        let places = self.places.borrow();
        let mut instructions = BTreeMap::<_, u64>::new();
        for (place, times) in &*places {
            *instructions.entry(place.at).or_default() += times;
        }
        let often = |times: &&u64| **times >= self.wanted;
        Found {
            instructions: instructions.len(),
            often: instructions.values().filter(often).count(),
            ways: places.len(),
            ways_often: places.values().filter(often).count(),
        }
    }

    /// Nothing is held any more.
    fn end(self) {
        for (pfn, order) in self.pages.take() {
            // SAFETY: allocated by the handler.
            unsafe { self.world.machine.free_pages(pfn, order) }.unwrap();
        }
        for object in self.objects.take() {
            self.give(object, false);
        }
        // Objects that were put off.
        self.world.machine.grace().barrier().unwrap();
        self.cache.destroy().unwrap();
    }
}

/// Goes on until it came to `least` instructions as often as it should.
fn injected<C: SimConfig>(name: &str, least: usize, wanted: u64) {
    // One zone: there is no other one to go to where it is locked.
    let builder = Machine::<C>::new().ram(16 * MIB, 40 * MIB).cpus(2);
    let world = World::new(builder, 1);
    let seed = seed("injected");
    let flags = SlabFlags::NO_MERGE;
    let handler = Handler {
        world: &world,
        cache: KmemCache::create(&*world.machine, "handlers", (OBJECT, 8), flags).unwrap(),
        pages: RefCell::default(),
        objects: RefCell::default(),
        random: RefCell::new(Random::new(!seed)),
        places: RefCell::default(),
        counts: Counts::default(),
        wanted,
    };
    let mut rounds = 0_u64;
    while rounds < 2 || (handler.found().often < least && rounds < 20 + wanted) {
        rounds += 1;
        let mut player = Player::new(&world, 0, seed ^ rounds);
        let play = || {
            (0..2_000).for_each(|_| player.step(LIVE));
            player.end();
        };
        let hardware = world.machine.hardware();
        hardware.with_nmis_by_place(|place| handler.come(place), play);
        // The next safe point: what handlers gave back where nobody could take it is free.
        world.machine.grace().barrier().unwrap();
        assert_eq!(world.machine.grace().pending(), 0);
        world.look();
    }
    let Found {
        instructions,
        often,
        ways,
        ways_often,
    } = handler.found();
    let counts = &handler.counts;
    println!(
        "{name}, {rounds} rounds: interrupted at {instructions} places, {often} of them at least {wanted} times, on {ways} \
         ways, {ways_often} of them as often; {} NMIs: {} served, {} would have blocked; {} interrupts: {} objects; {} times no memory",
        counts.nmis.get(),
        counts.served.get(),
        counts.blocked.get(),
        counts.interrupts.get(),
        counts.objects.get(),
        counts.out_of_memory.get(),
    );
    assert!(often >= least, "of {instructions}");
    assert!(counts.served.get() > 100 && counts.blocked.get() > 10);
    assert!(counts.objects.get() > 100);
    handler.end();
    world.finish();
}

/// A thousand at each place: `MM_CASES=1000`.
#[test]
fn whatever_is_interrupted_anywhere_goes_on_and_is_all_there() {
    let wanted = cases(100);
    injected::<Listed<Usual>>("hardened, lists", 200, wanted);
    injected::<Listed<(Plain, Vmemmap)>>("plain, lists", 200, wanted);
    injected::<Listed<Checked>>("debug, lists", 200, wanted);
    injected::<Usual>("hardened, no lists", 200, wanted);
}
