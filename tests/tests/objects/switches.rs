//! `slub_debug=`: which caches are debugged, and what is told of damage.

use std::ptr::NonNull;

use mm::buddy::Gfp;
use mm::platform::Profile;
use mm::report::Corruption;
use mm::slab::SlabFlags;
use mm::system::{KmemCache, Options};
use mm_tests::sim::{Checked, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

fn machine<C: SimConfig>(words: &str) -> Machine<C> {
    let line = words.to_owned();
    let given = move |options: &mut Options| {
        let refuse = |word: &str| panic!("{word}");
        *options = options.with_command_line(&line, refuse);
    };
    Machine::<C>::new().ram(0, 32 * MIB).options(given).boot()
}

/// Bytes from one object to the next, by the names of caches.
fn stride<C: SimConfig>(machine: &Machine<C>, wanted: &str) -> u64 {
    let mut found = 0;
    machine.for_each_cache(|name, stats| {
        if name == wanted {
            found = stats.stride;
        }
    });
    found
}

fn overflow<C: SimConfig>(machine: &Machine<C>, size: usize) -> Vec<Corruption> {
    let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
    // SAFETY: RAM of the machine; the fault under test.
    unsafe { object.add(size).write(0x41) };
    // SAFETY: allocated above.
    unsafe { machine.kfree(object) }.unwrap();
    machine.hardware().take_reports()
}

#[test]
fn names_choose_caches() {
    let machine = machine::<Usual>("slub_debug=Z,kmalloc-6*,kmalloc-1k");
    assert_eq!(stride(&machine, "kmalloc-96"), 96);
    assert!(stride(&machine, "kmalloc-64") > 64 && stride(&machine, "kmalloc-1k") > 1024);
    assert_eq!(overflow(&machine, 64).len(), 1);
    assert_eq!(overflow(&machine, 1000).len(), 1);
    machine.check();
    machine.finish();
}

#[test]
fn the_debug_profile_debugs_all_caches_unless_it_is_told_not_to() {
    let machine_of = |words| machine::<Checked>(words);
    for (words, debugs) in [
        ("", true),
        ("slub_debug=-", false),
        ("slub_debug=P,x", true),
    ] {
        let machine = machine_of(words);
        assert_eq!(stride(&machine, "kmalloc-64") > 64, debugs, "{words}");
        machine.finish();
    }
    for profile in [Profile::Plain, Profile::Hardened] {
        let flags = Options::for_profile(profile).slub_debug.flags("any");
        assert_eq!(flags, SlabFlags::empty());
    }
}

#[test]
fn caches_whose_slabs_get_larger_are_spared_by_a_letter() {
    for (words, is_spared) in [("slub_debug=OZ", true), ("slub_debug=Z", false)] {
        let mut machine = machine::<Usual>(words);
        // One fills a slab of order 3 all but eight bytes.
        let cache = KmemCache::create(&*machine, "large", (32_760, 8), SlabFlags::empty()).unwrap();
        assert_eq!(cache.stats().stride == 32_760, is_spared);
        assert!(stride(&machine, "kmalloc-64") > 64);
        cache.destroy().unwrap();
        machine.shrink_caches();
        machine.drain_all_pages();
        machine.rebase();
        machine.finish();
    }
}

#[test]
fn names_choose_caches_that_are_made_later() {
    let mut machine = machine::<Usual>("slub_debug=FZPU,buffer*");
    let create = |name| KmemCache::create(&*machine, name, (64, 8), SlabFlags::empty()).unwrap();
    let (debugged, other) = (create("buffer_head"), create("inode"));
    assert!(debugged.stats().stride > 64 && other.stats().stride == 64);
    let again = create("buffer_head");
    let object = again.alloc(Gfp::KERNEL).unwrap();
    assert_eq!(debugged.stats().slabs, 0, "they are not shared");
    // SAFETY: allocated above.
    unsafe { again.free(object) }.unwrap();
    for cache in [debugged, other, again] {
        cache.destroy().unwrap();
    }
    machine.shrink_caches();
    machine.drain_all_pages();
    machine.rebase();
    machine.finish();
}

/// R67: a report says where in the object, and not where in memory; that only if it is asked for.
#[test]
fn reports_tell_no_addresses() {
    let machine = machine::<Usual>("slub_debug");
    let object = machine.kmalloc(18, Gfp::KERNEL).unwrap();
    let address = object.addr().get();
    // SAFETY: RAM of the machine; the faults under test.
    let write = |at: isize| unsafe { object.offset(at).write(0x41) };
    let mut texts = Vec::new();
    let mut tell = || {
        assert!(machine.validate_caches().is_err());
        let reports = machine.hardware().take_reports();
        texts.extend(
            reports
                .iter()
                .map(|report| (report.to_string(), format!("{report:#}"))),
        );
    };
    write(18);
    tell();
    write(-1);
    tell();
    // The word that says that the object is in use, behind the red zone and the list's word.
    (0..8).for_each(|at| write(32 + 16 + 8 + at));
    tell();
    // SAFETY: allocated above.
    unsafe { machine.kfree(object) }.unwrap();
    write(3);
    tell();
    (0..8).for_each(|at| write(32 + 16 + at));
    tell();
    assert_eq!(texts.len(), 5);
    let physical = |at: usize| {
        let address = mm::addr::VirtAddr::from_ptr(NonNull::new(at as *mut u8).unwrap().as_ptr());
        mm::platform::Platform::virt_to_phys(machine.hardware(), address).unwrap()
    };
    let pfn = physical(address).frame();
    let mut owners = String::new();
    machine.for_each_object_owner(|name, owner| owners += &format!("{name} {owner:?}\n"));
    let mut files = String::new();
    mm::proc::slabinfo(&machine, &mut files).unwrap();
    for text in texts.iter().map(|(text, _)| text).chain([&owners, &files]) {
        for word in text.split(|letter: char| !letter.is_ascii_hexdigit()) {
            let number = u64::from_str_radix(word, 16).unwrap_or(0);
            assert!(number < 1 << 32, "an address: {text}");
        }
        assert!(!text.contains(&format!("frame {pfn}")), "{text}");
    }
    for (text, long) in &texts {
        assert!(long.contains("of the slab at frame"), "{long}");
        assert!(text.starts_with("kmalloc-32: object "), "{text}");
        assert!(
            text.contains("allocated at") && text.contains("switches.rs"),
            "{text}"
        );
    }
    assert!(
        texts[0]
            .0
            .contains("1 bytes written from byte 18 on, behind its end (right red zone)")
    );
    assert!(texts[0].0.contains("expected cc, found 41"));
    assert!(texts[3].0.contains("freed at"));
    machine.check();
    machine.finish();
}
