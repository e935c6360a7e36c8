//! What memory contestants take: each row of each contestant in a process of its own, so that nothing that was done
//! before is in it.

use std::alloc::Layout;
use std::fs;
use std::process::{Command, ExitCode};

use mm_tests::race::Random;
use mm_tests::traces::{NAMES, Trace};
use rustix::thread::disable_transparent_huge_pages;

use crate::contestants::{self, Contestant, Kind, Talent};
use crate::race::{BYTES, Effort};
use crate::workloads::{Churn, Replay, SMALL, Touch, any_size};

/// The arena of the rows that fill it.
const ARENA: usize = 16 << 20;
/// What is to be had where objects were.
const BLOCK: usize = 64 << 10;

/// A row whose figure is a share of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Share {
    /// Memory taken over live bytes, after churn.
    Churned,
    /// Live bytes over the arena, when it first has no room.
    Full,
    /// How many 64 KiB blocks can be had once the oldest 80 % of the objects that fill an arena are back, over 80 % of
    /// those that an empty one has.
    GivenBack,
    /// The most memory taken over the most live bytes, of a trace.
    Peak(usize),
}

impl Share {
    pub(crate) const ALL: [Self; 5] = [
        Self::Churned,
        Self::Full,
        Self::GivenBack,
        Self::Peak(0),
        Self::Peak(1),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Churned => "taken / live after churn",
            Self::Full => "live share at first failure",
            Self::GivenBack => "64 KiB blocks given back",
            Self::Peak(0) => "linux61-fsproc, peak / live",
            Self::Peak(_) => "python-json, peak / live",
        }
    }

    /// The word for it on the command line.
    fn word(self) -> String {
        let place = Self::ALL.iter().position(|&share| share == self);
        place.unwrap().to_string()
    }
}

/// The shares of all contestants, where they have any.
pub(crate) fn shares(talents: &[Talent], effort: Effort) -> Vec<[Option<f64>; 5]> {
    eprintln!("memory");
    let of = |talent: &Talent| Share::ALL.map(|share| ask(share, talent.name, effort));
    talents.iter().map(of).collect()
}

/// Starts a process for one row of one contestant.
fn ask(share: Share, name: &str, effort: Effort) -> Option<f64> {
    let program = std::env::current_exe().unwrap();
    let row = format!("{}{}", effort.word, share.word());
    let output = Command::new(program)
        .args(["--memory", &row, name])
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} of {name}: {said}",
        share.name()
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .ok()
}

/// That process.
pub(crate) fn run(row: &str, name: &str) -> ExitCode {
    let talents = contestants::all();
    let talent = talents.iter().find(|talent| talent.name == name);
    let place = row.find(|letter: char| letter.is_ascii_digit());
    let (word, number) = row.split_at(place.unwrap_or(row.len()));
    let share = number
        .parse()
        .ok()
        .and_then(|number: usize| Share::ALL.get(number));
    let Some((talent, &share)) = talent.zip(share) else {
        eprintln!("--memory ROW CONTESTANT is for this program itself");
        return ExitCode::from(2);
    };
    // A huge page would make a byte of it 2 MiB. Where that cannot be had, figures are those of huge pages.
    let _ = disable_transparent_huge_pages(true);
    match (talent.share)(share, Effort::named(word)) {
        Some(figure) => println!("{figure}"),
        None => println!("none"),
    }
    ExitCode::SUCCESS
}

/// One row of a contestant.
pub(crate) fn share<C: Contestant>(share: Share, effort: Effort) -> Option<f64> {
    let has_arena = C::KIND != Kind::Hosted;
    match share {
        Share::Churned => Some(churned::<C>(effort)),
        Share::Full => has_arena.then(|| full::<C>()),
        Share::GivenBack => has_arena.then(|| given_back::<C>()),
        Share::Peak(number) => Some(peak::<C>(number, effort)),
    }
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse::<usize>().ok())
        .unwrap()
        << 10
}

fn churned<C: Contestant>(effort: Effort) -> f64 {
    let mut churn = Churn::new(effort.live, effort.live);
    let mut ops = C::new(BYTES);
    let before = resident();
    churn.fill(&mut ops, Touch::All);
    churn.work(&mut ops, Touch::All);
    let taken = resident().saturating_sub(before);
    taken as f64 / churn.live_bytes() as f64
}

/// Three objects come for each one that goes.
fn full<C: Contestant>() -> f64 {
    let mut ops = C::new(ARENA);
    let mut random = Random::new(6);
    let (mut held, mut live) = (Vec::new(), 0);
    for number in 0_usize.. {
        let layout = any_size(&mut random);
        let Some(object) = ops.alloc(layout) else {
            break;
        };
        live += layout.size();
        held.push((object, layout));
        if number % 3 == 2 {
            let (object, layout) = held.swap_remove(random.below(held.len()));
            live -= layout.size();
            ops.free(object, layout);
        }
    }
    live as f64 / ARENA as f64
}

fn given_back<C: Contestant>() -> f64 {
    let block = Layout::from_size_align(BLOCK, 8).unwrap();
    let blocks = |ops: &mut C| std::iter::from_fn(|| ops.alloc(block)).count();
    let before = blocks(&mut C::new(ARENA));

    let mut ops = C::new(ARENA);
    let objects: Vec<_> = std::iter::from_fn(|| ops.alloc(SMALL)).collect();
    for &object in &objects[..objects.len() / 5 * 4] {
        ops.free(object, SMALL);
    }
    ops.shrink();
    blocks(&mut ops) as f64 / (0.8 * before as f64)
}

/// Memory is looked at two hundred times.
fn peak<C: Contestant>(number: usize, effort: Effort) -> f64 {
    let trace: &'static Trace = Box::leak(Box::new(Trace::load(NAMES[number])));
    let mut replay = Replay::new(trace, effort.events);
    let step = (replay.events() / 200).max(1);
    let mut ops = C::new(BYTES);
    let before = resident();
    let mut most = 0;
    replay.work(&mut ops, Touch::All, |event| {
        if event % step == 0 {
            most = resident().max(most);
        }
    });
    most.saturating_sub(before) as f64 / trace.peak_live_bytes as f64
}
