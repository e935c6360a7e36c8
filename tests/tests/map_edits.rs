//! What `mem=` and `memmap=` make of a map: in the order of the command line, highest type first.

use mm::memblock::firmware::FirmwareRegion;
use mm::memblock::params::Params;
use mm::memblock::sanitize::FirmwareMap;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// Usable, but for a reserved hole of 1 MiB at 1 GiB.
const MAP: &[(u64, u64, u32)] = &[(0, 4 * G, 1), (G, M, 2)];

/// Start, size and type of each range.
type Ranges = &'static [(u64, u64, u32)];

#[rustfmt::skip]
const CASES: &[(&str, Ranges)] = &[
    ("", &[(0, G, 1), (G, M, 2), (G + M, 3 * G - M, 1)]),
    ("mem=2G", &[(0, G, 1), (G, M, 2), (G + M, G - M, 1)]),
    // Only what is usable goes.
    ("mem=512M", &[(0, G / 2, 1), (G, M, 2)]),
    ("memmap=512M", &[(0, G / 2, 1), (G, M, 2)]),
    ("mem=3G mem=512M mem=1G", &[(0, G / 2, 1), (G, M, 2)]),
    ("memmap=4K$8K", &[(0, 8 * K, 1), (8 * K, 4 * K, 2), (12 * K, G - 12 * K, 1), (G, M, 2), (G + M, 3 * G - M, 1)]),
    ("memmap=1M#3G,1M!3073M", &[(0, G, 1), (G, M, 2), (G + M, 2 * G - M, 1), (3 * G, M, 3), (3 * G + M, M, 12), (3 * G + 2 * M, G - 2 * M, 1)]),
    // Usable is the weakest type: it fills holes, but not reserved ranges.
    ("memmap=2G@512M", &[(0, G, 1), (G, M, 2), (G + M, 3 * G - M, 1)]),
    ("memmap=1G@4G", &[(0, G, 1), (G, M, 2), (G + M, 4 * G - M, 1)]),
    // A limit takes away what was added before it, not what is added after.
    ("memmap=1G@4G mem=512M", &[(0, G / 2, 1), (G, M, 2)]),
    ("mem=512M memmap=1G@4G", &[(0, G / 2, 1), (G, M, 2), (4 * G, G, 1)]),
    ("mem=512M memmap=1G@4G mem=4608M", &[(0, G / 2, 1), (G, M, 2), (4 * G, G / 2, 1)]),
    // The exact map: nothing else counts, limits before it neither.
    ("mem=1M memmap=exactmap memmap=640K@0 memmap=15M@1M", &[(0, 640 * K, 1), (M, 15 * M, 1)]),
    ("memmap=1G@8G memmap=exactmap,1M@1M,4K$1M", &[(M, 4 * K, 2), (M + 4 * K, M - 4 * K, 1)]),
    ("memmap=exactmap", &[]),
];

#[test]
fn every_command_line_gives_its_map() {
    let entries: Vec<_> = MAP
        .iter()
        .map(|&(start, size, kind)| FirmwareRegion { start, size, kind })
        .collect();
    for (line, expected) in CASES {
        let params = Params::parse(line, |error| panic!("{line}: {error}"));
        let found: Vec<_> = FirmwareMap::new(&entries, 46)
            .edited(&params)
            .ranges()
            .map(|found| {
                let start = found.range.start().as_u64();
                (start, found.range.size(), found.kind.as_e820())
            })
            .collect();
        assert_eq!(found, *expected, "{line}");
    }
}
