//! The frame map as a picture: one dot for each frame, or for a few.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use embedded_graphics::Drawable;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::{FONT_7X13, FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};

use crate::grid::{Grid, log_for};
use crate::owner::{Owner, Rgb};
use crate::snapshot::Snapshot;

/// Dots in a row of the map: a pageblock of 2 MiB, with a dot for each frame.
const ROW: u64 = 512;
/// Dots of a map, at most.
const DOTS: u64 = 1 << 22;
/// Pixels around everything.
const MARGIN: u32 = 12;
/// Pixels of a line of text.
const LINE: u32 = 17;
/// Pixels that the legend is wide.
const LEGEND: u32 = 300;
const TITLE: u32 = 30;
const BACKGROUND: Rgb = [0x16, 0x1b, 0x22];
const TEXT: Rgb = [0xd0, 0xd7, 0xde];

/// Pixels, each as an index of [`palette`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    /// Where the map is: left, top, columns of rows, rows of a column, pixels of a dot.
    map: Map,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Map {
    left: u32,
    top: u32,
    columns: u32,
    rows: u32,
    scale: u32,
    dots: u64,
    log: u32,
}

/// The colours of a picture: those of [`Owner::ALL`], then background and text.
#[must_use]
pub fn palette() -> Vec<Rgb> {
    let owners = Owner::ALL.into_iter().map(Owner::colour);
    owners.chain([BACKGROUND, TEXT]).collect()
}

const BACKGROUND_INDEX: u8 = Owner::COUNT as u8;
const TEXT_INDEX: u8 = BACKGROUND_INDEX + 1;

impl Map {
    fn of(frames: u64) -> Self {
        let log = log_for(frames, DOTS);
        let dots = frames.div_ceil(1 << log).max(1);
        let all_rows = dots.div_ceil(ROW);
        // About twice as wide as high, and small machines enlarged.
        let mut columns = 1;
        while columns < 8 && all_rows.div_ceil(columns) * 2 > columns * ROW + ROW {
            columns += 1;
        }
        let rows = all_rows.div_ceil(columns);
        let scale = (1024 / (columns * ROW))
            .clamp(1, 4)
            .min((1024 / rows.max(1)).max(1));
        Self {
            left: MARGIN,
            top: MARGIN + TITLE,
            columns: columns as u32,
            rows: rows as u32,
            scale: scale as u32,
            dots,
            log,
        }
    }

    /// Where a dot is: its left upper pixel.
    fn place(&self, dot: u64) -> (u32, u32) {
        let row = dot / ROW;
        let column = row / u64::from(self.rows);
        let x = column * ROW + dot % ROW + column * 4 / u64::from(self.scale.max(1));
        let y = row % u64::from(self.rows);
        (
            self.left + x as u32 * self.scale,
            self.top + y as u32 * self.scale,
        )
    }

    const fn width(&self) -> u32 {
        self.columns * ROW as u32 * self.scale + (self.columns - 1) * 4
    }
}

impl Picture {
    /// The frame map with its legend, under a title.
    #[must_use]
    pub fn new(snapshot: &Snapshot, title: &str) -> Self {
        let frames = snapshot.owners.len() as u64;
        let map = Map::of(frames);
        let counts = snapshot.counts();
        let lines = counts.iter().filter(|&&count| count > 0).count() as u32;
        let zones = snapshot.zones.len() as u32;
        let legend = (lines + zones + 4) * LINE;
        let width = map.left + map.width() + MARGIN + LEGEND;
        let height = map.top + (map.rows * map.scale).max(legend) + MARGIN;
        let mut picture = Self {
            width,
            height,
            pixels: vec![BACKGROUND_INDEX; width as usize * height as usize],
            map,
        };
        picture.draw_map(snapshot);
        picture.write((MARGIN, 8), title, true);
        picture.draw_legend(snapshot, &counts);
        picture
    }

    fn draw_map(&mut self, snapshot: &Snapshot) {
        let grid = Grid::new(&snapshot.owners, 0, self.map.log, self.map.dots as usize);
        for (dot, owner) in (0..).zip(&grid.cells) {
            let (x, y) = self.map.place(dot);
            let scale = self.map.scale;
            self.fill((x, y), (scale, scale), owner.index() as u8);
        }
    }

