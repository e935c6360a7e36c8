//! The sampling guard pool itself: which allocations it serves, in which order its objects come, and what it costs when
//! it is off.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr::NonNull;

use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::platform::{Platform, ProtectPageError};
use mm::report::AccessKind;
use mm::slab::KFENCE_OBJECTS;
use mm::system::{DmaPool, DmaRequest, KmemCache, NoKfence, Options};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Machine, SimConfig, Usual};

use super::kfence::{PAGE, machine, reports, touch};

const MIB: u64 = 1 << 20;

fn free<C: SimConfig>(machine: &Machine<C>, object: NonNull<u8>) {
    // SAFETY: the test's own.
    unsafe { machine.kfree(object) }.unwrap();
}

#[test]
fn those_that_are_free_longest_are_used_first() {
    let machine = machine::<Usual>("");
    let page = |object: NonNull<u8>| object.addr().get() / PAGE;
    let mut free_ones = VecDeque::new();
    for _ in 0..KFENCE_OBJECTS {
        let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
        free_ones.push_back(page(object));
        // Kept until all were had once.
        if free_ones.len() == KFENCE_OBJECTS {
            assert_eq!(machine.kfence_stats().unwrap().allocated, 1);
        }
        free(&machine, object);
    }
    assert!(
        free_ones
            .iter()
            .zip(free_ones.iter().skip(1))
            .all(|(one, next)| one + 2 == *next)
    );
    let mut random = Random::new(seed("kfence_oldest_first"));
    let mut held = Vec::new();
    for _ in 0..20_000 {
        if random.below(2) == 0 && !free_ones.is_empty() {
            let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
            assert_eq!(Some(page(object)), free_ones.pop_front());
            held.push(object);
        } else if !held.is_empty() {
            let object = held.swap_remove(random.below(held.len() as u64) as usize);
            free_ones.push_back(page(object));
            free(&machine, object);
        }
    }
    held.into_iter().for_each(|object| free(&machine, object));
    let stats = machine.kfence_stats().unwrap();
    assert_eq!((stats.allocated, stats.allocations), (0, stats.frees));
    machine.finish();
}

/// Debugged caches see every allocation, others as many as come to those at hand at a time.
#[test]
fn one_in_so_many_allocations_is_sampled() {
    fn sampled<C: SimConfig>(interval: u64) -> u64 {
        let machine = machine::<C>("");
        machine.set_kfence_interval(interval).unwrap();
        let objects = [(); 6_000].map(|()| machine.kmalloc(64, Gfp::KERNEL).unwrap());
        let sampled = machine.kfence_stats().unwrap().allocations;
        objects.iter().for_each(|&object| free(&machine, object));
        assert_eq!(machine.kfence_stats().unwrap().frees, sampled);
        machine.finish();
        sampled
    }
    assert_eq!(sampled::<Checked>(100), 60);
    assert_eq!(sampled::<Checked>(0), 0);
    let usual = sampled::<Usual>(100);
    assert!((55..=65).contains(&usual), "{usual}");
}

#[test]
fn what_it_matters_for_where_it_lies_is_not_sampled() {
    let machine = machine::<Usual>("");
    let pool = DmaPool::create(&*machine, "ring", DmaRequest::new(64).bits(24)).unwrap();
    let buffer = pool.alloc(Gfp::KERNEL).unwrap();
    let below = machine.kmalloc(64, Gfp::KERNEL | Gfp::DMA).unwrap();
    let large = machine.kmalloc(PAGE + 1, Gfp::KERNEL).unwrap();
    let stats = machine.kfence_stats().unwrap();
    assert_eq!((stats.allocations, stats.incompatible), (0, 3));
    free(&machine, below);
    free(&machine, large);
    drop(buffer);
    pool.destroy().unwrap();
    machine.finish();
}

#[test]
fn without_a_pool_nothing_is_different() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    assert_eq!(machine.kfence_stats(), Err(NoKfence));
    assert_eq!(machine.set_kfence_interval(1), Err(NoKfence));
    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    let address = VirtAddr::from_ptr(object.as_ptr());
    assert!(!machine.kfence_page_fault(address, AccessKind::Read));
    free(&machine, object);
    machine.finish();
}

/// Refused at the first page, when nothing was changed; and in the midst of it.
#[test]
fn a_platform_that_cannot_protect_pages_comes_up_without() {
    let managed = |protections: Option<u64>| {
        let asked = |options: &mut Options| {
            options.kfence_sample_interval = u64::from(protections.is_some());
        };
        let builder = Machine::<Usual>::new().ram(0, 32 * MIB).options(asked);
        let machine = builder.protections(protections.unwrap_or(0)).boot();
        assert_eq!(machine.kfence_stats(), Err(NoKfence));
        let why = machine.booted().no_kfence;
        assert_eq!(why, protections.map(|_| ProtectPageError::Unsupported));
        let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
        free(&machine, object);
        let managed = machine.managed_frames();
        machine.finish();
        managed
    };
    let all = managed(None);
    // What is known of the objects is lost.
    assert!(all - managed(Some(0)) < 16);
    assert!(all - managed(Some(100)) >= 512);
}

