//! R25: a frame becomes something else only by being freed, and what is the kernel's own is never a page of user code.

use std::collections::BTreeMap;

use mm::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::frame::{FrameState, Kind};
use mm::pagetable::{Attributes, Level, MapError, PageSize};
use mm::report::Backing;
use mm_tests::oracles::Blocks;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Listed, Machine, SimConfig};

use super::player::{MIB, Player, World};

/// What a frame is, of which it is told apart here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Unused,
    Reserved,
    Slab,
    Table,
    /// A block's, whatever it is for: an area, copies of CPUs, pages that somebody took.
    Other,
}

/// What each frame is now. A block's frames are all the same.
fn look<C: SimConfig>(machine: &Machine<C>, mut each: impl FnMut(Pfn, What)) {
    for found in Blocks::of(machine) {
        let word = found.word;
        let what = match word.state() {
            Some(FrameState::Reserved) => What::Reserved,
            Some(FrameState::Unique) if word.is_for(Kind::Slab) => What::Slab,
            Some(FrameState::Unique) if word.is_for(Kind::Table) => What::Table,
            Some(FrameState::Unique | FrameState::Shared) => What::Other,
            _ => What::Unused,
        };
        let frames = match what {
            What::Reserved => PfnRange::block(found.pfn, Order::ZERO),
            _ => PfnRange::block(found.pfn, word.order()),
        };
        frames.iter().for_each(|pfn| each(pfn, what));
    }
}

/// A million operations: `MM_CASES=1000`.
#[test]
fn a_frame_is_freed_before_it_is_something_else() {
    // Few frames, so that each is many things.
    let builder = Machine::<Listed<Checked>>::new().ram(16 * MIB, 8 * MIB);
    let world = World::new(builder, 1);
    let machine = &world.machine;
    let seed = seed("kinds");
    // What each frame was when somebody had it last, and how often it had been freed then.
    let mut before = BTreeMap::<Pfn, (What, u64)>::new();
    let mut changes = BTreeMap::<(What, What), u64>::new();
    let mut player = Player::new(&world, 0, seed);
    let operations = cases(20) * 1_000;
    for _ in 0..operations {
        player.step(50);
        look(machine, |pfn, now| {
            if now == What::Unused {
                return;
            }
            let freed = machine.hardware().times_freed(pfn);
            let was = before.insert(pfn, (now, freed));
            if let Some((was, freed_then)) = was.filter(|(was, _)| *was != now) {
                assert!(freed > freed_then, "{pfn}: from {was:?} to {now:?}");
                *changes.entry((was, now)).or_default() += 1;
            }
        });
    }
    player.end();
    println!("{operations} operations: {changes:?}");
    for change in [
        (What::Slab, What::Table),
        (What::Table, What::Slab),
        (What::Slab, What::Other),
        (What::Other, What::Slab),
        (What::Table, What::Other),
        (What::Other, What::Table),
    ] {
        assert!(changes.contains_key(&change), "{change:?}");
    }
    world.finish();
}

#[test]
fn a_thousand_attempts_to_show_user_code_what_is_the_kernels_are_refused() {
    let builder = Machine::<Listed<Checked>>::new()
        .ram(16 * MIB, 24 * MIB)
        .reserve(16 * MIB, 64 << 10);
    let world = World::new(builder, 1);
    let machine = &world.machine;
    let mut random = Random::new(seed("kernels"));
    let mut kinds = BTreeMap::<What, u64>::new();
    let tables = machine.new_page_table(Level::P4D).unwrap();
    let map = |start: u64, frames: PfnRange| {
        let row = (VirtAddr::new(start), frames);
        let backing = [Backing::Anonymous, Backing::Named][frames.first().as_u64() as usize % 2];
        let (largest, how) = (PageSize::Size4K, Attributes::KERNEL);
        // SAFETY: nobody goes through these tables.
        unsafe { machine.map_user_pages(&tables, row, how, largest, backing) }
    };
    let mut player = Player::new(&world, 0, random.next_u64());
    let mut refused = 0;
    while refused < 1_000 {
        player.step(80);
        let mut candidates = BTreeMap::<What, Vec<Pfn>>::new();
        look(machine, |pfn, what| match what {
            What::Slab | What::Table | What::Reserved => {
                candidates.entry(what).or_default().push(pfn);
            }
            What::Unused | What::Other => {}
        });
        for _ in 0..10 {
            let kind = random.below_index(candidates.len());
            let (&what, frames) = candidates.iter().nth(kind).unwrap();
            let pfn = frames[random.below_index(frames.len())];
            // Alone, or behind pages that would be fine.
            let rows = [1, 1 + random.below(4)].map(|count| {
                let first = Pfn::new(pfn.as_u64() + 1 - count);
                PfnRange::from_count(first, count).unwrap()
            });
            for frames in rows {
                let outcome = map(0x40_0000, frames);
                let Err(MapError::KernelOwned(first)) = outcome else {
                    panic!("{frames:?}, {pfn} is {what:?}: {outcome:?}");
                };
                assert!(frames.contains(first) && first <= pfn);
            }
            assert_eq!(machine.walk(&tables, VirtAddr::new(0x40_0000)).leaf(), None);
            assert_eq!(machine.mapped_as(pfn), None);
            *kinds.entry(what).or_default() += 1;
            refused += 1;
        }
    }
    println!("{refused} attempts, all refused: {kinds:?}");
    assert_eq!(kinds.len(), 3);
    player.end();
    // The same call with a page that somebody may have.
    let page = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let frames = PfnRange::block(page.pfn(), Order::ZERO);
    map(0x40_0000, frames).unwrap();
    let range = VirtRange::from_size(VirtAddr::new(0x40_0000), 4096).unwrap();
    // SAFETY: as above.
    unsafe { machine.unmap_pages(&tables, range, |_, _| ()) }
        .unwrap()
        .complete();
    drop(page);
    // SAFETY: nobody knows them.
    unsafe { machine.destroy_page_table(tables) };
    world.settle();
    world.look();
    // The counts of a section stay once they are made.
    world.machine.abandon();
}
