//! R16: every state meets every event, on the table alone and through the interface.

use mm::addr::{Order, Pfn, PfnRange, PhysRange};
use mm::buddy::Gfp;
use mm::frame::{Event, FrameState};
use mm::mem::{EarlyRam, RamClaim};
use mm::memblock::{Floor, Memblock, Request};
use mm::system::PageLists;
use mm_tests::oracles::state_hash;
use mm_tests::sim::{Checked, Machine, Plain, SimConfig, Usual, Vmemmap};

use Event::{
    Absorb, Adopt, Allocate, Cache, CutFree, CutOwned, LastPut, Release, Reserve, Serve, Share,
    Unshare,
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
    (Unique, Release, Free),
    (Unique, Share, Shared),
    (Unique, Absorb, Interior),
    (Shared, Unshare, Unique),
    (Shared, LastPut, Free),
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

    /// A token for the frame's bytes that was come by dishonestly.
    fn stolen(&self) -> EarlyRam {
        let range = PfnRange::block(self.pfn, Order::ZERO).addrs();
        // SAFETY: deliberately none (3): the machine's own memblock had these bytes. Nothing is
        // read or written through the token; what counts is that the frame table refuses it.
        let mut memblock = Memblock::new(unsafe { RamClaim::new() });
        memblock.add(self.machine.hardware(), range).unwrap();
        let request = Request::bytes(PhysRange::size(range)).floor(Floor::Required(range.start()));
        memblock
            .alloc_raw(self.machine.hardware(), &request)
            .unwrap()
    }

    /// Tries an event through the interface; `None` where there is no call that would do it.
    fn attempt(&self, event: Event) -> Option<bool> {
        let table = self.machine.frames().unwrap();
        let home = self.machine.zones().next().unwrap().id();
        let (machine, pfn) = (&self.machine, self.pfn);
        let accepted = match event {
            Reserve => table.reserve_once(pfn, home).is_ok(),
            Adopt => table.adopt(self.stolen(), home, drop).is_ok(),
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
            Unshare | Absorb | CutFree | CutOwned | Cache | Serve => return None,
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
    assert!(matches!(state(pfn), Free | Interior), "LastPut");
    machine.finish();
}
