//! The pictures of the README and of `docs/` are current: `scripts/pictures.sh` makes them, and here the same commands are run again.
//!
//! They count instructions, so that a kernel gives the same picture bit for bit. Another kernel lies elsewhere, so what is compared is
//! what must hold as long as nobody changes what they show: size, colours, title and command, regions of addresses, and how much of a
//! picture is of each colour.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use boot_runner::options::{Invocation, Show};
use boot_runner::outcome::RanCommands;
use boot_runner::show;
use boot_runner::vm::Boot;
use libtest_mimic::{Failed, Trial};
use mm_viewer::history::History;
use mm_viewer::owner::{Owner, Rgb, Type};
use mm_viewer::picture::{Picture, palette};
use mm_viewer::snapshot::Snapshot;
use mm_viewer::{space, splits};

use crate::screen::{self, Dump};
use crate::{guest, trial};

const HOW: &str = "to make the pictures anew: scripts/pictures.sh";
/// How a line of the script begins that makes one.
const MAKES: &str = "cargo run --locked -- ";
/// And the one that has this test make the picture of the screen.
const OF_THE_SCREEN: &str =
    "MM_UPDATE_PICTURES=1 cargo test --locked -p mm-tests --test qemu pictures::of_the_screen";
/// The picture of the screen, what is typed before, and the machine.
const SCREEN: &str = "docs/pictures/screen.png";
const TYPED: &str = "stress 20000 1";
const WITH_A_SCREEN: &str = "--qemu-arg -vga --qemu-arg std --cmdline populate=boot";
/// Of so many pixels one may have another colour.
const TOLERANCE: u64 = 50;

/// One for each line of the script.
pub(crate) fn trials() -> Vec<Trial> {
    let lines = script();
    let made = lines.into_iter().map(|line| {
        let name = line
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .replace('.', "_");
        trial("pictures", &name, move || is_current(&line))
    });
    let mut trials: Vec<_> = made.collect();
    trials.push(trial("pictures", "of_the_screen", of_the_screen));
    trials.push(trial(
        "pictures",
        "all_are_made_by_the_script",
        all_are_made,
    ));
    trials
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the script gives to the runner, line by line.
fn script() -> Vec<String> {
    let text = fs::read_to_string(root().join("scripts/pictures.sh")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix(MAKES));
    lines.map(str::to_owned).collect()
}

/// Every picture that is there, and no other, is made by the script; and every one is shown somewhere.
fn all_are_made() -> Result<(), Failed> {
    let text = fs::read_to_string(root().join("scripts/pictures.sh"))?;
    if !text.lines().any(|line| line == OF_THE_SCREEN) {
        return Err(format!("scripts/pictures.sh does not say {OF_THE_SCREEN}").into());
    }
    let mut made = BTreeSet::from([SCREEN.to_owned()]);
    made.extend(
        script()
            .iter()
            .filter_map(|line| line.rsplit(' ').next())
            .map(str::to_owned),
    );
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(root().join("docs/pictures"))? {
        there.insert(format!("docs/pictures/{}", entry?.file_name().display()));
    }
    if made != there {
        return Err(format!("{made:?} are made, {there:?} are there").into());
    }
    let mut pages = fs::read_to_string(root().join("README.md"))?;
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            pages.push_str(&fs::read_to_string(path)?);
        }
    }
    let hidden = made.iter().find(|path| {
        let name = path.strip_prefix("docs/").unwrap_or(path);
        !pages.contains(&format!("]({name})")) && !pages.contains(&format!("]({path})"))
    });
    match hidden {
        Some(path) => Err(format!("no page shows {path}").into()),
        None => Ok(()),
    }
}

