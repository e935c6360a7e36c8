//! `regex`: a log is searched for what was put into it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use mm_workload::Random;
use regex::bytes::Regex;

use super::{Outcome, Wrong, expect, text_of};

const WORDS: [&str; 8] = [
    "page",
    "order",
    "zone",
    "buddy",
    "slab",
    "frame",
    "node",
    "watermark",
];

/// What was put into the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Known {
    lines: usize,
    failures: usize,
    orders: usize,
    addresses: usize,
    pairs: usize,
}

pub(super) fn run(bytes: usize, seed: u64) -> Result<Outcome, Wrong> {
    let (text, known) = make_up(bytes, seed)?;
    let log = text.as_bytes();
    let all = |pattern: &str| -> Result<(Regex, usize), Wrong> {
        let regex = Regex::new(pattern).map_err(Wrong::new)?;
        let count = regex.find_iter(log).count();
        Ok((regex, count))
    };
    let (_, lines) = all(r"(?m-u)^\[ *[0-9]+\.[0-9]{6}\] ")?;
    expect("lines", lines, known.lines)?;
    let (_, addresses) = all(r"(?-u)0x[0-9a-f]{8,16}\b")?;
    expect("addresses", addresses, known.addresses)?;
    let (_, pairs) = all(r"(?-u)\b(buddy|slab) (frame|node)\b")?;
    expect("pairs of words", pairs, known.pairs)?;

    let (failure, failures) = all(r"(?-u)failure: order:([0-9]+), mode:(0x[0-9a-f]+)")?;
    expect("failures", failures, known.failures)?;
    let mut orders: usize = 0;
    let mut modes: Vec<String> = Vec::new();
    for found in failure.captures_iter(log) {
        let part = |number| found.get(number).map(|part| part.as_bytes());
        let order = part(1).and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok());
        orders = orders.saturating_add(order.unwrap_or_default());
        let mode = part(2).and_then(|mode| core::str::from_utf8(mode).ok());
        modes.extend(mode.map(String::from));
    }
    expect("orders", orders, known.orders)?;
    expect("modes", modes.len(), known.failures)?;
    // A text of its own, as long as the log.
    let short = failure.replace_all(log, &b"failed"[..]);
    let gone = failure.find_iter(&short).count();
    expect("failures that are left", gone, 0)?;
    let items = [lines, addresses, pairs, failures];
    Ok(Outcome {
        bytes: text.len(),
        items: items.into_iter().fold(0, usize::saturating_add),
    })
}

fn make_up(bytes: usize, seed: u64) -> Result<(String, Known), Wrong> {
    let mut random = Random::new(seed);
    let mut known = Known::default();
    let mut text = text_of(bytes.saturating_add(1 << 10))?;
    while text.len() < bytes {
        let (line, fraction) = (known.lines, random.below(1_000_000));
        write!(text, "[{line:5}.{fraction:06}] ").map_err(Wrong::new)?;
        known.lines = line.saturating_add(1);
        let mut before = "";
        for _ in 0..random.below(8) {
            let word = WORDS[random.below_index(8)];
            let pairs = matches!(before, "buddy" | "slab") && matches!(word, "frame" | "node");
            known.pairs = known.pairs.saturating_add(usize::from(pairs));
            before = word;
            write!(text, "{word} ").map_err(Wrong::new)?;
        }
        match random.below(10) {
            0 => {
                let (order, mode) = (random.below_index(11), random.below(1 << 20));
                write!(text, "failure: order:{order}, mode:{mode:#x} ").map_err(Wrong::new)?;
                known.failures = known.failures.saturating_add(1);
                known.orders = known.orders.saturating_add(order);
            }
            1 | 2 => {
                let address = random.below(1 << 30) | 1 << 31;
                write!(text, "at {address:#010x}").map_err(Wrong::new)?;
                known.addresses = known.addresses.saturating_add(1);
            }
            _ => {}
        }
        text.push('\n');
    }
    Ok((text, known))
}
