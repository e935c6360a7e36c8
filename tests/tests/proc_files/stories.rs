//! What reports of faults say of an address, and of a machine that is out of memory.

use std::ptr::NonNull;

use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::proc;
use mm::slab::SlabFlags;
use mm::system::{KmemCache, PageOwner};
use mm_tests::sim::{Machine, Usual};

use super::{order, small, text};

const HERE: &str = "proc_files/stories.rs:";

fn story(machine: &Machine<Usual>, at: NonNull<u8>, offset: isize) -> String {
    // Only the number is used.
    let at = VirtAddr::from_ptr(at.as_ptr().wrapping_offset(offset));
    text(|out| {
        assert!(proc::story(machine, at, out)?);
        Ok(())
    })
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn a_page_is_told_by_its_block() {
    let machine = small();
    let mut block = machine.alloc_block(Gfp::KERNEL, order(3)).unwrap();
    let (pfn, at) = (block.pfn(), NonNull::from(&mut block.bytes_mut()[0]));
    let told = story(&machine, at, 4096 + 7);
    let start = "It is byte 0x7 of a page in use, in a block of order 3 with one owner, frame ";
    let next = pfn.saturating_add(1);
    assert!(
        told.starts_with(&format!("{start}{next} of zone ")),
        "{told}"
    );
    drop(block);
    says(
        &story(&machine, at, 0),
        &["It is byte 0x0 of a free page, in a ", "block of order "],
    );
    // No address of memory at all.
    let nowhere = VirtAddr::new(0x10);
    assert!(!proc::story(&machine, nowhere, &mut String::new()).unwrap());
    machine.finish();
}

#[test]
fn an_object_is_told_with_its_owners() {
    let mut machine = small();
    let flags = SlabFlags::STORE_USER | SlabFlags::RED_ZONE;
    // Places in the source are kept in a table that stays.
    let first = KmemCache::create(&*machine, "first", (40, 8), flags).unwrap();
    first.destroy().unwrap();
    machine.rebase();
    let cache = KmemCache::create(&*machine, "told", (40, 8), flags).unwrap();
    let object = cache.alloc(Gfp::KERNEL).unwrap();
    let told = story(&machine, object, 39);
    says(
        &told,
        &[
            "It is byte 39 of an object of 40 bytes of cache told; allocated last at ",
            HERE,
        ],
    );
    assert!(!told.contains("freed"), "{told}");
    says(
        &story(&machine, object, 41),
        &["It is byte 1 behind the end of an object of 40 bytes"],
    );
    says(
        &story(&machine, object, -3),
        &["It is 3 bytes before an object of 40 bytes"],
    );
    // SAFETY: allocated above.
    unsafe { cache.free(object) }.unwrap();
    let told = story(&machine, object, 0);
    says(
        &told,
        &[
            "It is byte 0 of a freed object of 40 bytes",
            "; freed last at ",
            HERE,
            " on CPU 0.",
        ],
    );
    cache.destroy().unwrap();
    machine.finish();
}

#[test]
fn an_object_of_a_cache_that_checks_nothing_is_told_by_its_slab() {
    let mut machine = small();
    // Room for records of caches stays.
    let first = KmemCache::create(&*machine, "first", (72, 8), SlabFlags::NO_MERGE).unwrap();
    first.destroy().unwrap();
    machine.rebase();
    let cache = KmemCache::create(&*machine, "plain", (72, 8), SlabFlags::NO_MERGE).unwrap();
    let held: Vec<_> = (0..3).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
    says(
        &story(&machine, held[1], 5),
        &["It is byte 5 of an object of 72 bytes of cache plain."],
    );
    // SAFETY: allocated above.
    unsafe { cache.free(held[1]) }.unwrap();
    // What CPUs have at hand goes back to the slab.
    let _ = cache.shrink();
    says(
        &story(&machine, held[1], 5),
        &["It is byte 5 of a freed object of 72 bytes of cache plain."],
    );
    for object in [held[0], held[2]] {
        // SAFETY: allocated above.
        unsafe { cache.free(object) }.unwrap();
    }
    cache.destroy().unwrap();
    machine.finish();
}

#[test]
fn who_has_most_pages_is_told_when_memory_is_short() {
    let builder = Machine::<Usual>::new().ram(0x10_0000, 31 << 20);
    let machine = builder
        .options(|options| options.page_owner = PageOwner::On)
        .boot();
    let few: Vec<_> = (0..20)
        .map(|_| machine.alloc_block(Gfp::KERNEL, order(0)).unwrap())
        .collect();
    // More lines of the source than are watched.
    let others = [
        machine.alloc_block(Gfp::KERNEL, order(0)),
        machine.alloc_block(Gfp::KERNEL, order(1)),
        machine.alloc_block(Gfp::KERNEL, order(2)),
        machine.alloc_block(Gfp::KERNEL, order(0)),
        machine.alloc_block(Gfp::KERNEL, order(1)),
        machine.alloc_block(Gfp::KERNEL, order(2)),
        machine.alloc_block(Gfp::KERNEL, order(0)),
        machine.alloc_block(Gfp::KERNEL, order(1)),
        machine.alloc_block(Gfp::KERNEL, order(2)),
    ];
    let line = line!() + 2;
    let many: Vec<_> = (0..50)
        .map(|_| machine.alloc_block(Gfp::KERNEL, order(2)).unwrap())
        .collect();
    let told = text(|out| proc::shortage(&machine, out));
    let (managed, free) = (machine.managed_frames(), machine.free_frames());
    let start = format!("Of {managed} pages, {free} are free, the largest block of order 10, and ");
    assert!(told.starts_with(&start), "{told}");
    says(
        &told,
        &[
            &format!("{HERE}{line}:"),
            " allocated most of all pages: 200.",
            " Caches have 0. Page tables are 0. ",
        ],
    );
    let live = 20 + 3 * 7 + 200;
    says(&told, &[&format!(" {live} are in use as whole pages; ")]);
    drop((few, others, many));
    machine.finish();
}
