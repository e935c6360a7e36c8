//! What `view` draws on the machine's own screen is the picture that the viewer makes of the same memory, pixel by pixel.

use core::time::Duration;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use boot_runner::input::{Input, PROMPT};
use boot_runner::show;
use boot_runner::vm::Boot;
use libtest_mimic::{Failed, Trial};
use mm_viewer::picture::{Picture, palette};
use mm_viewer::snapshot::Snapshot;

use crate::cases::Ending;
use crate::{ending, guest, trial};

/// Machines with a screen; small and large, so that a dot is one frame or many.
const SCREENS: &[(&str, &str)] = &[
    ("q35", "--qemu-arg -vga --qemu-arg std"),
    (
        "pc_4_cpus_2G_debug",
        "--machine pc --cpus 4 --memory 2G --profile debug --qemu-arg -vga --qemu-arg std",
    ),
    (
        "two_nodes_6G",
        "--numa 2 --cpus 2 --memory 6G --qemu-arg -vga --qemu-arg std",
    ),
    // The framebuffer that GRUB leaves, of 800x600.
    ("bios", "--firmware bios"),
    ("uefi", "--firmware uefi"),
];

/// Time for everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the two are compared until they are the same.
const TRIES: u32 = 30;
/// The title that the kernel draws.
const TITLE: &str = "Frames of this machine";

/// Machines without.
const NONE: &[Ending] = &[
    none("none", ""),
    none("none_of_microvm", "--machine microvm"),
];

const fn none(name: &'static str, options: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("view"),
        status: 1,
        says: "view: error: this machine has no screen",
    }
}

/// All of them.
pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    let shown = SCREENS
        .iter()
        .map(|(name, options)| trial("screen", name, || is_shown(options)));
    let none = NONE.iter().map(|case| {
        trial("screen", case.name, || {
            let (status, said) = ending(case)?;
            match status == case.status && said.contains(case.says) {
                true => Ok(()),
                false => Err(format!("exit status {status}:\n{said}").into()),
            }
        })
    });
    let at_once = trial(
        "screen",
        "does_not_wait_for_commands_of_the_command_line",
        || {
            crate::succeeds_and_says(
                SCREENS[0].1,
                "view; echo behind",
                &[" frames, 1 of them to a dot\n", "\nbehind\n"],
            )
        },
    );
    shown.chain(none).chain([at_once])
}

