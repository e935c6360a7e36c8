//! Random firmware maps and operations against naive interval sets.
//!
//! The models share nothing with what they check: wide integers, no sorting tricks, every
//! question answered by looking at everything.

use std::cell::RefCell;

use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::params::Params;
use mm::memblock::sanitize::FirmwareMap;
use mm::memblock::setup::{LowMemory, SetupError, SetupPolicy, add_firmware_map};
use mm::memblock::{Direction, Memblock, Region};
use mm_tests::seed::check;
use mm_tests::window::Window;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

const MAX: u64 = u64::MAX;
/// Where tables may grow: RAM in the first MiB.
const WINDOW: u64 = 0x1_0000;
const WINDOW_PAGES: usize = 48;
const WINDOW_END: u64 = WINDOW + 48 * 4096;

const SOFT_RESERVED: u32 = 0xefff_ffff;

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0_u64..64).prop_map(|n| 0xf_0000 + n * 0x800),
        4 => 0xf_0000_u64..0x11_0000,
        2 => 0_u64..0x20_0000,
        2 => 0_u64..1 << 34,
        1 => (0_u64..0x2_0000).prop_map(|below| MAX - below),
        1 => (0_u64..0x4000).prop_map(|n| (1 << 52) - 0x2000 + n),
        1 => any::<u64>(),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        4 => (1_u64..32).prop_map(|n| n * 0x800),
        4 => 0_u64..0x4000,
        2 => 0_u64..1 << 33,
        1 => any::<u64>(),
        1 => Just(MAX),
    ]
}

fn kind() -> impl Strategy<Value = u32> {
    prop_oneof![
        12 => Just(1),
        6 => 0_u32..14,
        1 => Just(SOFT_RESERVED),
        1 => any::<u32>(),
    ]
}

fn entries() -> impl Strategy<Value = Vec<FirmwareRegion>> {
    let few = vec(entry(), 1..12);
    let many = vec(entry(), 12..64);
    prop_oneof![40 => few, 4 => many, 1 => crowd()]
}

fn entry() -> impl Strategy<Value = FirmwareRegion> {
    let parts = (address(), size(), kind());
    parts.prop_map(|(start, size, kind)| FirmwareRegion { start, size, kind })
}

/// Hundreds of small entries, so that tables grow.
fn crowd() -> impl Strategy<Value = Vec<FirmwareRegion>> {
    let size = prop_oneof![Just(0x800), Just(0x1000), Just(0x1800), Just(0)];
    let entry = (0_u64..2048, size, kind());
    let entry = entry.prop_map(|(place, size, kind)| FirmwareRegion {
        start: 0x10_0000 + place * 0x1000,
        size,
        kind,
    });
    vec(entry, 200..=512)
}

/// Bytes from `start` to `end`, in a type that nothing overflows.
type Span = (u128, u128);

fn spans(entry: &FirmwareRegion, limit: u128) -> Option<Span> {
    let start = u128::from(entry.start).min(limit);
    let end = (u128::from(entry.start) + u128::from(entry.size)).min(limit);
    // The last byte of the 64-bit space cannot be named by a half-open range.
    let end = end.min(u128::from(MAX));
    (start < end).then_some((start, end))
}

/// What the map says, by looking at every entry for every piece between two borders.
fn sanitised(entries: &[FirmwareRegion], bits: u32) -> Vec<(Span, u32)> {
    let limit = 1_u128 << bits;
    let claims: Vec<(Span, u32)> = entries
        .iter()
        .filter_map(|entry| Some((spans(entry, limit)?, entry.kind)))
        .collect();
    let mut borders: Vec<u128> = claims
        .iter()
        .flat_map(|(span, _)| [span.0, span.1])
        .collect();
    borders.sort_unstable();
    borders.dedup();
    let mut found: Vec<(Span, u32)> = Vec::new();
    for piece in borders.windows(2) {
        let (start, end) = (piece[0], piece[1]);
        let covers = |claim: &&(Span, u32)| claim.0.0 <= start && end <= claim.0.1;
        let kind = claims.iter().filter(covers).map(|claim| claim.1).max();
        let kind = kind.unwrap_or(0);
        let keeps_borders = kind == 12 || kind == SOFT_RESERVED;
        match found.last_mut() {
            _ if kind == 0 => {}
            Some((last, of)) if last.1 == start && *of == kind && !keeps_borders => last.1 = end,
            _ => found.push(((start, end), kind)),
        }
    }
    found
}

