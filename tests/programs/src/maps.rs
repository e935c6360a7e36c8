//! `hashbrown`: the words of a text are counted.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use hashbrown::HashMap;
use mm_workload::Random;

use super::{Outcome, Wrong, expect, text_of};

/// Different words, at most.
const WORDS: usize = 50_000;

pub(super) fn run(bytes: usize, seed: u64) -> Result<Outcome, Wrong> {
    let (text, counts) = make_up(bytes, seed)?;
    let mut found: HashMap<String, u32> = HashMap::new();
    let mut places: HashMap<u64, Vec<u32>> = HashMap::new();
    for (place, word) in (0_u32..).zip(text.split_ascii_whitespace()) {
        let count = found.entry_ref(word).or_default();
        *count = count.saturating_add(1);
        let length = u64::try_from(word.len()).unwrap_or_default();
        places.entry(length).or_default().push(place);
    }
    let words = counts.iter().filter(|&&count| count > 0).count();
    expect("words", found.len(), words)?;
    let all = places.values().map(Vec::len).fold(0, usize::saturating_add);
    let sum = counts.iter().fold(0_usize, |sum, &count| {
        sum.saturating_add(usize::try_from(count).unwrap_or_default())
    });
    expect("places", all, sum)?;

    // Every word goes, and comes back with its number.
    let mut name = String::new();
    for (number, &count) in (0_u64..).zip(&counts) {
        name.clear();
        spell(number, &mut name)?;
        let expected = (count > 0).then_some(count);
        expect(
            "how often a word comes",
            found.remove(name.as_str()),
            expected,
        )?;
        if number.is_multiple_of(2) {
            found.insert(name.clone(), count);
        }
    }
    found.shrink_to_fit();
    expect("words that are left", found.len(), counts.len().div_ceil(2))?;
    Ok(Outcome {
        bytes: text.len(),
        items: all,
    })
}

/// A text, and how often each word comes in it.
fn make_up(bytes: usize, seed: u64) -> Result<(String, Vec<u32>), Wrong> {
    let mut random = Random::new(seed);
    let mut text = text_of(bytes.saturating_add(1 << 10))?;
    let mut counts = vec![0; WORDS];
    while text.len() < bytes {
        // Some words come much more often than others.
        let below = random.below_index(WORDS).saturating_add(1);
        let number = random.below_index(below);
        spell(u64::try_from(number).unwrap_or_default(), &mut text)?;
        text.push(' ');
        let count: &mut u32 = &mut counts[number];
        *count = count.saturating_add(1);
    }
    Ok((text, counts))
}

/// The word with a number; those of high numbers are long.
fn spell(number: u64, into: &mut String) -> Result<(), Wrong> {
    let long = number.saturating_mul(0x9e37_79b9);
    match number % 4 {
        0 => write!(into, "w{number:x}"),
        1 => write!(into, "word-{number}"),
        2 => write!(into, "{number:x}-{long:x}"),
        _ => write!(into, "{number}:{long:024}"),
    }
    .map_err(Wrong::new)
}
