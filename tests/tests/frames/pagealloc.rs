//! `debug_pagealloc=on`: free pages are out of reach. The simulator takes their rights away: whoever touches one, the
//! library too, ends with SIGSEGV.

use mm::addr::{Order, Pfn, PfnRange, PhysRange, VirtAddr};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::frame::FrameState;
use mm::platform::Platform;
use mm::report::{AccessKind, Corruption, FreePageAccess};
use mm::system::{DebugPagealloc, PageOwner};
use mm_tests::for_every_config;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Machine, SimConfig};

const MIB: u64 = 1 << 20;

for_every_config! {
    free_pages_are_out_of_reach_and_others_are_not,
    who_touches_a_free_page_is_told_what_it_is,
    nothing_is_out_of_reach_unless_asked_for,
}

fn machine<C: SimConfig>(debug: DebugPagealloc) -> Machine<C> {
    Machine::<C>::new()
        .ram(0, 32 * MIB)
        .options(|options| options.debug_pagealloc = debug)
        .boot()
}

fn is_hidden<C: SimConfig>(machine: &Machine<C>, pfn: Pfn) -> bool {
    machine.hardware().ram().is_protected(pfn.addr())
}

/// Every frame that is free is out of reach; every one that is not can be read and written.
fn check<C: SimConfig>(machine: &Machine<C>) -> u64 {
    let frames = machine.frames().unwrap();
    let mut hidden = 0;
    for range in machine.hardware().ram().ranges() {
        for pfn in range.whole_frames().iter() {
            let head = frames
                .head(pfn)
                .and_then(|head| head.frame().word().state());
            let is_free = matches!(head, Some(FrameState::Free | FrameState::Cached));
            assert_eq!(is_hidden(machine, pfn), is_free, "{pfn} is {head:?}");
            hidden += u64::from(is_free);
        }
    }
    hidden
}

fn free_pages_are_out_of_reach_and_others_are_not<C: SimConfig>() {
    let mut random = Random::new(seed("debug_pagealloc"));
    let machine = machine::<C>(DebugPagealloc::On);
    assert!(machine.hides_free_pages());
    assert!(check(&machine) > 1000);
    let mut blocks = Vec::new();
    let mut objects = Vec::new();
    for round in 0..cases(600) {
        match random.below(8) {
            0..=2 => {
                let order = Order::new(random.below(6) as u8).unwrap();
                let gfp =
                    [Gfp::KERNEL, Gfp::ATOMIC, Gfp::KERNEL | Gfp::ZERO][random.below_index(3)];
                if let Ok(mut block) = machine.alloc_block(gfp, order) {
                    block.bytes_mut().fill(0x11);
                    blocks.push(block);
                }
            }
            3 | 4 if !blocks.is_empty() => {
                drop(blocks.swap_remove(random.below_index(blocks.len())));
            }
            5 => {
                let size = 1 + random.below(9000) as usize;
                if let Ok(object) = machine.kmalloc(size, Gfp::KERNEL) {
                    // SAFETY: as many bytes as were asked for.
                    unsafe { object.write_bytes(0x22, size) };
                    objects.push(object);
                }
            }
            6 if !objects.is_empty() => {
                let object = objects.swap_remove(random.below_index(objects.len()));
                // SAFETY: nobody else has it.
                unsafe { machine.kfree(object) }.unwrap();
            }
            7 => {
                machine.drain_all_pages();
            }
            _ => {}
        }
        if round % 100 == 0 {
            check(&machine);
        }
    }
    // By number, from an NMI, many at once, in one piece.
    let pfn = machine
        .alloc_pages_nolock(Gfp::ATOMIC, Order::ZERO)
        .unwrap();
    assert!(!is_hidden(&machine, pfn));
    // SAFETY: nobody else has it.
    unsafe { machine.free_pages_nolock(pfn, Order::ZERO) }.unwrap();
    let mut many = [const { None }; 40];
    let got = machine
        .alloc_pages_bulk(Gfp::KERNEL, &mut many)
        .unwrap_or_default();
    check(&machine);
    // SAFETY: nobody else has them.
    unsafe { machine.free_pages_bulk(&mut many) }.unwrap();
    assert!(got > 0);
    for object in objects {
        // SAFETY: nobody else has it.
        unsafe { machine.kfree(object) }.unwrap();
    }
    drop(blocks);
    machine.grace().barrier().unwrap();
    machine.drain_all_pages();
    check(&machine);
    machine.finish();
}

fn who_touches_a_free_page_is_told_what_it_is<C: SimConfig>() {
    for owner in [PageOwner::Off, PageOwner::On] {
        let machine = Machine::<C>::new()
            .ram(0, 32 * MIB)
            .options(|options| {
                options.debug_pagealloc = DebugPagealloc::On;
                options.page_owner = owner;
            })
            .boot();
        let before = line!();
        let block = machine
            .alloc_block(Gfp::KERNEL, Order::new(2).unwrap())
            .unwrap();
        let lines = before..line!();
        let pfn = block.pfn().saturating_add(3);
        let at = |pfn: Pfn| {
            let range = PhysRange::from_size(pfn.addr(), PAGE_SIZE);
            VirtAddr::from_ptr(machine.platform().direct_map(range).unwrap().as_ptr())
        };
        let byte = at(pfn).checked_add(0x123).unwrap();
        assert!(
            !machine.free_page_fault(byte, AccessKind::Write),
            "it has an owner"
        );
        drop(block);
        assert!(machine.free_page_fault(byte, AccessKind::Write));
        let reports = machine.platform().take_reports();
        let [Corruption::FreePage(found)] = reports.as_slice() else {
            panic!("{reports:?}");
        };
        let allocated = found.allocated;
        let expected = FreePageAccess {
            pfn,
            offset: 0x123,
            kind: AccessKind::Write,
            allocated,
        };
        assert_eq!(*found, expected);
        assert_eq!(allocated.is_some(), owner == PageOwner::On);
        let words = format!("{}", reports[0]);
        let start = format!("use after free: frame {pfn} is free, and its byte 0x123 was written");
        assert!(words.starts_with(&start), "{words}");
        if let Some(place) = allocated {
            assert_eq!(place.file(), file!());
            assert!(lines.contains(&place.line()), "{place}");
        }
        // Not RAM, or nobody's.
        for wild in [0, 0x1000, u64::MAX] {
            assert!(!machine.free_page_fault(VirtAddr::new(wild), AccessKind::Read));
        }
        machine.finish();
    }
}

fn nothing_is_out_of_reach_unless_asked_for<C: SimConfig>() {
    let machine = machine::<C>(DebugPagealloc::Off);
    assert!(!machine.hides_free_pages());
    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let frames = PfnRange::block(block.pfn(), Order::ZERO);
    drop(block);
    assert!(!is_hidden(&machine, frames.first()));
    let at = machine.platform().direct_map(frames.addrs()).unwrap();
    assert!(!machine.free_page_fault(VirtAddr::from_ptr(at.as_ptr()), AccessKind::Read));
    machine.finish();
}
