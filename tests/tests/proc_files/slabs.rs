//! Caches, slabs and objects for people: `slabtop`, `slabinfo NAME`, `page PFN`, `explain kmalloc`.

use std::ptr::NonNull;

use expect_test::expect;
use mm::addr::VirtAddr;
use mm::buddy::{Gfp, Step};
use mm::platform::{NodeId, Platform};
use mm::proc::{self, Recording};
use mm::slab::SlabFlags;
use mm::system::KmemCache;
use mm_tests::sim::{Machine, Usual};

use super::text;

const MIB: u64 = 1 << 20;

fn machine() -> Machine<Usual> {
    Machine::<Usual>::with_ram(32 * MIB)
}

fn objects(machine: &Machine<Usual>, size: usize, count: usize) -> Vec<NonNull<u8>> {
    let one = |_| machine.kmalloc(size, Gfp::KERNEL).unwrap();
    (0..count).map(one).collect()
}

fn free(machine: &Machine<Usual>, objects: Vec<NonNull<u8>>) {
    for object in objects {
        // SAFETY: allocated by the test, which forgets it.
        unsafe { machine.kfree(object) }.unwrap();
    }
}

#[test]
fn slabtop_shows_the_largest_caches_first() {
    let machine = machine();
    let small = objects(&machine, 64, 200);
    let large = objects(&machine, 4096, 20);
    // The heading keeps `expect!` from taking the indent for its own.
    expect![[r#"
        shown:
         Active / Total Objects (% used)    : 220 / 280 (78.5%)
         Active / Total Slabs (% used)      : 7 / 7 (100.0%)
         Active / Total Caches (% used)     : 2 / 52 (3.8%)
         Active / Total Size (% used)       : 92.50K / 112.00K (82.5%)
         Minimum / Average / Maximum Object : 0.00K / 0.39K / 8.00K

          OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME
            24     20  83%    4.00K      3        8        96K kmalloc-4k
           256    200  78%    0.06K      4       64        16K kmalloc-64
    "#]]
    .assert_eq(&format!(
        "shown:\n{}",
        text(|out| proc::slabtop(&machine, out))
    ));
    free(&machine, small);
    free(&machine, large);
    machine.finish();
}

#[test]
fn a_cache_is_shown_with_its_nodes_cpus_and_aliases() {
    let builder = Machine::<Usual>::new()
        .node(0, 0, 16 * MIB)
        .node(1, 16 * MIB, 16 * MIB);
    let mut machine = builder.cpus_on(&[0, 1]).boot();
    let first = KmemCache::create(&*machine, "first", (600, 8), SlabFlags::NO_MERGE);
    first.unwrap().destroy().unwrap();
    machine.rebase();
    let flags = SlabFlags::HWCACHE_ALIGN | SlabFlags::RECLAIM_ACCOUNT;
    let create = || KmemCache::create(&*machine, "inodes", (600, 8), flags).unwrap();
    let (cache, alias) = (create(), create());
    let held: Vec<_> = (0..30).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
    let node_1 = cache.alloc_node(Gfp::KERNEL, NodeId(1)).unwrap();
    let shown = || {
        text(|out| {
            assert!(proc::cache(&machine, "inodes", out)?);
            assert!(!proc::cache(&machine, "inode", out)?);
            Ok(())
        })
    };
    expect![[r#"
        inodes
          object     600 bytes, one every 640
          slab       51 objects, order 3
          flags      HWCACHE_ALIGN|RECLAIM_ACCOUNT
          aliases    1
          objects    31 in use, of 102 in 2 slabs
          node 0     0 slabs full, 1 partial, 0 empty
          node 1     0 slabs full, 1 partial, 0 empty
          at hand    at most 62 of a CPU: 2 0
    "#]]
    .assert_eq(&shown());
    for object in held.into_iter().chain([node_1]) {
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    }
    alias.destroy().unwrap();
    let _ = cache.shrink();
    assert!(shown().contains("aliases    0\n  objects    0 in use, of 0 in 0 slabs\n"));
    cache.destroy().unwrap();
    assert!(!proc::cache(&machine, "inodes", &mut String::new()).unwrap());
    machine.finish();
}

#[test]
fn a_frame_of_a_slab_shows_which_objects_are_taken() {
    let machine = machine();
    let objects = objects(&machine, 128, 5);
    let address = VirtAddr::from_ptr(objects[0].as_ptr());
    let physical = machine.platform().virt_to_phys(address).unwrap();
    let shown = || text(|out| proc::page(&machine, physical.frame(), out));
    let map = |shown: &str| {
        let (_, map) = shown.split_once("  objects    ").unwrap();
        let (numbers, map) = map.split_once('\n').unwrap();
        let taken = map.matches('#').count();
        (numbers.to_owned(), taken, map.trim().len())
    };
    let one_line = text(|out| proc::object(&machine, objects[0], out));
    assert!(
        one_line.ends_with(", cache kmalloc-128, 128 bytes\n"),
        "{one_line}"
    );
    assert!(one_line.starts_with(&format!("frame {}, offset ", physical.frame())));

    let text = shown();
    assert!(text.contains("  slab       of cache kmalloc-128, objects of 128 bytes\n"));
    let (numbers, taken, all) = map(&text);
    assert_eq!(all, 32);
    assert_eq!(
        numbers,
        format!("{taken} of 32 taken (#), those at hand of CPUs too")
    );
    // What is at hand goes back: what is left is what owners have, each in its place.
    let kept = objects[2];
    let others = objects.iter().copied().filter(|object| *object != kept);
    free(&machine, others.collect());
    let _ = machine.shrink_caches();
    let text = shown();
    assert_eq!(map(&text).1, 1, "{text}");
    let place = (kept.addr().get() - objects[0].addr().get().div_euclid(4096) * 4096) / 128;
    let (_, drawn) = text.rsplit_once("  objects ").unwrap();
    let drawn = drawn.lines().nth(1).unwrap().trim();
    assert_eq!(drawn.find('#'), Some(place));
    free(&machine, vec![kept]);
    let _ = machine.shrink_caches();
    assert!(!shown().contains("slab  "), "it is none any more");
    machine.finish();
}

#[test]
fn an_allocation_of_an_object_explains_itself() {
    let machine = machine();
    let told = |size| {
        let mut steps = Recording::new();
        let object = machine
            .kmalloc_traced(size, Gfp::KERNEL, &mut steps)
            .unwrap();
        let address = VirtAddr::from_ptr(object.as_ptr());
        let at = machine.platform().virt_to_phys(address).unwrap();
        free(&machine, vec![object]);
        let offset = at.offset_from(at.frame().addr()).unwrap();
        (steps.steps().collect::<Vec<_>>(), at.frame(), offset)
    };
    // A slab has to be made, of pages that were found as any others are.
    let (steps, pfn, at) = told(64);
    let home = NodeId(0);
    assert_eq!(steps.first(), Some(&Step::NoSlab { node: home }));
    assert!(matches!(steps[1], Step::Zone { .. }), "{steps:?}");
    let [.., made, refilled, taken] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert!(matches!(made, Step::SlabMade { pfn: slab, objects: 64, .. } if *slab == pfn));
    assert_eq!(*refilled, Step::ObjectsRefilled { objects: 63 });
    let is_it = |offset: u16, its| (its, u64::from(offset)) == (pfn, at);
    assert!(matches!(taken, Step::ObjectAtHand { pfn, offset } if is_it(*offset, *pfn)));
    // It came back to this CPU.
    let (steps, again, offset) = told(64);
    assert!(
        matches!(steps[..], [Step::ObjectAtHand { .. }]),
        "{steps:?}"
    );
    assert_eq!((again, offset), (pfn, at));
    // Large ones are pages.
    let (steps, ..) = told(100_000);
    assert!(
        matches!(steps[0], Step::Zone { .. })
            && !steps
                .iter()
                .any(|step| { matches!(step, Step::SlabMade { .. } | Step::ObjectAtHand { .. }) })
    );
    machine.finish();
}
