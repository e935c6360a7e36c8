//! The sampling guard pool: the 18 cases of Linux's `kfence_test`, each for `kmalloc` and for a cache of its own.

use std::panic::Location;
use std::ptr::NonNull;

use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::platform::Platform;
use mm::report::{AccessKind, Corruption, KfenceError, KfenceReport};
use mm::slab::{BadFree, SlabFlags};
use mm::system::{KmemCache, Memory, Options};
use mm_tests::for_four_configs;
use mm_tests::sim::{Machine, SimConfig, SimPlatform};

const MIB: u64 = 1 << 20;
pub(crate) const PAGE: usize = 4096;
/// An object whose end is that of its page where it lies on the right.
const SIZE: usize = 32;

for_four_configs! {
    accesses_beside_an_object_are_found,
    accesses_after_a_free_are_found,
    bad_frees_are_refused_and_told,
    bytes_around_an_object_are_looked_at,
    many_at_once_come_from_the_pool_and_go_back,
    freed_objects_are_wiped_where_that_is_asked_for,
    the_gap_behind_an_aligned_object_is_looked_at,
    caches_shrink_and_end_around_their_objects,
    objects_of_caches_with_a_constructor_are_constructed,
    accesses_to_the_pool_itself_are_told,
    zeroes_are_there_when_they_are_asked_for,
    readers_see_objects_that_were_freed,
    objects_change_their_size,
}

pub(crate) fn machine<C: SimConfig>(words: &str) -> Machine<C> {
    let line = format!("kfence.sample_interval=1 {words}");
    let given = move |options: &mut Options| {
        *options = options.with_command_line(&line, |word| panic!("{word}"));
    };
    let mut machine = Machine::<C>::new().ram(0, 32 * MIB).options(given).boot();
    // What a cache needs stays for the next one.
    let cache = KmemCache::create(&*machine, "first", (SIZE, 8), SlabFlags::NO_MERGE);
    cache.unwrap().destroy().unwrap();
    machine.rebase();
    machine
}

