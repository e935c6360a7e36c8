//! How often a lock is taken, by workload and kind of page list: what scales, whatever the machine.
//!
//! The figures stand in `docs/benchmarks.md`; with `MM_UPDATE_BUDGETS=1` the table there is written
//! anew. They are the same in every run, since one thread does one thing after the other.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use mm::addr::{Order, Pfn};
use mm::buddy::Gfp;
use mm_tests::sim::{Checked, Classic, Listed, Machine, SimConfig};

/// Operations of a workload, about.
const OPERATIONS: usize = 65_536;
const BEGIN: &str = "<!-- locks -->\n";
const END: &str = "<!-- end -->";

/// A workload: what it is called, and what it does. It answers how many operations that was, and
/// how many locks were taken for them.
type Row<C> = (&'static str, fn(&Machine<C>) -> (usize, u64));

fn counted<C: SimConfig, R>(machine: &Machine<C>, body: impl FnOnce() -> R) -> (R, u64) {
    let before = machine.hardware().taken_locks();
    let result = body();
    (result, machine.hardware().taken_locks() - before)
}

fn take<C: SimConfig>(machine: &Machine<C>, order: u8) -> Pfn {
    let order = Order::new(order).unwrap();
    machine.alloc_pages(Gfp::KERNEL, order).unwrap()
}

fn give<C: SimConfig>(machine: &Machine<C>, pfn: Pfn, order: u8) {
    // SAFETY: `take` took it, and nobody uses it.
    unsafe { machine.free_pages(pfn, Order::new(order).unwrap()) }.unwrap();
}

/// The same block, taken and given back.
fn pairs<C: SimConfig, const ORDER: u8>(machine: &Machine<C>) -> (usize, u64) {
    for _ in 0..4 {
        give(machine, take(machine, ORDER), ORDER);
    }
    let ((), locks) = counted(machine, || {
        for _ in 0..OPERATIONS / 2 {
            give(machine, take(machine, ORDER), ORDER);
        }
    });
    (OPERATIONS, locks)
}

/// Many pages in a row, after as many were taken and given back.
fn taking<C: SimConfig>(machine: &Machine<C>) -> (usize, u64) {
    let all = || -> Vec<Pfn> { (0..OPERATIONS).map(|_| take(machine, 0)).collect() };
    all().into_iter().for_each(|page| give(machine, page, 0));
    let (pages, locks) = counted(machine, all);
    pages.into_iter().for_each(|page| give(machine, page, 0));
    (OPERATIONS, locks)
}

/// The same on their way back.
fn giving<C: SimConfig>(machine: &Machine<C>) -> (usize, u64) {
    let pages: Vec<Pfn> = (0..OPERATIONS).map(|_| take(machine, 0)).collect();
    let ((), locks) = counted(machine, || {
        pages.into_iter().for_each(|page| give(machine, page, 0));
    });
    (OPERATIONS, locks)
}

/// Pages taken on one CPU, and given back on another.
fn handing<C: SimConfig>(machine: &Machine<C>) -> (usize, u64) {
    let round = || {
        let pages: Vec<Pfn> = (0..1024).map(|_| take(machine, 0)).collect();
        let _there = machine.cpu(1);
        pages.into_iter().for_each(|page| give(machine, page, 0));
    };
    (0..32).for_each(|_| round());
    let ((), locks) = counted(machine, || (0..32).for_each(|_| round()));
    (2 * 32 * 1024, locks)
}

/// Pages by the bulk interface, `N` a call; they come back likewise.
fn bulk<C: SimConfig, const N: usize>(machine: &Machine<C>) -> (usize, u64) {
    let mut pages = [None; N];
    let mut round = || {
        assert_eq!(machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages), Ok(N));
        // SAFETY: allocated just now.
        unsafe { machine.free_pages_bulk(&mut pages) }.unwrap();
    };
    round();
    let ((), locks) = counted(machine, || (0..OPERATIONS / N).for_each(|_| round()));
    (2 * OPERATIONS, locks)
}

/// Draining what a CPU has at hand: an operation is a page that goes back.
fn draining<C: SimConfig>(machine: &Machine<C>) -> (usize, u64) {
    let (mut drained, mut locks) = (0, 0);
    for _ in 0..40 {
        let pages: Vec<Pfn> = (0..256).map(|_| take(machine, 0)).collect();
        pages.into_iter().for_each(|page| give(machine, page, 0));
        let before = machine.free_frames();
        let ((), taken) = counted(machine, || machine.drain_local_pages());
        drained += (machine.free_frames() - before) as usize;
        locks += taken;
    }
    (drained, locks)
}

fn rows<C: SimConfig>() -> [Row<C>; 9] {
    [
        ("one page, again and again (all hits)", pairs::<C, 0>),
        ("65,536 pages taken in a row", taking::<C>),
        ("65,536 pages given back in a row", giving::<C>),
        ("taken on one CPU, given back on another", handing::<C>),
        ("bulk calls of 64 pages", bulk::<C, 64>),
        ("bulk calls of 1,024 pages", bulk::<C, 1024>),
        ("a drain, per page given back", draining::<C>),
        ("2 MiB block, again and again", pairs::<C, 9>),
        ("4 MiB block, again and again", pairs::<C, 10>),
    ]
}

/// Locks per 1,000 operations in each row, and the batch of the only zone.
fn measure<C: SimConfig>() -> (Vec<(&'static str, Option<f64>)>, u64) {
    let machine = Machine::<C>::new().ram(16 << 20, 1 << 30).cpus(2);
    // Bytes of pages are not what this is about.
    let machine = machine.options(|options| {
        options.page_poison = false;
        options.init_on_alloc = false;
    });
    let machine = machine.boot();
    let figure = |(name, work): Row<C>| {
        let (operations, locks) = work(&machine);
        let per_thousand = 1_000.0 * locks as f64 / operations as f64;
        (name, (operations > 0).then_some(per_thousand))
    };
    let figures = rows::<C>().map(figure).into();
    let batch = machine.zones().map(|zone| zone.list_limits().batch).max();
    machine.finish();
    (figures, batch.unwrap().into())
}

#[test]
fn locks_taken_are_those_of_the_document() {
    let (tuned, batch) = measure::<Listed<Checked>>();
    let (classic, _) = measure::<Classic<Checked>>();
    let (off, _) = measure::<Checked>();
    // A hit asks nobody; otherwise a lock is taken for a batch.
    let steady = 1_000.0 / batch as f64;
    assert!(batch >= 7 && tuned[0].1 == Some(0.0) && classic[0].1 == Some(0.0));
    // The last batch of a drain is not a whole one.
    for (name, figure) in tuned[1..6].iter().chain(&classic[1..6]) {
        assert!(figure.unwrap() <= steady, "{name}: {figure:?}, {steady}");
    }

    let mut table = String::from("| workload | tuned | classic | off |\n|---|--:|--:|--:|\n");
    let shown = |figure: Option<f64>| figure.map_or("–".into(), |figure| format!("{figure:.1}"));
    for ((row, classic), off) in tuned.iter().zip(&classic).zip(&off) {
        let (tuned, classic, off) = (shown(row.1), shown(classic.1), shown(off.1));
        writeln!(table, "| {} | {tuned} | {classic} | {off} |", row.0).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = [before, BEGIN, &table, END, after].concat();
    if std::env::var_os("MM_UPDATE_BUDGETS").is_some_and(|value| value != "0") {
        fs::write(&path, wanted).unwrap();
        return;
    }
    assert_eq!(document, wanted, "docs/benchmarks.md shows other figures");
}
