//! Where dots and words are, and drawing them.

use alloc::format;
use alloc::string::String;

use embedded_graphics::Drawable;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::{FONT_7X13, FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};
use mm::inspect::{Owner, Rgb};

use crate::grid::{cells, log_for};

/// Dots in a row of the map: a pageblock of 2 MiB, with a dot for each frame.
const ROW: u64 = 512;
/// The same on a screen that is too narrow for that.
const SHORT_ROW: u64 = 256;
/// Dots of a map, at most.
const DOTS: u64 = 1 << 22;
/// Pixels from side to side of a dot, at most.
const LARGEST: u64 = 4;
/// Pixels around everything.
const MARGIN: u32 = 12;
/// Pixels of a line of text.
const LINE: u32 = 17;
/// Pixels that the legend is wide.
const LEGEND: u32 = 300;
const TITLE: u32 = 30;
/// Behind everything.
pub const BACKGROUND: Rgb = [0x16, 0x1b, 0x22];
/// Words.
pub const TEXT: Rgb = [0xd0, 0xd7, 0xde];

/// A zone, as the legend tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneLine<'a> {
    /// Its node.
    pub node: u32,
    /// What it is called.
    pub name: &'a str,
    /// Free frames.
    pub free: u64,
    /// Frames below which it is short of memory.
    pub low: u64,
}

/// Where everything is in a picture of so many frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Map {
    left: u32,
    top: u32,
    row: u32,
    columns: u32,
    rows: u32,
    scale: u32,
    dots: u64,
    log: u32,
    height: u32,
    /// The same with every use of frames in the legend.
    room: u32,
}

impl Map {
    /// The map of `owners`, with `zones` zones in its legend; with a dot for each frame, or for a few of many.
    #[must_use]
    pub fn new(owners: &[Owner], zones: usize) -> Self {
        Self::of(
            owners,
            zones,
            log_for(owners.len() as u64, DOTS),
            (ROW, LARGEST),
        )
    }

    /// The same on a screen of so many pixels: with a dot for as many frames as it takes. Nothing if it is too small for that.
    #[must_use]
    pub fn within(owners: &[Owner], zones: usize, (width, height): (u32, u32)) -> Option<Self> {
        let least = log_for(owners.len() as u64, DOTS);
        let rows = [ROW, SHORT_ROW].into_iter();
        let shapes = rows.flat_map(|row| (1..=LARGEST).rev().map(move |dot| (row, dot)));
        let sizes =
            (least..u64::BITS).flat_map(|log| shapes.clone().map(move |shape| (log, shape)));
        let mut maps = sizes.map(|(log, shape)| Self::of(owners, zones, log, shape));
        maps.find(|map| map.width() <= width && map.height <= height)
    }

    fn of(owners: &[Owner], zones: usize, log: u32, (row, largest): (u64, u64)) -> Self {
        let dots = (owners.len() as u64).div_ceil(1 << log).max(1);
        let all_rows = dots.div_ceil(row);
        // About twice as wide as high, and small machines enlarged.
        let mut columns = 1;
        while columns < 8 && all_rows.div_ceil(columns) * 2 > columns * row + row {
            columns += 1;
        }
        let rows = all_rows.div_ceil(columns);
        let scale = (1024 / (columns * row))
            .clamp(1, largest)
            .min((1024 / rows.max(1)).max(1));
        let mut map = Self {
            left: MARGIN,
            top: MARGIN + TITLE,
            row: row as u32,
            columns: columns as u32,
            rows: rows as u32,
            scale: scale as u32,
            dots,
            log,
            height: 0,
            room: 0,
        };
        let height = |uses: usize| {
            let legend = (uses + zones + 4) as u32 * LINE;
            map.top + (map.rows * map.scale).max(legend) + MARGIN
        };
        let uses = counts(owners).iter().filter(|&&count| count > 0).count();
        (map.height, map.room) = (height(uses), height(Owner::COUNT));
        map
    }

