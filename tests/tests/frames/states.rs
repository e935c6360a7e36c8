//! R16: every state meets every event, on the table alone and through the interface.

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::frame::{Event, FrameState, PutOutcome};
use mm::mem::{EarlyRam, Exclusive};
use mm::system::PageLists;
use mm_tests::oracles::state_hash;
use mm_tests::sim::{Checked, Machine, Plain, SimConfig, Usual, Vmemmap};

use Event::{
    Absorb, Adopt, Allocate, Cache, CutFree, CutOwned, LastPut, Release, Reserve, Serve, Share,
};
use FrameState::{Cached, Free, Interior, Reserved, Shared, Unique};

const MIB: u64 = 1 << 20;

/// Everything that may happen; whatever is not here may not.
const LEGAL: [(FrameState, Event, FrameState); 14] = [
    (Interior, Reserve, Reserved),
    (Interior, Adopt, Unique),
    (Interior, CutFree, Free),
    (Interior, CutOwned, Unique),
    (Free, Allocate, Unique),
    (Free, Absorb, Interior),
    (Reserved, Adopt, Unique),
    (Reserved, Absorb, Interior),
    (Unique, Release, Free),
    (Unique, Share, Shared),
    (Unique, Absorb, Interior),
    (Shared, LastPut, Unique),
    (Unique, Cache, Cached),
    (Cached, Serve, Unique),
];

fn expected(state: FrameState, event: Event) -> Option<FrameState> {
    let found = LEGAL
        .iter()
        .find(|(from, by, _)| (*from, *by) == (state, event));
    found.map(|(_, _, to)| *to)
}

#[test]
fn the_table_allows_fourteen_changes_and_refuses_all_others() {
    let mut allowed = 0;
    for state in FrameState::ALL {
        for event in Event::ALL {
            assert_eq!(
                state.after(event),
                expected(state, event),
                "{state:?} {event:?}"
            );
            allowed += usize::from(state.after(event).is_some());
        }
    }
    assert_eq!(allowed, 14);
}

/// A token for frames that was come by dishonestly.
fn stolen<C: SimConfig>(machine: &Machine<C>, frames: PfnRange) -> EarlyRam {
    // SAFETY: nothing is read or written through the token; what counts is what the frame table
    // makes of it.
    unsafe { machine.hardware().early_ram(frames.addrs()) }
}

/// A machine with a frame in a given state.
struct Stage<C: SimConfig> {
    machine: Machine<C>,
    pfn: Pfn,
}

impl<C: SimConfig> Stage<C> {
    fn set(state: FrameState) -> Self {
        let machine = Machine::<C>::new()
            .ram(0, 16 * MIB)
            .reserve(3 * MIB, 4096)
            .options(|options| {
                if state == Cached {
                    options.page_lists = PageLists::Tuned;
                }
            })
            .boot();
        let pfn = match state {
            // Behind the end of RAM, in a section that has records.
            Interior => Pfn::new((20 * MIB) >> 12),
            Reserved => Pfn::new((3 * MIB) >> 12),
            Free => {
                let pfn = machine.alloc_page(Gfp::KERNEL).unwrap();
                let next = machine.alloc_page(Gfp::KERNEL).unwrap();
                // SAFETY: allocated above; the neighbour stays, so nothing merges.
                unsafe { machine.free_pages(next, Order::ZERO) }.unwrap();
                assert_eq!(pfn.buddy(Order::ZERO), next);
                next
            }
            Unique => machine.alloc_page(Gfp::KERNEL).unwrap(),
            Shared => {
                let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
                let pfn = block.pfn();
                core::mem::forget(block.share().unwrap());
                pfn
            }
            Cached => {
                let pfn = machine.alloc_page(Gfp::KERNEL).unwrap();
                // SAFETY: allocated above.
                unsafe { machine.free_pages(pfn, Order::ZERO) }.unwrap();
                pfn
            }
        };
        let stage = Self { machine, pfn };
        assert_eq!(stage.state(), state);
        stage
    }

    fn state(&self) -> FrameState {
        self.machine.page(self.pfn).unwrap().state().unwrap()
    }

    /// Tries an event through the interface; `None` where there is no call that would do it.
    fn attempt(&self, event: Event) -> Option<bool> {
        let table = self.machine.frames().unwrap();
        let home = self.machine.zones().next().unwrap().id();
        let (machine, pfn) = (&self.machine, self.pfn);
        let accepted = match event {
            Reserve => table.reserve_once(pfn, home).is_ok(),
            Adopt => {
                let ram = stolen(machine, PfnRange::block(pfn, Order::ZERO));
                table.adopt(ram, home, drop).is_ok()
            }
            // The page is taken off its list first, which are two changes.
            Allocate if self.state() == Cached => return None,
            Allocate => {
                let range = PfnRange::block(pfn, Order::ZERO);
                let run = machine.alloc_contig_range(range, Gfp::KERNEL);
                run.map(core::mem::forget).is_ok()
            }
            // SAFETY: where the frame is not an owned block, the call must refuse.
            Release => unsafe { machine.free_pages(pfn, Order::ZERO) }.is_ok(),
            // SAFETY: as above; the token is shared at once.
            Share => match unsafe { table.reclaim(pfn, Order::ZERO) } {
                Ok(token) => table.share(token).map(drop).is_ok(),
                Err(_) => false,
            },
            // SAFETY: where nobody holds a reference, the call must refuse.
            LastPut => unsafe { machine.put_page(pfn) }.is_ok(),
            Absorb | CutFree | CutOwned | Cache | Serve => return None,
        };
        Some(accepted)
    }
}