/// Where objects come from.
enum Door<'m, C: SimConfig> {
    Kmalloc(&'m Machine<C>),
    Cache(KmemCache<&'m Memory<SimPlatform<C>>>),
}

impl<'m, C: SimConfig> Door<'m, C> {
    /// Both, for objects of a size.
    fn both(machine: &'m Machine<C>, size: usize) -> [Self; 2] {
        let cache = KmemCache::create(&**machine, "kfence", (size, 8), SlabFlags::NO_MERGE);
        [Self::Kmalloc(machine), Self::Cache(cache.unwrap())]
    }

    fn alloc(&self, size: usize, gfp: Gfp) -> NonNull<u8> {
        let made = match self {
            Self::Kmalloc(machine) => machine.kmalloc(size, gfp),
            Self::Cache(cache) => cache.alloc(gfp),
        };
        made.unwrap()
    }

    fn free(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        match self {
            // SAFETY: the test's own, or it is refused.
            Self::Kmalloc(machine) => unsafe { machine.kfree(object) },
            // SAFETY: as above.
            Self::Cache(cache) => unsafe { cache.free(object) },
        }
    }

    /// An object at the start of its page, or at its end.
    fn on_side(&self, size: usize, is_left: bool) -> NonNull<u8> {
        for _ in 0..200 {
            let object = self.alloc(size, Gfp::KERNEL);
            if object.addr().get().is_multiple_of(PAGE) == is_left {
                return object;
            }
            self.free(object).unwrap();
        }
        panic!("200 objects on the same side");
    }

    /// Gives the cache up.
    fn end(self) {
        if let Self::Cache(cache) = self {
            cache.destroy().unwrap();
        }
    }
}

/// Does what the CPU and the kernel do when a byte is touched.
pub(crate) fn touch<C: SimConfig>(machine: &Machine<C>, at: NonNull<u8>, kind: AccessKind) {
    let address = VirtAddr::from_ptr(at.as_ptr());
    let physical = machine.hardware().virt_to_phys(address).unwrap();
    if machine.hardware().ram().is_protected(physical) {
        assert!(machine.kfence_page_fault(address, kind), "nobody's fault");
    }
    assert!(!machine.hardware().ram().is_protected(physical));
    match kind {
        // SAFETY: RAM of the machine that can be touched by now.
        AccessKind::Read => drop(unsafe { at.read_volatile() }),
        // SAFETY: as above; nobody's, which is the fault under test.
        AccessKind::Write => unsafe { at.write_volatile(b'x') },
    }
}

fn byte(object: NonNull<u8>, at: isize) -> NonNull<u8> {
    // SAFETY: within the pool, or beside the object.
    unsafe { object.offset(at) }
}

pub(crate) fn reports<C: SimConfig>(machine: &Machine<C>) -> Vec<KfenceReport> {
    let reports = machine.hardware().take_reports().into_iter();
    let of_pool = |report| match report {
        Corruption::Kfence(report) => report,
        other => panic!("{other}"),
    };
    reports.map(of_pool).collect()
}

/// The only report: what it is about, where the fault is, and whether the object was free.
fn told<C: SimConfig>(machine: &Machine<C>, size: usize) -> (KfenceError, i32, bool) {
    let reports = reports(machine);
    let [
        KfenceReport {
            error,
            object: Some(object),
        },
    ] = reports[..]
    else {
        panic!("not one report: {reports:?}");
    };
    assert_eq!(usize::from(object.size), size);
    assert!(["kfence", "kmalloc-32", "kmalloc-96"].contains(&object.cache.as_str()));
    for origin in [object.allocated, object.freed].into_iter().flatten() {
        let place: &Location<'_> = origin.place;
        assert!(place.file().ends_with("kfence.rs"), "{place}");
    }
    assert!(object.allocated.is_some());
    (error, object.offset, object.freed.is_some())
}

const READ: AccessKind = AccessKind::Read;
const WRITE: AccessKind = AccessKind::Write;

fn accesses_beside_an_object_are_found<C: SimConfig>() {
    let machine = machine::<C>("");
    for door in Door::both(&machine, SIZE) {
        for kind in [READ, WRITE] {
            for (is_left, at) in [(true, -1), (false, SIZE as isize)] {
                let object = door.on_side(SIZE, is_left);
                touch(&machine, byte(object, at), kind);
                let expected = (KfenceError::OutOfBounds(kind), at as i32, false);
                assert_eq!(told(&machine, SIZE), expected);
                // Told once, until the object is freed.
                touch(&machine, byte(object, at), kind);
                assert_eq!(reports(&machine), []);
                door.free(object).unwrap();
                assert_eq!(reports(&machine), []);
            }
        }
        // What was within reach meanwhile is not any more.
        let object = door.on_side(SIZE, false);
        touch(&machine, byte(object, SIZE as isize), READ);
        assert_eq!(reports(&machine).len(), 1);
        door.free(object).unwrap();
        door.end();
    }
    machine.finish();
}

fn accesses_after_a_free_are_found<C: SimConfig>() {
    let machine = machine::<C>("");
    for door in Door::both(&machine, SIZE) {
        for kind in [READ, WRITE] {
            let object = door.alloc(SIZE, Gfp::KERNEL);
            door.free(object).unwrap();
            touch(&machine, byte(object, 5), kind);
            let expected = (KfenceError::UseAfterFree(kind), 5, true);
            assert_eq!(told(&machine, SIZE), expected);
        }
        door.end();
    }
    machine.finish();
}

fn bad_frees_are_refused_and_told<C: SimConfig>() {
    let machine = machine::<C>("");
    for door in Door::both(&machine, SIZE) {
        let object = door.alloc(SIZE, Gfp::KERNEL);
        assert_eq!(door.free(byte(object, 1)), Err(BadFree::NotAnObject));
        assert_eq!(told(&machine, SIZE), (KfenceError::InvalidFree, 1, false));
        // In the page behind.
        let beside = byte(object, PAGE as isize);
        assert_eq!(door.free(beside), Err(BadFree::NotAnObject));
        assert_eq!(reports(&machine).len(), 1);
        door.free(object).unwrap();
        assert_eq!(door.free(object), Err(BadFree::AlreadyFree));
        assert_eq!(told(&machine, SIZE), (KfenceError::InvalidFree, 0, true));
        door.end();
    }
    let [_, door] = Door::both(&machine, SIZE);
    let others = machine.kmalloc(SIZE, Gfp::KERNEL).unwrap();
    assert_eq!(door.free(others), Err(BadFree::OtherCache));
    assert_eq!(reports(&machine), []);
    // SAFETY: allocated above.
    unsafe { machine.kfree(others) }.unwrap();
    door.end();
    machine.finish();
}

fn bytes_around_an_object_are_looked_at<C: SimConfig>() {
    let machine = machine::<C>("");
    for door in Door::both(&machine, SIZE) {
        for (is_left, at) in [
            (true, SIZE as isize),
            (false, -1),
            (true, 4095),
            (false, -3000),
        ] {
            let object = door.on_side(SIZE, is_left);
            touch(&machine, byte(object, at), WRITE);
            assert_eq!(reports(&machine), [], "in the object's own page");
            door.free(object).unwrap();
            let (error, offset, _) = told(&machine, SIZE);
            let KfenceError::Corruption {
                len,
                expected,
                found,
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!((len, found[0], offset), (1, b'x', at as i32));
            assert_eq!(expected & 0xf8, 0xa8);
        }
        door.end();
    }
    machine.finish();
}

fn many_at_once_come_from_the_pool_and_go_back<C: SimConfig>() {
    let machine = machine::<C>("");
    let [kmalloc, door] = Door::both(&machine, SIZE);
    let Door::Cache(cache) = &door else {
        panic!("a cache")
    };
    // More than the pool has.
    let mut objects = [None; 300];
    assert_eq!(cache.alloc_bulk(Gfp::KERNEL, &mut objects), Ok(300));
    let stats = machine.kfence_stats().unwrap();
    assert_eq!(stats.allocated, 255);
    assert!(stats.full > 0);
    // SAFETY: allocated above.
    unsafe { cache.free_bulk(&mut objects) }.unwrap();
    assert_eq!(objects, [None; 300]);
    assert_eq!(machine.kfence_stats().unwrap().allocated, 0);

    let mut objects = [(); 300].map(|()| Some(kmalloc.alloc(SIZE, Gfp::KERNEL)));
    let bad = byte(objects[7].unwrap(), 1);
    let mut one_bad = [objects[0].take(), Some(bad)];
    // SAFETY: the test's own; the second is refused.
    let freed = unsafe { machine.kfree_bulk(&mut one_bad) };
    assert_eq!(freed, Err((1, BadFree::NotAnObject)));
    assert_eq!(reports(&machine).len(), 1);
    // SAFETY: allocated above.
    unsafe { machine.kfree_bulk(&mut objects) }.unwrap();
    assert_eq!(reports(&machine), []);
    door.end();
    machine.finish();
}

fn freed_objects_are_wiped_where_that_is_asked_for<C: SimConfig>() {
    for (words, expected) in [("init_on_free=1", 0), ("init_on_free=0", b'A')] {
        let machine = machine::<C>(words);
        for door in Door::both(&machine, SIZE) {
            let object = door.alloc(SIZE, Gfp::KERNEL);
            // SAFETY: an object of that size.
            unsafe { object.write_bytes(b'A', SIZE) };
            door.free(object).unwrap();
            touch(&machine, object, READ);
            assert_eq!(reports(&machine).len(), 1);
            // SAFETY: within reach since.
            assert_eq!(unsafe { object.read() }, expected);
            door.end();
        }
        machine.finish();
    }
}

/// 73 bytes are of the class of 96, which is aligned to 32: 23 bytes are between its end and that of the page.
fn the_gap_behind_an_aligned_object_is_looked_at<C: SimConfig>() {
    let machine = machine::<C>("");
    let door = Door::Kmalloc(&machine);
    for kind in [READ, WRITE] {
        let object = door.on_side(73, false);
        assert_eq!(object.addr().get() % 32, 0);
        let gap = PAGE - (object.addr().get() + 73) % PAGE;
        assert!(gap < 32, "{gap}");
        touch(&machine, byte(object, 73), kind);
        assert_eq!(reports(&machine), []);
        let behind = (73 + gap) as isize;
        touch(&machine, byte(object, behind), kind);
        let expected = (KfenceError::OutOfBounds(kind), behind as i32, false);
        assert_eq!(told(&machine, 73), expected);
        door.free(object).unwrap();
        let found = reports(&machine);
        assert_eq!(found.len(), usize::from(kind == WRITE), "{found:?}");
    }
    machine.finish();
}

fn caches_shrink_and_end_around_their_objects<C: SimConfig>() {
    let machine = machine::<C>("");
    let [_, door] = Door::both(&machine, SIZE);
    let object = door.on_side(SIZE, false);
    let Door::Cache(cache) = door else {
        panic!("a cache")
    };
    cache.shrink();
    touch(&machine, byte(object, SIZE as isize), READ);
    assert_eq!(reports(&machine).len(), 1);
    let refused = cache.destroy().unwrap_err();
    assert_eq!(refused.objects, 1);
    // SAFETY: allocated above.
    unsafe { refused.cache.free(object) }.unwrap();
    refused.cache.destroy().unwrap();
    // It is told what it was of.
    touch(&machine, object, READ);
    assert_eq!(
        told(&machine, SIZE),
        (KfenceError::UseAfterFree(READ), 0, true)
    );
    machine.finish();
}

fn objects_of_caches_with_a_constructor_are_constructed<C: SimConfig>() {
    let machine = machine::<C>("");
    let flags = SlabFlags::NO_MERGE;
    let ctor = |bytes: &mut [u8]| bytes.fill(b'c');
    let cache = KmemCache::create_with_ctor(&*machine, "kfence", (SIZE, 8), flags, ctor).unwrap();
    for _ in 0..600 {
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        // SAFETY: an object of that size.
        let bytes = unsafe { object.cast::<[u8; SIZE]>().read() };
        assert_eq!(bytes, [b'c'; SIZE]);
        // SAFETY: as above, and it is the test's.
        unsafe { object.write_bytes(b'u', 1) };
        // SAFETY: as above; left as it was found.
        unsafe { object.write_bytes(b'c', 1) };
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    }
    assert_eq!(machine.kfence_stats().unwrap().allocations, 600);
    cache.destroy().unwrap();
    machine.finish();
}

fn accesses_to_the_pool_itself_are_told<C: SimConfig>() {
    let machine = machine::<C>("");
    for door in Door::both(&machine, SIZE) {
        let object = door.alloc(SIZE, Gfp::KERNEL);
        // The first page, and the last, are nobody's neighbours; an object that nobody had is no object.
        let slots = machine.kfence_stats().unwrap().allocations as usize - 1;
        let start = (object.addr().get() & !(PAGE - 1)) - (2 + 2 * slots) * PAGE;
        for page in [0, 510, 511] {
            let at = (start + page * PAGE) as isize - object.addr().get() as isize;
            touch(&machine, byte(object, at + 16 * slots as isize), READ);
            let found = reports(&machine);
            let expected = KfenceReport {
                error: KfenceError::InvalidAccess(READ),
                object: None,
            };
            // The second time they are within reach for good.
            assert_eq!(found, [expected].repeat(usize::from(slots == 0)));
        }
        door.free(object).unwrap();
        door.end();
    }
    machine.finish();
}

fn zeroes_are_there_when_they_are_asked_for<C: SimConfig>() {
    let machine = machine::<C>("init_on_alloc=0");
    for door in Door::both(&machine, SIZE) {
        // Each slot twice.
        for _ in 0..600 {
            let object = door.alloc(SIZE, Gfp::KERNEL | Gfp::ZERO);
            // SAFETY: an object of that size.
            let bytes = unsafe { object.cast::<[u8; SIZE]>().read() };
            assert_eq!(bytes, [0; SIZE]);
            // SAFETY: as above.
            unsafe { object.write_bytes(b'g', SIZE) };
            door.free(object).unwrap();
        }
        door.end();
    }
    assert_eq!(machine.kfence_stats().unwrap().frees, 1200);
    machine.finish();
}

fn readers_see_objects_that_were_freed<C: SimConfig>() {
    let machine = machine::<C>("");
    let flags = SlabFlags::TYPESAFE_BY_RCU;
    let cache = KmemCache::create(&*machine, "kfence", (SIZE, 8), flags).unwrap();
    let object = cache.alloc(Gfp::KERNEL).unwrap();
    // SAFETY: an object of that size.
    unsafe { object.write_bytes(b'r', SIZE) };
    let reader = machine.grace().pin().unwrap();
    // SAFETY: allocated above.
    unsafe { cache.free(object) }.unwrap();
    touch(&machine, object, READ);
    assert_eq!(reports(&machine), [], "a reader may");
    // SAFETY: readers may.
    assert_eq!(unsafe { object.read() }, b'r');
    // SAFETY: refused: it was freed before.
    let again = unsafe { cache.free(object) };
    assert_eq!(again, Err(BadFree::AlreadyFree));
    assert_eq!(reports(&machine).len(), 1);
    drop(reader);
    machine.grace().barrier().unwrap();
    touch(&machine, object, READ);
    assert_eq!(
        told(&machine, SIZE),
        (KfenceError::UseAfterFree(READ), 0, true)
    );
    cache.destroy().unwrap();
    machine.finish();
}

fn objects_change_their_size<C: SimConfig>() {
    let machine = machine::<C>("");
    let krealloc = |object, sizes| {
        // SAFETY: the test's own, and it goes on with the answer.
        unsafe { machine.krealloc(object, sizes, Gfp::KERNEL) }.unwrap()
    };
    let first = machine.kmalloc(SIZE, Gfp::KERNEL).unwrap();
    assert_eq!(machine.ksize(first), Some(SIZE));
    // SAFETY: an object of that size.
    unsafe { first.write_bytes(b'k', SIZE) };
    assert_eq!(krealloc(first, (SIZE, SIZE - 8)), first, "it fits");
    let second = krealloc(first, (SIZE, 3 * SIZE));
    assert_ne!(second, first);
    assert_eq!(machine.ksize(second), Some(3 * SIZE));
    touch(&machine, first, WRITE);
    assert_eq!(
        told(&machine, SIZE),
        (KfenceError::UseAfterFree(WRITE), 0, true)
    );
    let third = krealloc(second, (3 * SIZE, 3 * PAGE));
    // SAFETY: what was there came along.
    assert_eq!(unsafe { third.cast::<[u8; SIZE]>().read() }, [b'k'; SIZE]);
    assert_eq!(machine.kfence_stats().unwrap().allocated, 0);
    // SAFETY: the test's own.
    unsafe { machine.kfree_sensitive(third) }.unwrap();
    machine.finish();
}
