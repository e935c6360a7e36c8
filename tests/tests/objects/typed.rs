//! Caches of values.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mm::buddy::Gfp;
use mm::slab::{CacheError, ShapeError, SlabFlags};
use mm::system::{AllocError, CacheBox, Home, Memory, NoRoom, TypedCache};
use mm_tests::sim::{Listed, Machine, SimPlatform, Usual};

const MIB: u64 = 1 << 20;

type P = SimPlatform<Listed<Usual>>;

/// Counts those that are alive.
struct Counted<'a>(&'a AtomicU64, [u64; 9]);

impl<'a> Counted<'a> {
    fn new(alive: &'a AtomicU64, value: u64) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(alive, [value; 9])
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn machine() -> Machine<Listed<Usual>> {
    let mut machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let first = TypedCache::<u64, _>::create(&*machine, "first", SlabFlags::NO_MERGE);
    first.unwrap().destroy().unwrap();
    machine.drain_all_pages();
    machine.rebase();
    machine
}

#[test]
fn values_are_dropped_once_and_their_objects_freed() {
    let machine = machine();
    let alive = AtomicU64::new(0);
    let cache = TypedCache::create(&*machine, "counted", SlabFlags::empty()).unwrap();
    let mut boxes: Vec<CacheBox<Counted<'_>, _>> = (0..100)
        .map(|value| {
            cache
                .try_new(Counted::new(&alive, value), Gfp::KERNEL)
                .unwrap()
        })
        .collect();
    assert_eq!(
        (alive.load(Ordering::Relaxed), cache.stats().active_objects),
        (100, 100)
    );
    for (value, boxed) in (0..).zip(&mut boxes) {
        assert_eq!(boxed.1, [value; 9]);
        boxed.1[0] = 7;
    }
    drop(boxes.pop());
    let last = boxes.pop().unwrap().into_inner();
    assert_eq!(
        (alive.load(Ordering::Relaxed), cache.stats().active_objects),
        (99, 98)
    );
    assert_eq!(last.1[..2], [7, 98]);
    drop(last);
    let raw = boxes.pop().unwrap().into_raw();
    assert_eq!(alive.load(Ordering::Relaxed), 98);
    // SAFETY: given up just now.
    drop(unsafe { CacheBox::from_raw(&*machine, raw) });
    let (objects, cache) = cache.destroy().unwrap_err();
    assert_eq!(objects, 97);
    drop(boxes);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    cache.destroy().unwrap();
    machine.finish();
}

#[test]
fn values_outlive_the_handle_and_go_to_other_threads() {
    let machine = Machine::<Listed<Usual>>::new()
        .ram(0, 32 * MIB)
        .cpus(2)
        .boot();
    let boxed = {
        let cache = TypedCache::create(&*machine, "lasting", SlabFlags::empty()).unwrap();
        let made = cache.try_new_with(Gfp::KERNEL, || String::from("kept"));
        made.unwrap()
    };
    thread::scope(|scope| {
        let machine = &machine;
        scope.spawn(move || {
            let _here = machine.cpu(1);
            assert_eq!(*boxed, "kept");
            assert_eq!(format!("{boxed:?}"), "\"kept\"");
            drop(boxed);
        });
    });
    machine.check();
    machine.abandon();
}

#[test]
fn a_value_without_an_object_comes_back() {
    let machine = Machine::<Listed<Usual>>::with_ram(16 * MIB);
    let alive = AtomicU64::new(0);
    let cache = TypedCache::create(&*machine, "counted", SlabFlags::empty()).unwrap();
    let mut boxes = Vec::new();
    let NoRoom { error, value } = loop {
        match cache.try_new(Counted::new(&alive, 1), Gfp::NOWAIT) {
            Ok(boxed) => boxes.push(boxed),
            Err(back) => break back,
        }
    };
    assert_eq!((error, value.1), (AllocError::OutOfMemory, [1; 9]));
    let made = cache.try_new_with(Gfp::NOWAIT, || unreachable!("there is no object"));
    assert_eq!(made.map(drop), Err(AllocError::OutOfMemory));
    drop((boxes, value));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    cache.destroy().unwrap();
    machine.check();
    machine.abandon();
}

#[test]
fn types_without_size_have_no_cache_and_large_alignments_are_kept() {
    let machine = machine();
    let created = TypedCache::<(), _>::create(&*machine, "empty", SlabFlags::empty());
    assert_eq!(created.err(), Some(CacheError::Shape(ShapeError::Empty)));

    #[repr(align(1024))]
    struct Aligned(u8);
    let cache = TypedCache::create(&*machine, "aligned", SlabFlags::empty()).unwrap();
    let boxes: Vec<_> = (0..40_u8)
        .map(|value| {
            cache
                .try_new(Aligned(value), Gfp::KERNEL | Gfp::ZERO)
                .unwrap()
        })
        .collect();
    for (value, boxed) in (0..).zip(&boxes) {
        assert_eq!(boxed.0, value);
        assert_eq!(std::ptr::from_ref(&**boxed).addr() % 1024, 0);
    }
    drop(boxes);
    cache.destroy().unwrap();
    machine.finish();
}

static HERE: OnceLock<&'static Memory<P>> = OnceLock::new();

/// The machine of [`HERE`].
#[derive(Clone, Copy)]
struct Here;

// SAFETY: a cell that is set once answers the same every time.
unsafe impl Home for Here {
    type P = P;

    fn memory(&self) -> &Memory<P> {
        HERE.get().unwrap()
    }
}

#[test]
fn with_a_static_home_a_handle_is_a_pointer() {
    assert_eq!(size_of::<CacheBox<[u64; 20], Here>>(), size_of::<usize>());
    assert_eq!(
        size_of::<Option<CacheBox<[u64; 20], Here>>>(),
        size_of::<usize>()
    );
    let machine: &'static Machine<_> = Box::leak(Box::new(machine()));
    assert!(HERE.set(machine).is_ok());
    let cache = TypedCache::create(Here, "static", SlabFlags::empty()).unwrap();
    let boxed = cache.try_new([3_u64; 20], Gfp::KERNEL).unwrap();
    assert_eq!(*boxed, [3; 20]);
    drop(boxed);
    cache.destroy().unwrap();
    machine.check();
}
