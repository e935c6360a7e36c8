//! The kernel's address space as a drawing (SVG): each region with what is mapped in it, by rights and size of pages.

use core::fmt::Write as _;

use mm::config::Layout;

use crate::areas::{self, Area, State};
use crate::guest::Guest;
use crate::mapped::{self, Mapped};

/// Pixels: of a bar, of what is beside it, of a row, and of a bar's height.
const WIDTH: u64 = 640;
const MARGIN: u64 = 8;
const ROW: u64 = 18;
const BAR: u64 = 28;
/// Areas that are listed by name, the largest first.
const LISTED: usize = 12;

/// Rights, as [`Mapped::rights`] has them, and their colours.
const COLOURS: [(&str, &str); 4] = [
    ("r-x", "#2b5fa8"),
    ("r--", "#5c6670"),
    ("rw-", "#2f8f57"),
    ("rwx", "#ff3b30"),
];
/// Sizes of pages, and what they are called.
const SIZES: [(u32, &str); 3] = [(12, "4K"), (21, "2M"), (30, "1G")];

/// Bytes in words.
fn size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M")];
    let unit = units.iter().find(|(shift, _)| bytes >> shift > 0);
    let (shift, name) = unit.copied().unwrap_or((10, "K"));
    let tenths = (u128::from(bytes) * 10) >> shift;
    match tenths % 10 {
        0 => format!("{}{name}", tenths / 10),
        rest => format!("{}.{rest}{name}", tenths / 10),
    }
}

/// Bytes that are mapped with rights and by pages of a size.
#[must_use]
pub fn bytes<'m>(mapped: impl IntoIterator<Item = &'m Mapped>, rights: &str, page: u32) -> u64 {
    let alike = mapped
        .into_iter()
        .filter(|run| run.rights() == rights && run.page == page);
    alike.map(Mapped::bytes).fold(0, u64::saturating_add)
}

/// Draws a kernel's addresses; regions are the reference kernel's, and what lies elsewhere is shown as that.
#[must_use]
pub fn draw(guest: &Guest, title: &str) -> String {
    let (mapped, areas) = (mapped::kernel(guest), areas::all(guest));
    svg(title, &Layout::LINUX_LIKE, &mapped, &areas)
}

/// The drawing of what is mapped, with the regions of a layout.
#[must_use]
pub fn svg(title: &str, layout: &Layout, mapped: &[Mapped], areas: &[Area]) -> String {
    let mut drawing = Drawing {
        out: String::new(),
        y: ROW,
    };
    drawing.text("#ffffff", &format!("{title}: kernel addresses"));
    drawing.legend();
    for (name, range) in layout.regions() {
        if range.is_empty() {
            continue;
        }
        let (start, last) = (range.start().as_u64(), range.end().as_u64().wrapping_sub(1));
        let inside: Vec<_> = mapped
            .iter()
            .filter(|run| run.start >= start && run.start <= last)
            .collect();
        drawing.region(name, (start, last), &inside);
        if name == "vmalloc" {
            drawing.areas(areas);
        }
    }
    let elsewhere: Vec<_> = mapped
        .iter()
        .filter(|run| {
            let regions = layout.regions();
            !regions.iter().any(|(_, range)| {
                let last = range.end().as_u64().wrapping_sub(1);
                !range.is_empty() && (range.start().as_u64()..=last).contains(&run.start)
            })
        })
        .collect();
    if let (Some(first), Some(end)) = (elsewhere.first(), elsewhere.last()) {
        drawing.region("elsewhere", (first.start, end.last), &elsewhere);
    }
    let (width, height) = (WIDTH + 2 * MARGIN, drawing.y + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#0d1117\"/>\n{}</svg>\n",
        drawing.out
    )
}

struct Drawing {
    out: String,
    y: u64,
}

impl Drawing {
    fn text(&mut self, colour: &str, words: &str) {
        let words = words
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let y = self.y;
        let _ = writeln!(
            self.out,
            "<text x=\"{MARGIN}\" y=\"{y}\" fill=\"{colour}\">{words}</text>"
        );
        self.y += ROW;
    }

    fn legend(&mut self) {
        for (number, (rights, colour)) in (0..).zip(COLOURS) {
            let (x, y) = (MARGIN + number * 80, self.y - 10);
            let _ = writeln!(
                self.out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"{}\" fill=\"#c9d1d9\">{rights}</text>",
                x + 16,
                self.y
            );
        }
        self.y += ROW;
    }