fn matrix<C: SimConfig>() {
    let mut tried = 0;
    for state in FrameState::ALL {
        for event in Event::ALL {
            let stage = Stage::<C>::set(state);
            let before = state_hash(&stage.machine);
            let Some(accepted) = stage.attempt(event) else {
                stage.machine.abandon();
                continue;
            };
            tried += 1;
            // A frame that is reserved already may be named again by a second reserved range.
            let again = (state, event) == (Reserved, Reserve);
            let after = state.after(event);
            assert_eq!(accepted, after.is_some() || again, "{state:?} {event:?}");
            // Whoever drops the last reference by number has the block freed at once.
            let after = if (state, event) == (Shared, LastPut) {
                after.and_then(|owned| owned.after(Release))
            } else {
                after
            };
            if let Some(after) = after {
                // Freed, the page merges with what is around it.
                let merged = after == Free && stage.state() == Interior;
                assert!(stage.state() == after || merged, "{state:?} {event:?}");
            } else {
                assert_eq!(state_hash(&stage.machine), before, "{state:?} {event:?}");
            }
            stage.machine.abandon();
        }
    }
    assert_eq!(tried, 35);
}

#[test]
fn the_interface_allows_and_refuses_what_the_table_says() {
    matrix::<Usual>();
    matrix::<(Plain, Vmemmap)>();
    matrix::<Checked>();
}

/// The changes that have no call of their own happen as blocks are cut and merged.
#[test]
fn blocks_are_cut_and_absorbed_as_the_table_says() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let state = |pfn| machine.page(pfn).unwrap().state().unwrap();
    let at = |first: Pfn, frames| first.saturating_add(frames);

    let run = machine.alloc_pages_exact(Gfp::KERNEL, 5 * 4096).unwrap();
    let first = run.frames().first();
    assert_eq!(state(at(first, 4)), Unique, "CutOwned: 4 + 1 pages");
    assert_eq!(state(at(first, 5)), Free, "CutOwned, then released");
    assert_eq!(state(at(first, 6)), Free, "CutFree");
    assert_eq!(state(at(first, 7)), Interior);
    drop(run);
    assert_eq!(state(at(first, 4)), Interior, "Unique and Absorb");
    assert_eq!(state(at(first, 6)), Interior, "Free and Absorb");

    let block = machine.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap();
    let shared = block.share().unwrap();
    let pfn = shared.pfn();
    let twin = shared.clone();
    drop(shared);
    assert_eq!((state(pfn), twin.count()), (Shared, 1));
    drop(twin);
    assert!(matches!(state(pfn), Free | Interior), "freed");
    machine.finish();
}

#[test]
fn the_last_reference_makes_its_holder_the_owner() {
    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let table = machine.frames().unwrap();
    let pfn = machine.alloc_page(Gfp::KERNEL).unwrap();
    let state = || machine.page(pfn).unwrap().state().unwrap();
    // SAFETY: allocated just above, and known by this number only.
    let token = unsafe { table.reclaim(pfn, Order::ZERO) }.unwrap();
    let (first, second) = (table.share(token).unwrap(), table.try_get(pfn).unwrap());
    assert_eq!(table.put(first), Ok(PutOutcome::Shared));
    assert_eq!(state(), Shared);
    let Ok(PutOutcome::Last(token)) = table.put(second) else {
        panic!("it was the last reference");
    };
    assert_eq!(state(), Unique, "LastPut");
    // So it can be shared anew, or freed.
    let again = table.share(token).unwrap();
    // SAFETY: the reference just taken, as a number.
    unsafe { machine.put_page(again.into_raw()) }.unwrap();
    machine.finish();
}

#[test]
fn reserved_frames_that_are_given_back_become_blocks() {
    let machine = Machine::<Usual>::new()
        .ram(0, 16 * MIB)
        .reserve(3 * MIB, 16 << 10)
        .boot();
    let pfns = PfnRange::from_count(Pfn::new((3 * MIB) >> 12), 4).unwrap();
    let state = |pfn| machine.page(pfn).unwrap().state().unwrap();
    assert!(pfns.iter().all(|pfn| state(pfn) == Reserved));
    let home = machine.zone_of(pfns.first()).unwrap().id();
    let mut blocks = 0;
    let each = |block: Exclusive| {
        let states: Vec<_> = block.frames().iter().map(state).collect();
        assert_eq!(states, [Unique, Interior, Interior, Interior]);
        blocks += 1;
    };
    let table = machine.frames().unwrap();
    table.adopt(stolen(&machine, pfns), home, each).unwrap();
    assert_eq!(blocks, 1);
    machine.abandon();
}

#[test]
fn memory_that_cannot_be_adopted_comes_back_from_there_on() {
    // Four reserved frames, then some that belong to a free block: as two blocks, and as one.
    for (start, adopted) in [(0x304, 4), (0x300, 0)] {
        let machine = Machine::<Usual>::new()
            .ram(0, 16 * MIB)
            .reserve(start << 12, 16 << 10)
            .boot();
        let first = Pfn::new(start);
        let home = machine.zone_of(first).unwrap().id();
        let before = state_hash(&machine);
        let pfns = PfnRange::from_count(first, 8).unwrap();
        let mut count = 0;
        let each = |block: Exclusive| count += block.frames().frames();
        let table = machine.frames().unwrap();
        let refused = table.adopt(stolen(&machine, pfns), home, each);
        let (_, rest) = refused.unwrap_err();
        assert_eq!(count, adopted);
        let left = PfnRange::from_count(first.saturating_add(adopted), 8 - adopted).unwrap();
        assert_eq!(rest.range(), left.addrs());
        assert_eq!(state_hash(&machine) == before, adopted == 0);
        machine.abandon();
    }
}
