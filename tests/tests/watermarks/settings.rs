//! Settings: what they change, what is refused, and that `/proc/zoneinfo` shows it.

use mm::system::{HugePages, TuningError};
use mm::zone::ZoneKind;
use mm::zone::watermark::policy::{Marks, RESERVE_RATIO};
use mm_tests::sim::{Machine, Usual};

const MIB: u64 = 1 << 20;

fn marks(machine: &Machine<Usual>) -> Vec<Marks> {
    let zones = machine.zones().filter(|zone| zone.is_managed());
    zones.map(|zone| zone.watermarks().marks()).collect()
}

#[test]
fn all_min_marks_add_up_to_min_free_kbytes() {
    for kib in [0, 128, 4096, 60_000] {
        let machine = Machine::<Usual>::new()
            .ram(0, 64 * MIB)
            .ram(4 << 30, 96 * MIB)
            .boot();
        machine.set_min_free_kbytes(kib).unwrap();
        let sum: u64 = marks(&machine).iter().map(|marks| marks.min).sum();
        assert!((kib / 4).abs_diff(sum) <= 2, "{kib}: {sum}");
        assert_eq!(machine.tuning().unwrap().min_free_kbytes, kib);
        machine.finish();
    }
}

#[test]
fn huge_pages_raise_min_free_kbytes_on_large_machines_only() {
    for (bytes, huge_pages, expected) in [
        // sqrt(16 × managed KiB), and a twentieth of what is above the high marks.
        (640 * MIB, HugePages::Never, 2_000..3_300),
        (640 * MIB, HugePages::Madvise, 28_000..33_000),
        (640 * MIB, HugePages::Always, 28_000..33_000),
        (400 * MIB, HugePages::Always, 1_500..2_600),
        // Two zones, eleven pageblocks each.
        (2048 * MIB, HugePages::Always, 45_056..45_057),
    ] {
        let machine = Machine::<Usual>::new()
            .ram(0, bytes)
            .options(|options| options.huge_pages = huge_pages)
            .boot();
        let kib = machine.tuning().unwrap().min_free_kbytes;
        assert!(expected.contains(&kib), "{bytes} {huge_pages:?}: {kib}");
        machine.finish();
    }
}

#[test]
fn a_wider_scale_moves_low_and_high_and_leaves_min() {
    let machine = Machine::<Usual>::new().ram(16 * MIB, 256 * MIB).boot();
    let before = marks(&machine);
    machine.set_watermark_scale_factor(3000).unwrap();
    for (after, before) in marks(&machine).iter().zip(&before) {
        assert_eq!(after.min, before.min);
        assert!(after.low > 10 * before.low);
        assert_eq!(after.high - after.low, after.low - after.min);
    }
    machine.set_watermark_scale_factor(10).unwrap();
    assert_eq!(marks(&machine), before);
    machine.finish();
}

#[test]
fn a_ratio_of_zero_keeps_nothing() {
    let machine = Machine::<Usual>::new()
        .ram(0, 64 * MIB)
        .ram(4 << 30, 96 * MIB)
        .boot();
    let dma = || machine.nodes()[0].zone(ZoneKind::Dma).watermarks();
    let managed = |kind| machine.nodes()[0].zone(kind).managed();
    let (dma32, normal) = (managed(ZoneKind::Dma32), managed(ZoneKind::Normal));
    let expected = [0, dma32 / 256, (dma32 + normal) / 256];
    assert_eq!(dma().protection()[..3], expected);
    let mut ratio = RESERVE_RATIO;
    ratio[0] = 0;
    machine.set_lowmem_reserve_ratio(ratio).unwrap();
    assert_eq!(dma().protection(), [0; 5]);
    ratio[0] = 1;
    machine.set_lowmem_reserve_ratio(ratio).unwrap();
    assert_eq!(dma().protection()[2], dma32 + normal);
    machine.finish();
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let (tuning, before) = (machine.tuning(), marks(&machine));
    for factor in [0, 3001, u32::MAX] {
        let refused = machine.set_watermark_scale_factor(factor);
        assert_eq!(refused, Err(TuningError::ScaleFactor));
    }
    let managed_kib = machine.managed_frames() * 4;
    let refused = machine.set_min_free_kbytes(managed_kib + 1);
    assert_eq!(refused, Err(TuningError::MoreThanMemory { managed_kib }));
    assert_eq!((machine.tuning(), marks(&machine)), (tuning, before));
    machine.finish();
}

#[test]
fn a_larger_value_that_was_set_survives_computing_anew() {
    let machine = Machine::<Usual>::with_ram(32 * MIB);
    let computed = machine.tuning().unwrap().min_free_kbytes;
    for (set, kept) in [(computed + 100, computed + 100), (computed - 100, computed)] {
        machine.set_min_free_kbytes(set).unwrap();
        machine.recompute_watermarks().unwrap();
        let tuning = machine.tuning().unwrap();
        assert_eq!(tuning.min_free_kbytes, kept);
        assert_eq!(tuning.chosen_min_free_kbytes, Some(set));
    }
    machine.finish();
}

#[test]
fn zoneinfo_shows_what_holds() {
    let machine = Machine::<Usual>::new()
        .ram(0, 64 * MIB)
        .ram(4 << 30, 96 * MIB)
        .boot();
    let mut text = String::new();
    mm::proc::zoneinfo(&*machine, &mut text).unwrap();
    let shown: Vec<&str> = text
        .lines()
        .filter(|line| {
            let words = ["min", "low", "high", "protection:"];
            words.contains(&line.split_whitespace().next().unwrap())
        })
        .collect();
    let mut expected = Vec::new();
    for zone in machine.zones() {
        let Marks { min, low, high } = zone.watermarks().marks();
        expected.push(format!("        min      {min}"));
        expected.push(format!("        low      {low}"));
        expected.push(format!("        high     {high}"));
        let kept = zone.watermarks().protection().map(|kept| kept.to_string());
        expected.push(format!("        protection: ({})", kept.join(", ")));
    }
    assert_eq!(shown, expected);
    machine.finish();
}
