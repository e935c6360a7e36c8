//! What happened is recorded as it happened: undone, it leads to what was.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::report::EventKind;
use mm::system::Block;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Debug, Flat, Hardened, Listed, Machine, Plain, Recorded, SimConfig, Sparse};
use mm_viewer::guest::Guest;
use mm_viewer::history::{Happening, History};
use mm_viewer::owner::Owner;
use mm_viewer::snapshot::Snapshot;
use mm_viewer::splits;

use super::{MIB, attach};

#[test]
fn the_past_is_what_was() {
    past::<Recorded<(Plain, Sparse)>>();
    past::<Recorded<Listed<(Hardened, Flat)>>>();
    past::<Recorded<Listed<(Debug, Sparse)>>>();
}

/// Whose a frame was that was given back is not recorded.
#[derive(PartialEq, Eq, Debug)]
enum Class {
    Free,
    Listed,
    Other,
}

fn class(owner: &Owner) -> Class {
    match owner {
        owner if owner.is_free() => Class::Free,
        Owner::PerCpu => Class::Listed,
        _ => Class::Other,
    }
}

fn owners(guest: &mut Guest) -> Vec<Owner> {
    guest.refresh();
    Snapshot::take(guest).owners
}

fn past<C: SimConfig>() {
    let mut random = Random::new(seed("past"));
    let machine = Machine::<C>::with_ram(64 * MIB);
    machine.publish().unwrap();
    let mut guest = attach(&machine).unwrap();
    let recorder = machine.platform().recorder();
    let mut blocks = Vec::new();
    let mut places = [None; 100];
    for round in 0..cases(20) {
        let (before, count) = (owners(&mut guest), recorder.count());
        for _ in 0..100 {
            let order = Order::new(random.below(11) as u8).unwrap();
            let kind = [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE];
            let gfp = kind[random.below_index(2)] | Gfp::NOWARN;
            match random.below(6) {
                0 | 1 => blocks.extend(Block::alloc(&*machine, gfp, order)),
                2 | 3 if !blocks.is_empty() => {
                    drop(blocks.swap_remove(random.below_index(blocks.len())));
                }
                4 => {
                    let _ = machine.drain_all_pages();
                }
                5 if places[0].is_none() => {
                    machine.alloc_pages_bulk(gfp, &mut places).unwrap();
                }
                _ => {
                    // SAFETY: they were allocated together, and nobody else knows them.
                    unsafe { machine.free_pages_bulk(&mut places) }.unwrap();
                }
            }
        }
        let after = owners(&mut guest);
        let events: Vec<_> = recorder.events();
        let happened: Vec<_> = events
            .into_iter()
            .filter(|&(time, _)| time >= count)
            .map(|(time, event)| Happening {
                time,
                cpu: 0,
                event,
            })
            .collect();
        assert_eq!(
            happened.len() as u64,
            recorder.count() - count,
            "none is lost"
        );
        let history = History {
            events: happened,
            ..History::default()
        };
        let undone = history.undo(&after, usize::MAX);
        for (pfn, (was, found)) in before.iter().zip(&undone).enumerate() {
            assert_eq!(
                class(found),
                class(was),
                "round {round}, frame {pfn:#x}: {:?}",
                about(&history, pfn as u64)
            );
        }
        let kinds = [
            EventKind::Alloc,
            EventKind::Free,
            EventKind::Take,
            EventKind::Give,
        ];
        for kind in kinds {
            let mut events = history.events.iter();
            assert!(
                events.any(|happening| happening.event.kind == kind),
                "{kind:?}"
            );
        }
        assert!(splits::svg(&history).is_some());
    }
    drop(blocks);
    // SAFETY: as above.
    unsafe { machine.free_pages_bulk(&mut places) }.unwrap();
    // What it is written down in stays.
    machine.abandon();
}

/// What happened to a frame.
fn about(history: &History, pfn: u64) -> Vec<String> {
    let events = history.events.iter().filter(|happening| {
        happening
            .frames()
            .is_some_and(|(first, count)| (first..first + count).contains(&pfn))
    });
    events
        .map(|happening| format!("{} {}", happening.event.kind.name(), happening.describe()))
        .collect()
}
