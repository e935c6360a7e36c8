//! `view`: the frame map on the machine's own screen.
//!
//! The screen is the boot loader's framebuffer, or QEMU's display adapter in a mode as large as the map
//! (`arch::display`). The map is drawn by the code that the host's viewer draws pictures with (`mm_map`).
#![expect(unsafe_code, reason = "draws to the memory of a device")]

use super::MEMORY;
use crate::arch::display::{self, Adapter};
use crate::num::{to_u64, to_usize};
use crate::shell::keys::Keys;
use crate::shell::{CommandError, CommandResult, no_arguments};
use crate::{boot_info, command, kprintln, params};
use alloc::string::String;
use alloc::vec::Vec;
use bootloader_api::info::PixelFormat;
use core::convert::Infallible;
use core::ptr::NonNull;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::Rectangle;
use mm::inspect::{self, Owner};
use mm::pagetable::Cache;
use mm_map::{Map, ZoneLine};

command! { "view", "", "draw what every frame is used for on the screen, until a key is pressed", view, "A dot is a frame, or a few, in the colour of what it is used for. It needs a
screen: the boot loader's, or QEMU's adapter (`cargo run -- --display`). With
`exec=` it goes on at once, and what was drawn stays." }

/// The largest mode that the adapter is asked for.
const MOST: (u32, u32) = (1600, 1200);
const TITLE: &str = "Frames of this machine";

/// Where pixels go.
struct Screen {
    first: NonNull<u8>,
    /// Pixels from side to side, and from top to bottom.
    size: (u32, u32),
    /// Bytes from a row to the next.
    pitch: usize,
    bytes_per_pixel: usize,
    /// Which byte of a pixel is red, green and blue.
    places: [usize; 3],
    /// Whose it is, if it was mapped for this.
    adapter: Option<Adapter>,
}

/// The boot loader's framebuffer, if there is one of whole bytes for each colour.
fn framebuffer() -> Option<Screen> {
    let framebuffer = boot_info()?.framebuffer.as_ref()?;
    let info = framebuffer.info();
    let places = match info.pixel_format {
        PixelFormat::Rgb => [0, 1, 2],
        PixelFormat::Bgr => [2, 1, 0],
        _ => return None,
    };
    let address = framebuffer.buffer().as_ptr().expose_provenance();
    Some(Screen {
        first: NonNull::new(core::ptr::with_exposed_provenance_mut(address))?,
        size: (
            u32::try_from(info.width).ok()?,
            u32::try_from(info.height).ok()?,
        ),
        pitch: info.stride.checked_mul(info.bytes_per_pixel)?,
        bytes_per_pixel: info.bytes_per_pixel,
        places,
        adapter: None,
    })
}

/// A screen that a map of so many zones fits on: the boot loader's, or, if there is none or that is too small, the adapter's.
fn find(owners: &[Owner], zones: usize) -> Result<Screen, CommandError> {
    let left = framebuffer();
    let is_small = left.is_some();
    if let Some(screen) = left.filter(|screen| Map::within(owners, zones, screen.size).is_some()) {
        return Ok(screen);
    }
    match (display::find(), Map::within(owners, zones, MOST)) {
        (Some(adapter), Some(map)) => Screen::of(adapter, (map.width(), map.height())),
        _ if is_small => Err(too_small()),
        _ => Err(CommandError::failed(
            "this machine has no screen: `cargo run -- --display` gives it one",
        )),
    }
}

fn too_small() -> CommandError {
    CommandError::failed("the screen is too small for the map")
}

impl Screen {
    /// The adapter in a mode of at least so many pixels.
    fn of(adapter: Adapter, (width, height): (u32, u32)) -> Result<Self, CommandError> {
        let no_mode =
            || CommandError::failed("the display adapter has no mode that is large enough");
        let narrow = |pixels: u32| u16::try_from(pixels).map_err(|_| no_mode());
        // Rows of the adapter are multiples of eight pixels.
        let (width, height) = (narrow(width.next_multiple_of(8))?, narrow(height)?);
        let stride = adapter.show(width, height).ok_or_else(no_mode)?;
        let pitch = u64::from(stride).saturating_mul(4);
        if pitch.saturating_mul(height.into()) > adapter.bytes {
            return Err(no_mode());
        }
        // SAFETY: the adapter's own memory, which nobody else uses; it is not RAM.
        let first = unsafe { MEMORY.ioremap(adapter.memory, adapter.bytes, Cache::WriteCombining) };
        Ok(Self {
            first: first.map_err(CommandError::failed)?,
            size: (width.into(), height.into()),
            pitch: to_usize(pitch),
            bytes_per_pixel: 4,
            places: [2, 1, 0],
            adapter: Some(adapter),
        })
    }

    /// Fills a part of a row.
    fn fill_row(&mut self, (x, y): (u32, u32), count: u32, colour: Rgb888) {
        let (width, height) = self.size;
        let count = count.min(width.saturating_sub(x));
        if y >= height || count == 0 {
            return;
        }
        let row = to_usize(y.into()).saturating_mul(self.pitch);
        let colours = [colour.r(), colour.g(), colour.b()];
        for pixel in x..x.saturating_add(count) {
            let offset = to_usize(pixel.into()).saturating_mul(self.bytes_per_pixel);
            for (place, value) in self.places.into_iter().zip(colours) {
                let at = row.saturating_add(offset).saturating_add(place);
                // SAFETY: within the screen's memory: `x` and `y` are, and a row has as many bytes.
                let byte = unsafe { self.first.add(at) };
                // SAFETY: as above; memory of a device, which nobody else writes to.
                unsafe { byte.write_volatile(value) };
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.adapter.is_some() {
            // SAFETY: nobody draws any more.
            if let Err(error) = unsafe { MEMORY.iounmap(self.first) } {
                log::error!("view: {error}");
            }
        }
    }
}

impl OriginDimensions for Screen {
    fn size(&self) -> Size {
        Size::new(self.size.0, self.size.1)
    }
}

impl DrawTarget for Screen {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(Point { x, y }, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) {
                self.fill_row((x, y), 1, colour);
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Infallible> {
        let Point { x, y } = area.top_left;
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) {
            for row in y..y.saturating_add(area.size.height) {
                self.fill_row((x, row), area.size.width, colour);
            }
        }
        Ok(())
    }
}

/// What every frame is used for, and the zones for the legend.
fn look(owners: &mut [Owner]) -> Result<Vec<ZoneLine<'static>>, CommandError> {
    inspect::owners(&MEMORY, owners);
    let zones = MEMORY.zones().filter(|zone| zone.is_populated());
    let mut lines = Vec::new();
    for zone in zones {
        lines.try_reserve(1).map_err(CommandError::failed)?;
        lines.push(ZoneLine {
            node: zone.id().node.0.into(),
            name: zone.kind().name(),
            free: zone.free_frames(),
            low: zone.watermarks().unboosted().low,
        });
    }
    Ok(lines)
}

fn view(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let ends = MEMORY.zones().map(|zone| zone.span().end().as_u64());
    let frames = to_usize(ends.max().unwrap_or_default());
    let mut owners = Vec::new();
    owners
        .try_reserve_exact(frames)
        .map_err(CommandError::failed)?;
    owners.resize(frames, Owner::Hole);
    let zones = look(&mut owners)?;
    let mut screen = find(&owners, zones.len())?;
    // The first time may itself take memory, for words and for the screen.
    let mut log = 0;
    for _ in 0..2 {
        let zones = look(&mut owners)?;
        let map = Map::within(&owners, zones.len(), screen.size).ok_or_else(too_small)?;
        let Ok(()) = screen.clear(mm_map::rgb(mm_map::BACKGROUND));
        let Ok(()) = map.draw(&mut screen, &owners, &zones, TITLE);
        log = map.log();
    }
    let (width, height) = screen.size;
    let of = to_u64(1_usize.wrapping_shl(log));
    kprintln!("{width}x{height} pixels, {frames} frames, {of} of them to a dot");
    if params::get("exec").is_none() {
        kprintln!("any key leads back");
        let _ = Keys::default().next_before(u64::MAX);
        if let Some(adapter) = screen.adapter {
            adapter.hide();
        }
    }
    Ok(())
}