#[test]
fn a_machine_with_little_memory_comes_up_without() {
    let asked = |options: &mut Options| options.kfence_sample_interval = 1;
    let machine = Machine::<Usual>::new()
        .ram(1 << 20, 2 * MIB)
        .options(asked)
        .boot();
    assert_eq!(machine.kfence_stats(), Err(NoKfence));
    machine.finish();
}

#[test]
fn objects_of_the_pool_go_from_cpu_to_cpu() {
    let asked = |options: &mut Options| options.kfence_sample_interval = 2;
    let builder = Machine::<Usual>::new().ram(0, 64 * MIB).cpus(4);
    let machine = builder.options(asked).boot();
    let seed = seed("kfence_on_cpus");
    let (sender, receiver) = std::sync::mpsc::channel::<usize>();
    std::thread::scope(|scope| {
        for cpu in 1..4 {
            let (machine, sender) = (&machine, sender.clone());
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                let mut random = Random::new(seed ^ u64::from(cpu));
                for _ in 0..3_000 {
                    let size = 1 + random.below(4096) as usize;
                    let object = machine.kmalloc(size, Gfp::KERNEL).unwrap();
                    // SAFETY: an object of that size.
                    unsafe { object.write_bytes(cpu as u8, size) };
                    match random.below(2) {
                        0 => free(machine, object),
                        _ => sender.send(object.expose_provenance().get()).unwrap(),
                    }
                }
            });
        }
        drop(sender);
        for object in receiver {
            let object = NonNull::new(std::ptr::with_exposed_provenance_mut(object)).unwrap();
            free(&machine, object);
        }
    });
    let stats = machine.kfence_stats().unwrap();
    assert!(stats.allocations > 500, "{stats:?}");
    assert_eq!((stats.allocated, stats.bugs), (0, 0));
    machine.finish();
}

#[test]
fn faults_elsewhere_are_not_the_pools() {
    let machine = machine::<Usual>("");
    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    let is_known = |address| machine.kfence_page_fault(address, AccessKind::Write);
    let start = VirtAddr::from_ptr(object.as_ptr()).as_u64();
    // Another CPU made it one that can be touched just now.
    assert!(is_known(VirtAddr::new(start)));
    assert!(!is_known(VirtAddr::new(start + (4 << 20))));
    assert!(!is_known(VirtAddr::new(8)));
    assert_eq!(reports(&machine), []);
    free(&machine, object);
    machine.finish();
}

#[test]
fn the_pool_in_numbers_is_as_linux_prints_it() {
    let machine = machine::<Usual>("");
    let object = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    free(&machine, object);
    touch(&machine, object, AccessKind::Read);
    let found = reports(&machine);
    let text = found[0].to_string();
    assert!(
        text.starts_with(
            "kmalloc-64: kfence object 0 of 64 bytes: read after it was freed, at byte 0\n"
        ),
        "{text}"
    );
    assert_eq!(text.lines().count(), 3);
    let kept = machine.kmalloc(64, Gfp::KERNEL).unwrap();
    assert_eq!(
        machine.kfence_stats().unwrap().to_string(),
        "enabled: 1\ncurrently allocated: 1\ntotal allocations: 2\ntotal frees: 1\ntotal bugs: 1\n\
         skipped allocations (incompatible): 0\nskipped allocations (capacity): 0"
    );
    free(&machine, kept);
    machine.finish();
}

/// What a child process of this test is to touch.
const CHILD: &str = "MM_KFENCE_CHILD";

/// R13 for objects: without a handler, whoever touches what is out of reach is killed, at any of three places; and is
/// not where nothing is wrong.
#[test]
fn a_page_that_is_out_of_reach_ends_who_touches_it() {
    if let Ok(place) = std::env::var(CHILD) {
        let machine = machine::<Usual>("");
        let cache = KmemCache::create(&*machine, "kfence", (4096, 8), Default::default()).unwrap();
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        let at: isize = match place.as_str() {
            "before" => -1,
            "behind" => 4096,
            _ => 100,
        };
        if place == "freed" {
            // SAFETY: allocated above.
            unsafe { cache.free(object) }.unwrap();
        }
        // SAFETY: RAM of the machine; it may well end this process.
        let byte = unsafe { object.offset(at).read_volatile() };
        println!("touched, and found {byte}");
        machine.abandon();
        return;
    }
    let name = "kfence_pool::a_page_that_is_out_of_reach_ends_who_touches_it";
    for (place, signal) in [
        ("before", Some(11)),
        ("behind", Some(11)),
        ("freed", Some(11)),
        ("inside", None),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, place);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.signal(), signal, "{place}: {said}");
        assert_eq!(
            said.contains("touched, and found"),
            signal.is_none(),
            "{place}"
        );
    }
}

#[test]
fn what_the_platform_says_of_its_pages_is_true() {
    let machine = machine::<Usual>("");
    let object = machine.kmalloc(100, Gfp::KERNEL).unwrap();
    let hardware = machine.hardware();
    let is_protected = |object: NonNull<u8>| {
        let address = VirtAddr::from_ptr(object.as_ptr());
        hardware
            .ram()
            .is_protected(hardware.virt_to_phys(address).unwrap())
    };
    assert!(!is_protected(object));
    free(&machine, object);
    assert!(is_protected(object));
    machine.finish();
}