/// Runs what the script runs, and compares the picture with the one that is there.
fn is_current(line: &str) -> Result<(), Failed> {
    let mut options = match Invocation::parse(guest::words(line)) {
        Ok(Invocation::Boot(options)) => options,
        other => return Err(format!("{line}: {other:?}").into()),
    };
    let folder = tempfile::tempdir()?;
    options.machine.ram_file = Some(folder.path().join("ram"));
    let wanted = core::mem::take(&mut options.show);
    let boot = Boot {
        image: guest::kernel(options.kernel).map_err(guest::GuestError::Build)?,
        machine: options.machine.clone(),
        cmdline: options.cmdline.clone(),
        timeout: Some(guest::DIRECT_LIMIT),
    };
    let title = show::title(&boot);
    let recorded = boot.record().map_err(|error| error.to_string())?;
    if recorded.finished.outcome.exit_status(RanCommands::Yes) != 0 {
        return Err(recorded.serial.into());
    }
    let guest = show::attach(&options.machine.ram_files()).map_err(|error| error.to_string())?;
    let at = |path: &Path| root().join(path);
    match wanted {
        Show {
            picture: Some(path),
            ..
        } => {
            let picture = Picture::new(&Snapshot::take(&guest), &title);
            alike(&Pixels::of(&picture), &Pixels::of_png(&at(&path))?)
        }
        // How many pictures there are before the last one is a matter of the host's speed.
        Show {
            movie: Some(path), ..
        } => {
            let picture = Picture::new(&Snapshot::take(&guest), &title);
            let now = Pixels::of(&picture);
            let then = Pixels::of_gif(&at(&path))?.cut(now.pixels.len())?;
            alike(&now, &then)
        }
        Show {
            splits: Some(path), ..
        } => {
            let drawing =
                splits::svg(&History::read(&guest, u64::MAX)).ok_or("no block was split")?;
            same(
                &outline(&drawing),
                &outline(&fs::read_to_string(at(&path))?),
            )
        }
        Show {
            addresses: Some(path),
            ..
        } => {
            let drawing = space::draw(&guest, &title);
            same(
                &outline(&drawing),
                &outline(&fs::read_to_string(at(&path))?),
            )
        }
        _ => Err(format!("{line} makes no picture").into()),
    }
}

/// What `view` draws on the machine's screen; `MM_UPDATE_PICTURES=1` makes the picture.
fn of_the_screen() -> Result<(), Failed> {
    let mut shown = None;
    screen::with_screen(WITH_A_SCREEN, TYPED, |monitor, file, _| {
        screen::dump(monitor, file)?;
        shown = Some(Pixels::of_dump(Dump::read(file)?));
        Ok(())
    })?;
    let shown = shown.ok_or("nothing was shown")?;
    let path = root().join(SCREEN);
    if std::env::var_os("MM_UPDATE_PICTURES").is_some_and(|value| value != "0") {
        return shown.save(&path);
    }
    alike(&shown, &Pixels::of_png(&path)?)
}

/// A picture's pixels, row by row, and how many a row has.
#[derive(PartialEq, Eq)]
struct Pixels {
    width: usize,
    pixels: Vec<Rgb>,
}

impl Pixels {
    fn of(picture: &Picture) -> Self {
        let palette = palette();
        let pixels = picture.pixels().iter();
        Self {
            width: picture.width() as usize,
            pixels: pixels.map(|&place| palette[usize::from(place)]).collect(),
        }
    }

    fn of_dump(dump: Dump) -> Self {
        Self {
            width: dump.width,
            pixels: dump.pixels,
        }
    }

    fn of_png(path: &Path) -> Result<Self, Failed> {
        let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info()?;
        let mut bytes = vec![0; reader.output_buffer_size().ok_or("too large")?];
        let info = reader.next_frame(&mut bytes)?;
        let (pixels, []) = bytes[..info.buffer_size()].as_chunks::<3>() else {
            return Err("no RGB".into());
        };
        Ok(Self {
            width: info.width as usize,
            pixels: pixels.to_vec(),
        })
    }

    /// The last picture of a movie.
    fn of_gif(path: &Path) -> Result<Self, Failed> {
        let mut decoder = gif::DecodeOptions::new();
        decoder.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = decoder.read_info(BufReader::new(File::open(path)?))?;
        let mut last = None;
        while let Some(frame) = decoder.read_next_frame()? {
            let (pixels, _) = frame.buffer.as_chunks::<4>();
            last = Some(Self {
                width: usize::from(frame.width),
                pixels: pixels
                    .iter()
                    .map(|&[red, green, blue, _]| [red, green, blue])
                    .collect(),
            });
        }
        last.ok_or_else(|| "an empty movie".into())
    }

    /// The first pixels of it; there is nothing behind them.
    fn cut(mut self, count: usize) -> Result<Self, Failed> {
        let palette = palette();
        let rest = self
            .pixels
            .get(count..)
            .ok_or("it is smaller than it should be")?;
        match rest
            .iter()
            .all(|pixel| *pixel == palette[palette.len() - 2])
        {
            true => {
                self.pixels.truncate(count);
                Ok(self)
            }
            false => Err("it is larger than it should be".into()),
        }
    }

