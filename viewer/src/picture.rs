//! The frame map as a picture: one dot for each frame, or for a few.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::Rectangle;
use mm_map::{BACKGROUND, Map, TEXT, ZoneLine};

pub use mm_map::mib;

use crate::owner::{Owner, Rgb};
use crate::snapshot::Snapshot;

/// Pixels, each as an index of [`palette`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    map: Map,
}

/// The colours of a picture: those of [`Owner::ALL`], then background and text.
#[must_use]
pub fn palette() -> Vec<Rgb> {
    let owners = Owner::ALL.into_iter().map(Owner::colour);
    owners.chain([BACKGROUND, TEXT]).collect()
}

/// Where the background is in the [`palette`].
pub(crate) const BACKGROUND_INDEX: u8 = Owner::COUNT as u8;
const TEXT_INDEX: u8 = BACKGROUND_INDEX + 1;

impl Picture {
    /// The frame map with its legend, under a title.
    #[must_use]
    pub fn new(snapshot: &Snapshot, title: &str) -> Self {
        let zones = zones(snapshot);
        Self::drawn(
            snapshot,
            &zones,
            title,
            Map::new(&snapshot.owners, zones.len()),
        )
    }

    /// The same in at most so many pixels, as a machine draws it on a screen of that size; nothing if that is too small.
    #[must_use]
    pub fn within(snapshot: &Snapshot, title: &str, room: (u32, u32)) -> Option<Self> {
        let zones = zones(snapshot);
        let map = Map::within(&snapshot.owners, zones.len(), room)?;
        Some(Self::drawn(snapshot, &zones, title, map))
    }

    fn drawn(snapshot: &Snapshot, zones: &[ZoneLine<'_>], title: &str, map: Map) -> Self {
        let (width, height) = (map.width(), map.height());
        let mut picture = Self {
            width,
            height,
            pixels: vec![BACKGROUND_INDEX; width as usize * height as usize],
            map,
        };
        // Drawing on it never fails.
        let _: Result<(), core::convert::Infallible> =
            map.draw(&mut picture, &snapshot.owners, zones, title);
        picture
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

    /// Pixels from top to bottom that are enough for any picture of the same machine: the legend grows with what there is.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.map.room()
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
        for dot in 0..self.map.dots() {
            let (x, y) = self.map.place(dot);
            let at = y as usize * self.width as usize + x as usize;
            let colour = self.pixels.get(at).copied().unwrap_or(BACKGROUND_INDEX);
            if let Some(count) = counts.get_mut(usize::from(colour)) {
                *count += 1;
            }
        }
        (counts, self.map.log())
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

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = embedded_graphics::Pixel<Rgb888>>,
    {
        for embedded_graphics::Pixel(point, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y))
                && x < self.width
            {
                self.fill((x, y), (1, 1), index_of(colour));
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Self::Error> {
        let Rectangle { top_left, size } = *area;
        if let (Ok(x), Ok(y)) = (u32::try_from(top_left.x), u32::try_from(top_left.y)) {
            self.fill((x, y), (size.width, size.height), index_of(colour));
        }
        Ok(())
    }
}

/// What the legend tells of zones.
fn zones(snapshot: &Snapshot) -> Vec<ZoneLine<'_>> {
    let zones = snapshot.zones.iter().map(|zone| ZoneLine {
        node: zone.node,
        name: &zone.name,
        free: zone.free(),
        low: zone.number("low"),
    });
    zones.collect()
}

/// Where a colour is in the [`palette`]; what is not is text.
fn index_of(colour: Rgb888) -> u8 {
    let wanted = [colour.r(), colour.g(), colour.b()];
    let mut owners = Owner::ALL.into_iter().map(Owner::colour);
    let place = owners.position(|colour| colour == wanted);
    place.map_or(TEXT_INDEX, |place| place as u8)
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