/// What the machine prints, for who waits for it.
struct Output(Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _nobody_waits = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the machine has printed something; answers all that it printed till then.
fn wait_for(words: &str, output: &Receiver<Vec<u8>>) -> Result<String, Failed> {
    let end = Instant::now() + PATIENCE;
    let mut printed = String::new();
    while !printed.contains(words) {
        let left = end.saturating_duration_since(Instant::now());
        match output.recv_timeout(left) {
            Ok(bytes) => printed.push_str(&String::from_utf8_lossy(&bytes)),
            Err(_) => return Err(format!("no {words:?}:\n{printed}").into()),
        }
    }
    Ok(printed)
}

/// Has QEMU write what is on the screen to a file.
pub(crate) fn dump(monitor: &Path, file: &Path) -> Result<(), Failed> {
    let mut monitor = UnixStream::connect(monitor)?;
    monitor.set_read_timeout(Some(PATIENCE))?;
    let wait = |monitor: &mut UnixStream| -> Result<(), Failed> {
        let mut said = Vec::new();
        let mut bytes = [0; 256];
        while !said.ends_with(b"(qemu) ") {
            let count = monitor.read(&mut bytes)?;
            if count == 0 {
                return Err("the monitor has gone".into());
            }
            said.extend_from_slice(&bytes[..count]);
        }
        Ok(())
    };
    wait(&mut monitor)?;
    writeln!(monitor, "screendump {}", file.display())?;
    wait(&mut monitor)
}

/// A picture: pixels from side to side, and all of them.
pub(crate) struct Dump {
    pub(crate) width: usize,
    pub(crate) pixels: Vec<[u8; 3]>,
}

impl Dump {
    /// From a file as QEMU writes it (Netpbm's `P6`).
    pub(crate) fn read(file: &Path) -> Result<Self, Failed> {
        let bytes = fs::read(file)?;
        let mut rest = bytes.as_slice();
        let mut words = Vec::new();
        while words.len() < 4 {
            let end = rest.iter().position(u8::is_ascii_whitespace);
            let (word, behind) = rest.split_at(end.ok_or("no header")?);
            words.push(String::from_utf8_lossy(word).into_owned());
            rest = &behind[1..];
        }
        let (width, height): (usize, usize) = (words[1].parse()?, words[2].parse()?);
        let pixels: Vec<[u8; 3]> = rest
            .chunks_exact(3)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect();
        match words[0] == "P6" && words[3] == "255" && pixels.len() == width * height {
            true => Ok(Self { width, pixels }),
            false => Err(format!("{words:?} and {} pixels", pixels.len()).into()),
        }
    }

    /// The picture is in the left upper corner, and nothing else anywhere.
    fn is(&self, picture: &Picture) -> Result<(), Failed> {
        let (palette, wide) = (palette(), picture.width() as usize);
        let high = picture.height() as usize;
        let background = palette[palette.len() - 2];
        let mut wrong = 0;
        let mut first = None;
        for (place, pixel) in self.pixels.iter().enumerate() {
            let (x, y) = (place % self.width, place / self.width);
            let wanted = match x < wide && y < high {
                true => palette[usize::from(picture.pixels()[y * wide + x])],
                false => background,
            };
            if *pixel != wanted {
                wrong += 1;
                first = first.or(Some((x, y, *pixel, wanted)));
            }
        }
        match wrong {
            0 => Ok(()),
            _ => Err(format!(
                "{wrong} of {} pixels differ, first of all {first:?}",
                self.pixels.len()
            )
            .into()),
        }
    }
}

/// The screen, and the picture of memory as it is.
fn compare(monitor: &Path, file: &Path, files: &[PathBuf]) -> Result<(), Failed> {
    dump(monitor, file)?;
    let guest = show::attach(files).map_err(|error| error.to_string())?;
    let snapshot = Snapshot::take(&guest);
    let shown = Dump::read(file)?;
    let high = shown.pixels.len() / shown.width;
    let picture = Picture::within(&snapshot, TITLE, (shown.width as u32, high as u32));
    shown.is(&picture.ok_or("there is no room for the map")?)
}

fn is_shown(options: &str) -> Result<(), Failed> {
    with_screen(options, "", compare)
}

/// Types a command, and `view` until `look` is content with what is on the screen: it gets the monitor, a file for a dump, and the memory.
pub(crate) fn with_screen(
    options: &str,
    command: &str,
    mut look: impl FnMut(&Path, &Path, &[PathBuf]) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (monitor, file) = (
        folder.path().join("monitor"),
        folder.path().join("screen.ppm"),
    );
    let mut options = guest::options(options)?;
    options.machine.ram_file = Some(folder.path().join("ram"));
    let socket = format!("unix:{},server=on,wait=off", monitor.display());
    options
        .machine
        .extra_args
        .extend(["-monitor".to_owned(), socket]);
    let files = options.machine.ram_files();
    let boot = Boot {
        image: guest::kernel(options.kernel).map_err(guest::GuestError::Build)?,
        machine: options.machine.clone(),
        cmdline: options.cmdline.clone(),
        timeout: Some(PATIENCE),
    };
    let (keys, typed) = channel();
    let (printed, output) = channel();
    let machine = thread::spawn(move || boot.run(Input::Typed(typed), &mut Output(printed)));
    let looked = wait_for(PROMPT, &output).and_then(|_| {
        keys.send(format!("{command}\r").into_bytes())?;
        wait_for(PROMPT, &output)?;
        // Records of frames are made in the background for some time: then what was drawn is not what is there any more.
        let mut compared = Err("not looked yet".into());
        for _ in 0..TRIES {
            keys.send(b"view\r".to_vec())?;
            wait_for("any key leads back", &output)?;
            compared = look(&monitor, &file, &files);
            keys.send(b" ".to_vec())?;
            wait_for(PROMPT, &output)?;
            if compared.is_ok() {
                break;
            }
            thread::sleep(Duration::from_secs(1));
        }
        compared
    });
    // However that went, the machine ends.
    keys.send(b" \rpoweroff\r".to_vec())?;
    let finished = machine.join().map_err(|_| "the runner panicked")?;
    looked?;
    finished.map_err(|error| error.to_string())?;
    Ok(())
}