/// A naive set of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bytes(Vec<Span>);

impl Bytes {
    fn add(&mut self, span: Span) {
        self.remove(span);
        if span.0 < span.1 {
            self.0.push(span);
        }
        self.0.sort_unstable();
        let mut joined: Vec<Span> = Vec::new();
        for span in self.0.drain(..) {
            match joined.last_mut() {
                Some(last) if last.1 == span.0 => last.1 = span.1,
                _ => joined.push(span),
            }
        }
        self.0 = joined;
    }

    fn remove(&mut self, (start, end): Span) {
        if start >= end {
            return;
        }
        let cut = |&(from, to): &Span| [(from, to.min(start)), (from.max(end), to)];
        let rest = self.0.iter().flat_map(cut);
        self.0 = rest.filter(|(from, to)| from < to).collect();
    }

    fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        other.0.iter().for_each(|span| rest.remove(*span));
        rest
    }

    fn pages(&self) -> Self {
        let inward = |&(start, end): &Span| (start.div_ceil(4096) * 4096, end / 4096 * 4096);
        let pages = self.0.iter().map(inward);
        Self(pages.filter(|(start, end)| start < end).collect())
    }
}

fn of_range(range: PhysRange) -> Span {
    (range.start().as_u64().into(), range.end().as_u64().into())
}

fn of_table(table: &[Region]) -> Bytes {
    Bytes(table.iter().map(|region| of_range(region.range)).collect())
}

fn bits() -> impl Strategy<Value = u32> {
    prop_oneof![Just(52), Just(46), Just(36), 0_u32..53]
}

#[test]
fn any_map_is_sanitised_as_the_model_says() {
    check(
        "any_map",
        20_000,
        &(entries(), bits()),
        |(entries, bits)| {
            let map = FirmwareMap::new(&entries, bits);
            let found: Vec<_> = map
                .ranges()
                .map(|found| (of_range(found.range), found.kind.as_e820()))
                .collect();
            prop_assert_eq!(found, sanitised(&entries, bits));
            Ok(())
        },
    );
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Add,
    Remove,
    Reserve,
    Free,
}

fn operations() -> impl Strategy<Value = Vec<(Verb, u64, u64)>> {
    let verb = prop_oneof![
        3 => Just(Verb::Add),
        2 => Just(Verb::Remove),
        4 => Just(Verb::Reserve),
        2 => Just(Verb::Free),
    ];
    vec((verb, address(), size()), 0..12)
}

/// Whether a range is clear of the RAM that tables grow into.
fn spares_the_window(start: u64, size: u64) -> bool {
    start >= WINDOW_END || start.saturating_add(size) <= WINDOW
}

/// Memory and reserved as they should be.
struct Model {
    memory: Bytes,
    reserved: Bytes,
}

impl Model {
    fn boot(entries: &[FirmwareRegion]) -> Self {
        let mut memory = Bytes::default();
        let mut reserved = Bytes::default();
        for (span, kind) in sanitised(entries, 52) {
            match kind {
                1 => memory.add(span),
                SOFT_RESERVED => reserved.add(span),
                _ => {}
            }
        }
        memory.remove((0, 0x1000));
        memory.remove((0xa_0000, 0x10_0000));
        memory.add((WINDOW.into(), WINDOW_END.into()));
        reserved.add((0, 0x1_0000));
        Self {
            memory: memory.pages(),
            reserved,
        }
    }

    fn apply(&mut self, verb: Verb, span: Span) {
        match verb {
            Verb::Add => self.memory.add(span),
            Verb::Remove => self.memory.remove(span),
            Verb::Reserve => self.reserved.add(span),
            Verb::Free => self.reserved.remove(span),
        }
    }

