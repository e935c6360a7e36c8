//! How a free block was halved for requests, and merged again: a drawing (SVG), a row for each step.

use core::fmt::Write as _;

use mm::report::EventKind;

use crate::history::{Happening, History};
use crate::owner::{Owner, Rgb, Type};

/// Rows of a drawing, at most.
const ROWS: usize = 48;
/// Pixels: of the drawing of a block, of a row, and of the text beside it.
const WIDTH: u64 = 640;
const ROW: u64 = 18;
const TEXT: u64 = 280;

/// What a part of the block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Free,
    /// Taken off the free areas: on a list, or on its way.
    Out,
    Used,
}

impl Part {
    const fn colour(self) -> Rgb {
        match self {
            Self::Free => Owner::Free(Type::Movable).colour(),
            Self::Out => Owner::PerCpu.colour(),
            Self::Used => Owner::Used.colour(),
        }
    }
}

/// A block in parts: first frame, frames and what each is, without gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Parts(Vec<(u64, u64, Part)>);

impl Parts {
    /// Makes `count` frames from `first` on one part: whatever was there is cut.
    fn set(&mut self, (first, count): (u64, u64), part: Part) {
        let end = first + count;
        let mut parts = Vec::new();
        for &(start, frames, what) in &self.0 {
            let stop = start + frames;
            if start < first {
                parts.push((start, stop.min(first) - start, what));
            }
            if stop > end {
                let from = start.max(end);
                parts.push((from, stop - from, what));
            }
        }
        parts.push((first, count, part));
        parts.sort_unstable_by_key(|part| part.0);
        self.0 = parts.into_iter().filter(|part| part.1 > 0).collect();
    }

    fn apply(&mut self, happening: &Happening) {
        let Some((first, count)) = happening.frames() else {
            return;
        };
        let part = match happening.event.kind {
            EventKind::Take => Part::Out,
            EventKind::Alloc => Part::Used,
            EventKind::Free => Part::Out,
            // The upper half stays free.
            _ => Part::Free,
        };
        self.set((first, count), part);
    }
}

/// The latest story with the most splits: the block, and what happened to its frames from when it was whole.
fn story(history: &History) -> Option<((u64, u64), Vec<&Happening>)> {
    let mut best: Option<(usize, (u64, u64), Vec<&Happening>)> = None;
    for (place, happening) in history.events.iter().enumerate() {
        let Some(block) = happening.frames().filter(|block| block.1 > 1) else {
            continue;
        };
        if happening.event.kind != EventKind::Take {
            continue;
        }
        let is_inside = |other: &&Happening| {
            other.frames().is_some_and(|(first, count)| {
                first >= block.0 && first + count <= block.0 + block.1
            })
        };
        let rest = history.events.iter().skip(place);
        let events: Vec<_> = rest.filter(is_inside).take(ROWS).collect();
        let of = |kind| {
            events
                .iter()
                .filter(|event| event.event.kind == kind)
                .count()
        };
        // One that comes to its end tells more.
        let worth = of(EventKind::Split) + 2 * of(EventKind::Merge);
        if of(EventKind::Split) > 0 && best.as_ref().is_none_or(|best| best.0 <= worth) {
            best = Some((worth, block, events));
        }
    }
    best.map(|(_, block, events)| (block, events))
}

/// The drawing; nothing if no block was halved in what is known.
#[must_use]
pub fn svg(history: &History) -> Option<String> {
    let ((start, frames), events) = story(history)?;
    let height = ROW * (events.len() as u64 + 3);
    let width = WIDTH + TEXT;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"11\">"
    );
    let _ = writeln!(
        out,
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#0d1117\"/>"
    );
    let title = format!(
        "frames {start:#x} to {:#x}: green free, light taken, red in use",
        start + frames - 1
    );
    text(&mut out, 4, 0, &title);
    let mut parts = Parts(vec![(start, frames, Part::Free)]);
    row(&mut out, 1, start, frames, &parts);
    text(&mut out, WIDTH + 8, 1, "before");
    for (number, happening) in (2..).zip(&events) {
        parts.apply(happening);
        row(&mut out, number, start, frames, &parts);
        let words = format!(
            "CPU {} {} {}",
            happening.cpu,
            happening.event.kind.name(),
            happening.describe()
        );
        text(&mut out, WIDTH + 8, number, &words);
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn row(out: &mut String, number: u64, start: u64, frames: u64, parts: &Parts) {
    for &(first, count, part) in &parts.0 {
        let x = (first - start) * WIDTH / frames;
        let width = ((first - start + count) * WIDTH / frames)
            .saturating_sub(x)
            .max(1);
        let [red, green, blue] = part.colour();
        let y = number * ROW + 2;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" \
             fill=\"#{red:02x}{green:02x}{blue:02x}\" stroke=\"#0d1117\"/>",
            ROW - 4
        );
    }
}

fn text(out: &mut String, x: u64, number: u64, words: &str) {
    let y = number * ROW + 13;
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" fill=\"#c9d1d9\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm::addr::{Order, Pfn};
    use mm::report::Event;

    fn history(events: &[(EventKind, u64, u8)]) -> History {
        let events = (0..)
            .zip(events)
            .map(|(time, &(kind, pfn, order))| Happening {
                time,
                cpu: 0,
                event: Event::block(kind, Pfn::new(pfn), Order::new(order).unwrap_or_default()),
            });
        History {
            events: events.collect(),
            ..History::default()
        }
    }

    #[test]
    fn a_block_is_halved_and_whole_again() {
        use EventKind::{Alloc, Free, Give, Merge, Split, Take};
        let history = history(&[
            (Take, 0x40, 2),
            (Split, 0x42, 1),
            (Split, 0x41, 0),
            (Alloc, 0x40, 0),
            // Somewhere else.
            (Alloc, 0x100, 0),
            (Free, 0x40, 0),
            (Give, 0x40, 0),
            (Merge, 0x40, 1),
            (Merge, 0x40, 2),
        ]);
        let (block, events) = story(&history).unwrap_or_default();
        assert_eq!((block, events.len()), ((0x40, 4), 8));
        let mut parts = Parts(vec![(0x40, 4, Part::Free)]);
        let mut seen = Vec::new();
        for event in events {
            parts.apply(event);
            seen.push(parts.0.len());
        }
        // One, two, three parts, and back.
        assert_eq!(seen, [1, 2, 3, 3, 3, 3, 2, 1]);
        assert_eq!(parts.0, [(0x40, 4, Part::Free)]);
        let drawing = svg(&history).unwrap_or_default();
        // The background, and a row before with one part.
        let rows: usize = seen.iter().sum();
        assert_eq!(drawing.matches("<rect").count(), 2 + rows);
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"));
        assert!(!drawing.contains("0x100"));
    }

    #[test]
    fn without_a_split_there_is_nothing_to_draw() {
        assert_eq!(svg(&History::default()), None);
        assert_eq!(
            svg(&history(&[
                (EventKind::Take, 0, 3),
                (EventKind::Alloc, 0, 3)
            ])),
            None
        );
    }
}
