//! Tables in Markdown, as `docs/benchmarks.md` shows them, and what was aimed at.

use mm_tests::race::{heading, line};

use crate::contestants::Kind;
use crate::memory::Share;
use crate::race::Row;

/// What times are compared with.
const REFERENCE: &str = "mimalloc";

/// All figures of a contestant.
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) times: [f64; Row::ALL.len()],
    pub(crate) shares: [Option<f64>; Share::ALL.len()],
}

fn reference(figures: &[Figures]) -> &Figures {
    let found = figures.iter().find(|figures| figures.name == REFERENCE);
    found.expect("it is in the race")
}

/// Prints what was measured.
pub(crate) fn tables(figures: &[Figures], rounds: usize) {
    println!(
        "Medians of {rounds} rounds, against {REFERENCE} = 1 (whose row says how long it took).\n"
    );
    heading("times", Row::ALL.into_iter().map(Row::name));
    let reference = reference(figures).times;
    for one in figures {
        let cell = |(ns, base): (&f64, &f64)| match one.name == REFERENCE {
            true => format!("{ns:.1} ns"),
            false => format!("{:.2}", ns / base),
        };
        line(one.name, one.times.iter().zip(&reference).map(cell));
    }
    println!();
    heading("memory", Share::ALL.into_iter().map(Share::name));
    for one in figures {
        let cell =
            |share: &Option<f64>| share.map_or_else(|| "–".into(), |share| format!("{share:.2}"));
        line(one.name, one.shares.iter().map(cell));
    }
}

/// Something that was aimed at.
enum Aim {
    /// A time, against the reference; and whether each crate for kernels is to be slower.
    Time(usize, f64, bool),
    /// A time against that of another row.
    Against(usize, usize, f64),
    /// A share that is to be so much at most, …
    AtMost(usize, f64),
    /// … or at least.
    AtLeast(usize, f64),
    /// A share that each crate for kernels is to have more of.
    Least(usize),
}

const AIMS: [Aim; 13] = [
    Aim::Time(0, 1.1, true),
    Aim::Time(1, 1.1, true),
    Aim::Time(2, 1.1, true),
    Aim::Time(3, 1.1, true),
    Aim::Time(4, 1.1, true),
    Aim::Time(5, 1.1, true),
    Aim::Against(6, 1, 1.1),
    Aim::Time(7, 0.6, false),
    Aim::AtMost(0, 1.15),
    Aim::AtLeast(1, 0.93),
    Aim::AtLeast(2, 0.9),
    Aim::Least(3),
    Aim::Least(4),
];

impl Aim {
    fn text(&self) -> (String, String) {
        let (name, aim) = match *self {
            Self::Time(row, most, is_first) => {
                let others = ["", ", ahead of every crate for kernels"][usize::from(is_first)];
                let aim = format!("≤ {most} × {REFERENCE}{others}");
                (Row::ALL[row].name(), aim)
            }
            Self::Against(row, other, most) => {
                let other = Row::ALL[other].name();
                (Row::ALL[row].name(), format!("≤ {most} × its {other}"))
            }
            Self::AtMost(share, most) => (Share::ALL[share].name(), format!("≤ {most}")),
            Self::AtLeast(share, least) => (Share::ALL[share].name(), format!("≥ {least}")),
            Self::Least(share) => {
                let aim = String::from("ahead of every crate for kernels");
                (Share::ALL[share].name(), aim)
            }
        };
        (name.into(), aim)
    }

    /// What a contestant has reached, and whether that is enough; who is ahead of it if nobody is to be.
    fn reached(&self, one: &Figures, all: &[Figures]) -> String {
        let peers = || all.iter().filter(|other| other.kind == Kind::NoStd);
        let ahead = |is_ahead: &dyn Fn(&Figures) -> bool| {
            let names: Vec<&str> = peers()
                .filter(|peer| is_ahead(peer))
                .map(|peer| peer.name)
                .collect();
            names.join(", ")
        };
        let share = |number: usize| one.shares[number].unwrap_or(f64::NAN);
        let (figure, is_met, ahead) = match *self {
            Self::Time(row, most, is_first) => {
                let figure = one.times[row] / reference(all).times[row];
                let faster = |peer: &Figures| is_first && peer.times[row] <= one.times[row];
                (figure, figure <= most, ahead(&faster))
            }
            Self::Against(row, other, most) => {
                let figure = one.times[row] / one.times[other];
                (figure, figure <= most, String::new())
            }
            Self::AtMost(number, most) => (share(number), share(number) <= most, String::new()),
            Self::AtLeast(number, least) => (share(number), share(number) >= least, String::new()),
            Self::Least(number) => {
                let less =
                    |peer: &Figures| peer.shares[number].is_some_and(|it| it <= share(number));
                (share(number), true, ahead(&less))
            }
        };
        let verdict = match (is_met, ahead.is_empty()) {
            (true, true) => String::from("met"),
            (_, true) => String::from("not met"),
            (_, false) => format!("not met: {ahead} ahead"),
        };
        format!("{figure:.2}, {verdict}")
    }
}

/// Prints, for what was aimed at, what ours has reached.
pub(crate) fn lines(figures: &[Figures]) {
    println!();
    let ours: Vec<&Figures> = figures
        .iter()
        .filter(|one| one.kind == Kind::Ours)
        .collect();
    let names = ours.iter().map(|one| one.name);
    heading("row", std::iter::once("target").chain(names));
    for aim in &AIMS {
        let (name, target) = aim.text();
        let reached = ours.iter().map(|one| aim.reached(one, figures));
        line(&name, std::iter::once(target).chain(reached));
    }
}
