//! What programs and a kernel asked of their allocators, recorded: `tests/data/traces`, whose README says how each was
//! recorded and what a line means.

use std::alloc::Layout;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::str::FromStr;

use flate2::read::GzDecoder;

/// The names of all traces.
pub const NAMES: [&str; 2] = ["linux61-fsproc", "python-json"];

/// What is done to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// It is allocated.
    Alloc(Layout),
    /// It is given back.
    Free,
    /// It has another size from now on; what is in both stays.
    Resize(usize),
}

/// One line of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What is done.
    pub op: Op,
    /// The object's place in a table of [`Trace::slots`]; it is another object's after the free.
    pub slot: usize,
    /// The CPU, or the thread, that did it.
    pub thread: usize,
}

/// A trace as it was recorded.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its name.
    pub name: &'static str,
    /// What happened, in this order.
    pub events: Vec<Event>,
    /// The most objects that are alive at once.
    pub slots: usize,
    /// The most bytes that are asked for by objects alive at once.
    pub peak_live_bytes: usize,
    /// Objects that nobody gives back.
    pub live_at_end: usize,
}

impl Trace {
    /// Reads one of [`NAMES`].
    ///
    /// # Panics
    /// If there is none, or it is not as its README says.
    #[must_use]
    pub fn load(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/traces");
        let file = File::open(folder.join(format!("{name}.csv.gz"))).unwrap();
        let mut trace = Self {
            name,
            events: Vec::new(),
            slots: 0,
            peak_live_bytes: 0,
            live_at_end: 0,
        };
        for line in BufReader::new(GzDecoder::new(file)).lines() {
            let line = line.unwrap();
            match line.strip_prefix('#') {
                Some(totals) => trace.note(totals),
                None => trace.events.push(event(&line)),
            }
        }
        assert!(trace.slots > 0 && trace.events.iter().all(|event| event.slot < trace.slots));
        trace
    }

    /// Takes totals from a line of the head.
    fn note(&mut self, totals: &str) {
        let named = totals
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        for (key, value) in named {
            match key {
                "slots" => self.slots = number(value),
                "peak_live_bytes" => self.peak_live_bytes = number(value),
                "live_at_end" => self.live_at_end = number(value),
                _ => {}
            }
        }
    }
}

fn number<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn event(line: &str) -> Event {
    let fields: Vec<&str> = line.split(',').collect();
    let [op, slot, size, align, thread] = fields[..] else {
        panic!("five fields: {line}");
    };
    // A size of 0 is read as 1.
    let size = number::<usize>(size).max(1);
    Event {
        op: match op {
            "a" => Op::Alloc(Layout::from_size_align(size, number(align)).unwrap()),
            "r" => Op::Resize(size),
            "f" => Op::Free,
            other => panic!("what is {other}?"),
        },
        slot: number(slot),
        thread: number(thread),
    }
}