    /// Pixels from side to side.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.legend() + LEGEND
    }

    /// Pixels from top to bottom.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Pixels from top to bottom that are enough for any use of the same frames.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.room
    }

    /// Dots of the map.
    #[must_use]
    pub const fn dots(&self) -> u64 {
        self.dots
    }

    /// log2 of the frames that a dot stands for.
    #[must_use]
    pub const fn log(&self) -> u32 {
        self.log
    }

    /// Where the legend starts.
    const fn legend(&self) -> u32 {
        let map = self.columns * self.row * self.scale + (self.columns - 1) * 4;
        self.left + map + MARGIN
    }

    /// Where a dot is: its left upper pixel.
    #[must_use]
    pub fn place(&self, dot: u64) -> (u32, u32) {
        let in_row = u64::from(self.row);
        let row = dot / in_row;
        let column = row / u64::from(self.rows);
        let x = column * in_row + dot % in_row + column * 4 / u64::from(self.scale.max(1));
        let y = row % u64::from(self.rows);
        (
            self.left + x as u32 * self.scale,
            self.top + y as u32 * self.scale,
        )
    }

    /// Draws all of it, under a title, where nothing but [`BACKGROUND`] is.
    ///
    /// # Errors
    /// The target's own.
    pub fn draw<T: DrawTarget<Color = Rgb888>>(
        &self,
        target: &mut T,
        owners: &[Owner],
        zones: &[ZoneLine<'_>],
        title: &str,
    ) -> Result<(), T::Error> {
        for (dot, owner) in (0..self.dots).zip(cells(owners, self.log)) {
            let place = self.place(dot);
            fill(target, place, self.scale, owner.colour())?;
        }
        write(target, (MARGIN, 8), title, true)?;
        self.draw_legend(target, &counts(owners), zones)
    }

    fn draw_legend<T: DrawTarget<Color = Rgb888>>(
        &self,
        target: &mut T,
        counts: &[u64; Owner::COUNT],
        zones: &[ZoneLine<'_>],
    ) -> Result<(), T::Error> {
        let left = self.legend();
        let mut y = self.top;
        let all = Owner::ALL.into_iter().zip(counts);
        for (owner, &count) in all.filter(|(_, count)| **count > 0) {
            fill(target, (left, y + 1), 12, owner.colour())?;
            let text = format!("{:<20} {:>9} {:>7}", owner.name(), count, mib(count));
            write(target, (left + 18, y), &text, false)?;
            y += LINE;
        }
        y += LINE;
        for ZoneLine {
            node,
            name,
            free,
            low,
        } in zones
        {
            let text = format!("node {node} {name:<8} {free:>9} free, low {low}");
            write(target, (left, y), &text, false)?;
            y += LINE;
        }
        let dot: String = match self.log {
            0 => "a dot is a frame of 4 KiB".into(),
            log => format!("a dot is {} frames", 1_u64 << log),
        };
        write(target, (left, y + LINE), &dot, false)?;
        let row = format!("a row is {} dots, from low addresses", self.row);
        write(target, (left, y + 2 * LINE), &row, false)
    }
}

/// How many frames are used for what, by [`Owner::index`].
fn counts(owners: &[Owner]) -> [u64; Owner::COUNT] {
    let mut counts = [0; Owner::COUNT];
    for owner in owners {
        counts[owner.index()] += 1;
    }
    counts
}

/// A colour as `embedded-graphics` has it.
#[must_use]
pub const fn rgb([red, green, blue]: Rgb) -> Rgb888 {
    Rgb888::new(red, green, blue)
}

/// A square.
fn fill<T: DrawTarget<Color = Rgb888>>(
    target: &mut T,
    (left, top): (u32, u32),
    side: u32,
    colour: Rgb,
) -> Result<(), T::Error> {
    let corner = Point::new(left as i32, top as i32);
    target.fill_solid(&Rectangle::new(corner, Size::new(side, side)), rgb(colour))
}

fn write<T: DrawTarget<Color = Rgb888>>(
    target: &mut T,
    (x, y): (u32, u32),
    text: &str,
    is_title: bool,
) -> Result<(), T::Error> {
    let font = if is_title {
        &FONT_9X15_BOLD
    } else {
        &FONT_7X13
    };
    let style = MonoTextStyle::new(font, rgb(TEXT));
    let place = Point::new(x as i32, y as i32);
    Text::with_baseline(text, place, style, Baseline::Top).draw(target)?;
    Ok(())
}

/// Frames in words: `512M`.
#[must_use]
pub fn mib(frames: u64) -> String {
    match frames {
        0..256 => format!("{}K", frames * 4),
        256..2_621_440 => format!("{}M", frames / 256),
        _ => format!("{}G", frames / 262_144),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn a_map_fits_on_a_screen_with_more_frames_to_a_dot() {
        let owners = vec![Owner::Used; 1 << 20];
        let whole = Map::new(&owners, 3);
        assert_eq!((whole.log(), whole.dots()), (0, 1 << 20));
        for screen in [(1024, 768), (1280, 800), (848, 480), (800, 600)] {
            let map = Map::within(&owners, 3, screen).unwrap();
            assert!(
                map.width() <= screen.0 && map.height() <= screen.1,
                "{map:?}"
            );
            assert_eq!(map.dots() << map.log(), 1 << 20);
            let (x, y) = map.place(map.dots() - 1);
            assert!(x < map.legend() && y < map.height(), "{map:?}");
        }
        assert_eq!(Map::within(&owners, 3, (500, 400)), None);
    }
}