    /// Compares everything that can be asked.
    fn compare(&self, memblock: Memblock) -> Result<(), TestCaseError> {
        prop_assert_eq!(memblock.validate(), Ok(()));
        prop_assert_eq!(of_table(memblock.memory()), self.memory.clone());
        // The window holds memblock's own arrays; outside, all is as modelled.
        let mut outside = of_table(memblock.reserved());
        outside.remove((WINDOW.into(), WINDOW_END.into()));
        prop_assert_eq!(&outside, &self.reserved);

        let free = self.memory.without(&of_table(memblock.reserved()));
        let up: Vec<_> = memblock.free_ranges().map(|f| of_range(f.range)).collect();
        prop_assert_eq!(&up, &free.0);
        let mut down: Vec<_> = memblock
            .free_ranges()
            .rev()
            .map(|f| of_range(f.range))
            .collect();
        down.reverse();
        prop_assert_eq!(&down, &free.0);
        // The arrays in the window come back at the end.
        let mut frames = Bytes::default();
        let mut count = 0;
        memblock.hand_over(&mut |run, _| {
            count += run.frames.frames();
            frames.add(of_range(run.frames.addrs()));
        });
        let expected = self.memory.without(&self.reserved).pages();
        prop_assert_eq!(&frames, &expected);
        let pages = |span: &Span| (span.1 - span.0) / 4096;
        prop_assert_eq!(
            u128::from(count),
            expected.0.iter().map(pages).sum::<u128>()
        );
        Ok(())
    }
}

fn run(
    window: &mut Window,
    entries: &[FirmwareRegion],
    operations: &[(Verb, u64, u64)],
) -> Result<(), TestCaseError> {
    let mut memblock = window.memblock();
    memblock.set_direction(Direction::BottomUp);
    memblock.set_current_limit(PhysAddr::new(WINDOW_END));
    memblock.add(window, window.range()).unwrap();
    memblock.allow_growth();
    let policy = SetupPolicy {
        phys_bits: 52,
        low_memory: LowMemory::HandOut,
        params: &Params::NONE,
    };
    let booted = add_firmware_map(&mut memblock, window, entries, &policy, &mut |_| {});
    prop_assert!(!matches!(booted, Err(SetupError::Table(_))), "{booted:?}");
    let mut model = Model::boot(entries);
    for (verb, start, size) in operations {
        // Below, RAM that is freed would be taken for tables, which cannot be reached there.
        if *start < WINDOW_END {
            continue;
        }
        let range = PhysRange::from_size(PhysAddr::new(*start), *size);
        match verb {
            Verb::Add => memblock.add(window, range).unwrap(),
            Verb::Remove => memblock.remove(window, range).unwrap(),
            Verb::Reserve => memblock.reserve(window, range).unwrap(),
            Verb::Free => memblock.free(window, range).unwrap(),
        }
        model.apply(*verb, of_range(range));
    }
    model.compare(memblock)
}

#[test]
fn any_map_and_any_operations_give_the_models_memory_reserved_and_free() {
    let window = RefCell::new(Window::new(WINDOW, WINDOW_PAGES));
    check(
        "any_operations",
        20_000,
        &(entries(), operations()),
        |(entries, operations)| {
            let spares = |entry: &FirmwareRegion| {
                entry.kind != SOFT_RESERVED || spares_the_window(entry.start, entry.size)
            };
            let entries: Vec<_> = entries.into_iter().filter(spares).collect();
            run(&mut window.borrow_mut(), &entries, &operations)
        },
    );
}

/// Command lines: words that are almost right, and anything at all.
fn command_line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => proptest::sample::select(vec![
            "mem=", "memmap=", "kernelcore=", "movablecore=", "exactmap", "mirror", "@", "#", "$",
            "!", "%", ",", " ", "\"", "--", "=", "0x", "0", "K", "M", "G", "E", "é",
        ])
        .prop_map(str::to_owned),
        2 => any::<u64>().prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| format!("{number:#x}")),
        1 => any::<String>(),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

#[test]
fn any_text_is_a_command_line() {
    check(
        "any_text",
        20_000,
        &(command_line(), entries()),
        |(line, entries)| {
            let params = Params::parse(&line, |error| drop(error.to_string()));
            let mut end = PhysAddr::ZERO;
            for found in FirmwareMap::new(&entries, 46).edited(&params).ranges() {
                prop_assert!(!found.range.is_empty() && end <= found.range.start());
                end = found.range.end();
            }
            Ok(())
        },
    );
}
