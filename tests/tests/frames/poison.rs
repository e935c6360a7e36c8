//! R12: writes to free memory are found when it is handed out (`debug` profile), and R11: nobody
//! sees what a former owner wrote.

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm::frame::FrameState;
use mm::report::Corruption;
use mm_tests::oracles::{Blocks, Found};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Checked, Debug, Machine, Plain, SimConfig, Sparse, Usual, Vmemmap};

const MIB: u64 = 1 << 20;
const POISON: u8 = 0xaa;

fn free_frames<C: SimConfig>(machine: &Machine<C>) -> Vec<Pfn> {
    Blocks::of(&**machine)
        .filter(|Found { word, .. }| word.state() == Some(FrameState::Free))
        .flat_map(|Found { pfn, word }| {
            mm::addr::PfnRange::block(pfn, word.order())
                .iter()
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Damages one byte of each of `frames`, then allocates everything page by page.
fn damage_and_find<C: SimConfig>(wanted: usize) {
    let machine = Machine::<C>::with_ram(48 * MIB);
    let mut random = Random::new(seed("damage_and_find"));
    let mut frames = free_frames(&machine);
    assert!(frames.len() > wanted);
    let mut expected = Vec::new();
    for _ in 0..wanted {
        let pfn = frames.swap_remove(random.below_index(frames.len()));
        let offset = random.below(4096);
        let found = POISON ^ (1 << random.below(8));
        let at = pfn.addr().checked_add(offset).unwrap();
        machine.hardware().ram().scribble(at, found);
        expected.push(Corruption::Poison {
            pfn,
            offset: offset as u16,
            expected: POISON,
            found,
        });
    }
    let mut pages = Vec::new();
    while let Ok(page) = machine.alloc_block(Gfp::KERNEL, Order::ZERO) {
        pages.push(page);
    }
    assert_eq!(pages.len(), frames.len(), "every other frame is handed out");
    let key = |report: &Corruption| match *report {
        Corruption::Poison { pfn, .. } => pfn,
        ref other => panic!("{other:?}"),
    };
    let mut reports = machine.hardware().take_reports();
    reports.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(reports, expected);
    assert_eq!(machine.quarantined_frames(), wanted as u64);
    machine.check();
    // What was damaged never comes back, whatever else does.
    drop(pages);
    machine.validate().unwrap();
    assert_eq!(machine.free_frames(), frames.len() as u64);
    machine.abandon();
}

#[test]
fn each_of_ten_thousand_damaged_free_frames_is_found_and_named() {
    damage_and_find::<Checked>(10_000);
}

#[test]
fn damage_is_found_on_every_memory_model() {
    damage_and_find::<(Debug, Vmemmap)>(500);
    damage_and_find::<(Debug, mm_tests::sim::Flat)>(500);
}

#[test]
fn a_million_clean_cycles_report_nothing() {
    let machine = Machine::<Checked>::with_ram(16 * MIB);
    for _ in 0..1_000_000 / 16 {
        let pages: [_; 16] = core::array::from_fn(|_| machine.alloc_page(Gfp::KERNEL).unwrap());
        for pfn in pages {
            // SAFETY: allocated just above, freed once.
            unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
        }
    }
    machine.finish();
}

#[test]
#[should_panic(expected = "was written to while free: byte 0x7b is 0x17, not 0xaa")]
fn a_platform_may_panic_on_damage() {
    let machine = Machine::<Checked>::new()
        .ram(0, 16 * MIB)
        .panic_on_damage()
        .boot();
    for pfn in free_frames(&machine) {
        let at = pfn.addr().checked_add(0x7b).unwrap();
        machine.hardware().ram().scribble(at, 0x17);
    }
    let _ = machine.alloc_page(Gfp::KERNEL);
    machine.abandon();
}

/// Fills everything with garbage, gives it back, and looks at what comes out.
fn recycle<C: SimConfig>(machine: Machine<C>, gfp: Gfp) -> bool {
    let mut clean = true;
    for order in Order::all() {
        for _ in 0..20 {
            let mut block = machine.alloc_block(gfp, order).unwrap();
            clean &= block.bytes().iter().all(|&byte| byte == 0);
            block.bytes_mut().fill(0xab);
        }
        let all = (0..8).map(|_| machine.alloc_block(gfp, order));
        for block in all.collect::<Vec<_>>() {
            block.unwrap().bytes_mut().fill(0xcd);
        }
    }
    for bytes in [1, 4096, 5000, 70_000] {
        let mut run = machine.alloc_pages_exact(gfp, bytes).unwrap();
        clean &= run.bytes_mut().iter().all(|&byte| byte == 0);
        run.bytes_mut().fill(0xef);
    }
    machine.finish();
    clean
}

#[test]
fn no_byte_of_a_former_owner_is_seen_where_pages_are_zeroed() {
    let size = 64 * MIB;
    assert!(recycle(Machine::<Usual>::with_ram(size), Gfp::KERNEL));
    assert!(recycle(Machine::<Checked>::with_ram(size), Gfp::KERNEL));
    let plain = || Machine::<(Plain, Sparse)>::new().ram(0, size);
    assert!(recycle(plain().boot(), Gfp::KERNEL | Gfp::ZERO));
    let on_free = plain().options(|options| options.init_on_free = true);
    assert!(recycle(on_free.boot(), Gfp::KERNEL));
    // Or the test could not fail:
    assert!(!recycle(plain().boot(), Gfp::KERNEL));
}