    fn draw_legend(&mut self, snapshot: &Snapshot, counts: &[u64; Owner::COUNT]) {
        let left = self.map.left + self.map.width() + MARGIN;
        let mut y = self.map.top;
        for (owner, &count) in Owner::ALL
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| **count > 0)
        {
            self.fill((left, y + 1), (12, 12), owner.index() as u8);
            let text = format!("{:<20} {:>9} {:>7}", owner.name(), count, mib(count));
            self.write((left + 18, y), &text, false);
            y += LINE;
        }
        y += LINE;
        for zone in &snapshot.zones {
            let text = format!(
                "node {} {:<8} {:>9} free, low {}",
                zone.node,
                zone.name,
                zone.free(),
                zone.number("low")
            );
            self.write((left, y), &text, false);
            y += LINE;
        }
        let dot = match self.map.log {
            0 => "a dot is a frame of 4 KiB".to_owned(),
            log => format!("a dot is {} frames", 1_u64 << log),
        };
        self.write((left, y + LINE), &dot, false);
        self.write(
            (left, y + 2 * LINE),
            "a row is 512 dots, from low addresses",
            false,
        );
    }

    fn fill(&mut self, (left, top): (u32, u32), (width, height): (u32, u32), colour: u8) {
        for y in top..(top + height).min(self.height) {
            let start = y as usize * self.width as usize + left as usize;
            let end = start + width.min(self.width.saturating_sub(left)) as usize;
            if let Some(row) = self.pixels.get_mut(start..end) {
                row.fill(colour);
            }
        }
    }

    fn write(&mut self, (x, y): (u32, u32), text: &str, is_title: bool) {
        let font = if is_title {
            &FONT_9X15_BOLD
        } else {
            &FONT_7X13
        };
        let style = MonoTextStyle::new(font, Rgb888::WHITE);
        let text = Text::with_baseline(text, Point::new(x as i32, y as i32), style, Baseline::Top);
        // Drawing on it never fails.
        let _: Result<Point, core::convert::Infallible> = text.draw(self);
    }

    /// Pixels from side to side.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, row by row, as places in the [`palette`].
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// How many dots of the map have each colour, by [`Owner::index`]; and log2 of the frames that a dot stands for.
    #[must_use]
    pub fn dots(&self) -> ([u64; Owner::COUNT], u32) {
        let mut counts = [0; Owner::COUNT];
        for dot in 0..self.map.dots {
            let (x, y) = self.map.place(dot);
            let at = y as usize * self.width as usize + x as usize;
            let colour = self.pixels.get(at).copied().unwrap_or(BACKGROUND_INDEX);
            if let Some(count) = counts.get_mut(usize::from(colour)) {
                *count += 1;
            }
        }
        (counts, self.map.log)
    }

    /// Writes it to a file, as PNG.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn save(&self, path: &Path) -> Result<(), PictureError> {
        let file = File::create(path).map_err(PictureError::File)?;
        let mut encoder = png::Encoder::new(BufWriter::new(file), self.width, self.height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(palette().concat());
        let mut writer = encoder.write_header().map_err(PictureError::png)?;
        writer
            .write_image_data(&self.pixels)
            .map_err(PictureError::png)?;
        writer.finish().map_err(PictureError::png)
    }
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = core::convert::Infallible;

    /// Everything that is drawn is text.
    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = embedded_graphics::Pixel<Rgb888>>,
    {
        for embedded_graphics::Pixel(point, _) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y))
                && x < self.width
            {
                self.fill((x, y), (1, 1), TEXT_INDEX);
            }
        }
        Ok(())
    }
}

/// Why there is no picture.
#[derive(Debug)]
pub enum PictureError {
    /// The file cannot be written.
    File(io::Error),
    /// The format has no such picture.
    Format(String),
}

impl PictureError {
    fn png(error: png::EncodingError) -> Self {
        match error {
            png::EncodingError::IoError(error) => Self::File(error),
            error => Self::Format(error.to_string()),
        }
    }
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Format(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for PictureError {}

/// Frames in words: `512M`.
#[must_use]
pub fn mib(frames: u64) -> String {
    match frames {
        0..256 => format!("{}K", frames * 4),
        256..2_621_440 => format!("{}M", frames / 256),
        _ => format!("{}G", frames / 262_144),
    }
}
