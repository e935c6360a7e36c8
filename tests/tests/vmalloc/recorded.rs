//! What is mapped and unmapped is recorded, where somebody wants to know.

use mm::addr::VirtAddr;
use mm::buddy::Gfp;
use mm::report::EventKind;
use mm_tests::sim::{Listed, Plain, Recorded, Sparse};

use crate::world::{MIB, PAGE, World, at};

#[test]
fn areas_are_recorded_where_they_lie() {
    let world = World::<Recorded<Listed<(Plain, Sparse)>>>::new(64 * MIB, 64 * MIB, 64);
    let count = world.platform().recorder().count();
    let happened = |kind: EventKind| -> Vec<(VirtAddr, u8)> {
        let events = world.platform().recorder().events().into_iter();
        let events = events.filter(|&(time, event)| time >= count && event.kind == kind);
        events
            .map(|(_, event)| (event.start(), event.detail))
            .collect()
    };
    let mut wanted = Vec::new();
    let mut areas = Vec::new();
    for (pages, log) in [(1, 0), (2, 1), (17, 5)] {
        let area = world.vmalloc(pages * PAGE, Gfp::KERNEL).unwrap();
        wanted.push((at(area, 0), log));
        areas.push(area);
    }
    assert_eq!(happened(EventKind::Map), wanted);
    assert_eq!(happened(EventKind::Unmap), []);
    for area in areas {
        world.free(area);
    }
    let _ = world.vmalloc_purge();
    let mut unmapped = happened(EventKind::Unmap);
    unmapped.sort_unstable();
    unmapped.dedup();
    wanted.sort_unstable();
    assert_eq!(unmapped, wanted);
    world.finish();
}