    /// Writes it by the colours that pictures have.
    fn save(&self, path: &Path) -> Result<(), Failed> {
        let palette = palette();
        let place = |pixel: &Rgb| palette.iter().position(|colour| colour == pixel);
        let places: Option<Vec<_>> = self.pixels.iter().map(place).collect();
        let places = places.ok_or("a colour that no picture has")?;
        let bytes: Result<Vec<u8>, _> = places.into_iter().map(u8::try_from).collect();
        let height = self.pixels.len() / self.width;
        let file = File::create(path)?;
        let mut encoder = png::Encoder::new(file, self.width as u32, height as u32);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette.concat());
        encoder.write_header()?.write_image_data(&bytes?)?;
        Ok(())
    }

    /// The rows above the map: the title.
    fn title(&self) -> &[Rgb] {
        let palette = palette();
        let plain = &palette[palette.len() - 2..];
        let rows = self.pixels.chunks(self.width);
        let count = rows
            .take_while(|row| row.iter().all(|pixel| plain.contains(pixel)))
            .count();
        &self.pixels[..count * self.width]
    }

    /// How many pixels there are of each colour.
    fn colours(&self) -> BTreeMap<Rgb, u64> {
        let mut counts = BTreeMap::new();
        for pixel in &self.pixels {
            *counts.entry(*pixel).or_default() += 1;
        }
        counts
    }
}

/// Makes the colours of free frames one: of which types free blocks are is chance, even whether there are any of a type.
fn pool_free(mut counts: BTreeMap<Rgb, u64>) -> BTreeMap<Rgb, u64> {
    let free = Owner::ALL
        .into_iter()
        .filter(|owner| owner.is_free())
        .map(Owner::colour);
    let sum = free.filter_map(|colour| counts.remove(&colour)).sum();
    counts.insert(Owner::Free(Type::Movable).colour(), sum);
    counts
}

/// The same size, title and colours, and about as much of each.
fn alike(now: &Pixels, then: &Pixels) -> Result<(), Failed> {
    if (now.width, now.pixels.len()) != (then.width, then.pixels.len()) {
        return Err(format!("another size. {HOW}").into());
    }
    if now.title().is_empty() || now.title() != then.title() {
        return Err(format!("another title, or another command. {HOW}").into());
    }
    let (now, then) = (pool_free(now.colours()), pool_free(then.colours()));
    if !now.keys().eq(then.keys()) {
        return Err(format!("other colours: {now:?}, and {then:?} before. {HOW}").into());
    }
    let all: u64 = now.values().sum();
    match now
        .iter()
        .find(|(colour, count)| count.abs_diff(then[*colour]) > all / TOLERANCE)
    {
        Some((colour, count)) => {
            let before = then[colour];
            Err(format!("{count} pixels are {colour:?}, {before} were before. {HOW}").into())
        }
        None => Ok(()),
    }
}

/// What a drawing says and in which colours, without what depends on where a kernel lies: of events, what they are; of areas, who
/// asked for them; all of the title and of each region.
fn outline(drawing: &str) -> BTreeSet<String> {
    let mut outline = BTreeSet::new();
    for piece in drawing.split("<text ").skip(1) {
        let words = piece
            .split_once('>')
            .and_then(|(_, words)| words.split_once("</text>"));
        let words = words.map_or("", |(words, _)| words);
        let event = words
            .strip_prefix("CPU ")
            .and_then(|rest| rest.split(' ').nth(1));
        let is_number = |letter: char| letter.is_ascii_digit();
        outline.insert(match event {
            Some(event) => format!("event {event}"),
            None if words.contains(": 0x") || words.contains("addresses") => words.to_owned(),
            // Who asked for an area, without the line.
            None if words.contains(".rs:") => {
                let place = words.rsplit(' ').next().unwrap_or_default();
                place.trim_end_matches(is_number).to_owned()
            }
            None if words.starts_with(is_number) => continue,
            None => words.split(is_number).next().unwrap_or_default().to_owned(),
        });
    }
    let fills = drawing.split("fill=\"").skip(1);
    outline.extend(
        fills
            .filter_map(|piece| piece.split('"').next())
            .map(str::to_owned),
    );
    outline
}

fn same(now: &BTreeSet<String>, then: &BTreeSet<String>) -> Result<(), Failed> {
    let differ: Vec<_> = now.symmetric_difference(then).collect();
    match differ.is_empty() && !now.is_empty() {
        true => Ok(()),
        false => Err(format!("{differ:?} are in one of the drawings only. {HOW}").into()),
    }
}