    /// A region: what it is, how much of it is mapped how, and where.
    fn region(&mut self, name: &str, (start, last): (u64, u64), mapped: &[&Mapped]) {
        self.y += ROW / 2;
        let all = size(last.wrapping_sub(start).saturating_add(1));
        self.text("#ffffff", &format!("{name}: {start:#018x}, {all}"));
        let (Some(first), Some(end)) = (mapped.first(), mapped.last()) else {
            self.text("#8a939e", "nothing is mapped");
            return;
        };
        let mut words = String::new();
        for (rights, _) in COLOURS {
            for (page, unit) in SIZES {
                let bytes = bytes(mapped.iter().copied(), rights, page);
                if bytes > 0 {
                    let _ = write!(words, "{} {rights} by {unit}   ", size(bytes));
                }
            }
        }
        self.text("#c9d1d9", words.trim_end());
        // Drawn from the first mapped byte to the last one.
        let (from, span) = (first.start, end.last.wrapping_sub(first.start));
        let place = |at: u64| {
            let part = u128::from(at.wrapping_sub(from)) * u128::from(WIDTH);
            u64::try_from(part / (u128::from(span) + 1)).unwrap_or(WIDTH)
        };
        let y = self.y - 10;
        let _ = writeln!(
            self.out,
            "<rect x=\"{MARGIN}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{BAR}\" fill=\"#161b22\"/>"
        );
        for run in mapped {
            let colour = COLOURS.iter().find(|(rights, _)| *rights == run.rights());
            let colour = colour.map_or("#ffffff", |(_, colour)| colour);
            let x = place(run.start);
            let width = place(run.last).saturating_sub(x).max(1);
            let _ = writeln!(
                self.out,
                "<rect x=\"{}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" fill=\"{colour}\"/>",
                x + MARGIN
            );
        }
        self.y += BAR;
        self.text("#8a939e", &format!("{from:#x} to {:#x} is drawn", end.last));
    }

    /// The largest areas, and who has them.
    fn areas(&mut self, areas: &[Area]) {
        let mut areas: Vec<_> = areas
            .iter()
            .filter(|area| area.state == State::InUse)
            .collect();
        areas.sort_by_key(|area| (core::cmp::Reverse(area.end - area.start), area.start));
        for area in areas.iter().take(LISTED) {
            let place = area.place.as_deref().unwrap_or("");
            let bytes = size(area.end - area.start);
            self.text(
                "#8a939e",
                &format!("{:#x} {bytes:>6} {} {place}", area.start, area.kind),
            );
        }
        if let Some(more) = areas.len().checked_sub(LISTED).filter(|&more| more > 0) {
            self.text("#8a939e", &format!("and {more} more"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn run(start: u64, bytes: u64, page: u32, rights: (bool, bool)) -> Mapped {
        Mapped {
            start,
            last: start + (bytes - 1),
            page,
            is_writable: rights.0,
            is_executable: rights.1,
        }
    }

    #[test]
    fn regions_say_what_is_mapped_in_them() {
        let layout = Layout::LINUX_LIKE;
        let direct = layout.direct_map.start().as_u64();
        let image = layout.image.start().as_u64();
        let mapped = [
            run(direct, 2 << 20, 12, (true, false)),
            run(direct + (2 << 20), 62 << 20, 21, (true, false)),
            run(image, 1 << 20, 12, (false, true)),
            // The last page of all.
            run(0xffff_ffff_ffff_f000, 4096, 12, (false, false)),
        ];
        let area = Area {
            start: 0xffff_c900_0000_0000,
            end: 0xffff_c900_0000_5000,
            state: State::InUse,
            kind: "vmalloc",
            asked: 16384,
            place: Some("a<b>.rs:1".to_owned()),
        };
        let drawing = svg("64M", &layout, &mapped, &[area]);
        for words in [
            "direct map: 0xffff880000000000, 64T",
            "2M rw- by 4K   62M rw- by 2M",
            "1M r-x by 4K",
            "elsewhere: 0xfffffffffffff000, 4K",
            "4K r-- by 4K",
            "20K vmalloc a&lt;b&gt;.rs:1",
        ] {
            assert!(drawing.contains(words), "{words}: {drawing}");
        }
        assert_eq!(drawing.matches("nothing is mapped").count(), 4);
        assert!(!drawing.contains("#ff3b30\"/>\n<rect"), "no page is rwx");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, words) in [
            (4096, "4K"),
            (1 << 20, "1M"),
            (3 << 19, "1.5M"),
            (5 << 30, "5G"),
            (u64::MAX, "16777215.9T"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }
}
