//! `serde_json`: records are parsed to a tree, summed up, changed, and written again.

use alloc::string::String;
use core::fmt::Write;

use mm_workload::Random;
use serde_json::{Value, json};

use super::{Outcome, Wrong, expect, text_of};

/// Words with everything that has to be escaped.
const WORDS: [&str; 6] = ["page", "slab \\\"x\\\"", "a\\tb\\n", "été", "\\\\", ""];

/// What of the records is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sums {
    records: u64,
    sizes: u64,
    parts: u64,
    used: u64,
}

pub(super) fn run(bytes: usize, seed: u64) -> Result<Outcome, Wrong> {
    let (text, expected) = make_up(bytes, seed)?;
    let mut tree: Value = serde_json::from_str(&text).map_err(Wrong::new)?;
    expect("sums", sums(&tree), expected)?;
    let again = serde_json::to_string(&tree).map_err(Wrong::new)?;
    expect("the same text", again == text, true)?;
    drop(again);

    // Every second record goes, every other one grows.
    let Some(records) = tree.as_array_mut() else {
        return Err(Wrong::new("no array"));
    };
    let mut number: u64 = 0;
    records.retain_mut(|record| {
        number = number.saturating_add(1);
        record["more"] = json!({ "number": number, "list": [1, 2, 3] });
        number.is_multiple_of(2)
    });
    let left = expected.records / 2;
    let again = serde_json::to_string_pretty(&tree).map_err(Wrong::new)?;
    let back: Value = serde_json::from_str(&again).map_err(Wrong::new)?;
    expect("records that are left", sums(&back).records, left)?;
    expect("what was written and read", back == tree, true)?;
    Ok(Outcome {
        bytes: text.len(),
        items: usize::try_from(expected.records).unwrap_or(usize::MAX),
    })
}

/// Records as `serde_json` writes them: keys in order, no blanks.
fn make_up(bytes: usize, seed: u64) -> Result<(String, Sums), Wrong> {
    let mut random = Random::new(seed);
    let mut sums = Sums::default();
    let mut text = text_of(bytes.saturating_add(1 << 10))?;
    text.push('[');
    while text.len() < bytes {
        if sums.records > 0 {
            text.push(',');
        }
        let (id, size) = (sums.records, random.below(1 << 20));
        let word = WORDS[random.below_index(6)];
        let is_used = random.below(3) == 0;
        write!(text, r#"{{"id":{id},"name":"{word}{id}","parts":["#).map_err(Wrong::new)?;
        let parts = random.below(6);
        for part in 0..parts {
            let comma = if part > 0 { "," } else { "" };
            let value = random.below(1000);
            sums.parts = sums.parts.saturating_add(value);
            write!(text, "{comma}{value}").map_err(Wrong::new)?;
        }
        write!(text, r#"],"size":{size},"used":{is_used},"zone":null}}"#).map_err(Wrong::new)?;
        sums.records = id.saturating_add(1);
        sums.sizes = sums.sizes.saturating_add(size);
        sums.used = sums.used.saturating_add(u64::from(is_used));
    }
    text.push(']');
    Ok((text, sums))
}

fn sums(tree: &Value) -> Sums {
    let mut sums = Sums::default();
    for record in tree.as_array().into_iter().flatten() {
        let size = record["size"].as_u64().unwrap_or_default();
        let parts = record["parts"].as_array().into_iter().flatten();
        let parts = parts.filter_map(Value::as_u64).fold(0, u64::saturating_add);
        let is_used = record["used"].as_bool().unwrap_or_default();
        let is_null = record["zone"].is_null() && record["name"].is_string();
        sums.records = sums.records.saturating_add(u64::from(is_null));
        sums.sizes = sums.sizes.saturating_add(size);
        sums.parts = sums.parts.saturating_add(parts);
        sums.used = sums.used.saturating_add(u64::from(is_used));
    }
    sums
}
