//! Recorded memory of a real machine (`tests/data/recorded-ram`) in a terminal: every pane, cell by cell and colour by colour, in the
//! smallest terminal and in a larger one. `UPDATE_EXPECT=1` writes the screens anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::slice;

use expect_test::expect_file;
use mm::report::EventKind;
use mm_tests::recorded::{self, HOW};
use mm_viewer::frame::describe;
use mm_viewer::guest::Guest;
use mm_viewer::owner::Owner;
use mm_viewer::picture::Picture;
use mm_viewer::ram::Ram;
use mm_viewer::snapshot::Snapshot;
use mm_viewer::tui::{Asked, KeyCode, KeyEvent, KeyModifiers, Pane, Status, Ui, draw};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::Color;

/// Columns and rows.
const SIZES: [(u16, u16); 2] = [(80, 24), (132, 43)];

/// The memory, unpacked for as long as the test runs.
struct Recorded {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Recorded {
    fn unpack() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ram");
        recorded::unpack(&path).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn attach(&self) -> Guest {
        let ram = Ram::open(slice::from_ref(&self.path)).unwrap();
        match Guest::attach(ram) {
            Ok(guest) => guest,
            Err((error, _)) => panic!("{error}\n{HOW}"),
        }
    }
}

/// A screen that has looked at it once, as the loop of the viewer does.
fn screen(guest: &Guest, keys: &str) -> Ui {
    let mut ui = Ui::new("recorded");
    ui.look(guest);
    ui.status = Status::Seen;
    for key in keys.chars() {
        let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE);
        assert_eq!(ui.key(key), Asked::Nothing);
        // Who goes back pauses first, and looks at all of the past.
        if ui.is_paused && ui.past.undone == 0 {
            ui.look(guest);
        }
    }
    ui
}

fn drawn(ui: &mut Ui, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, ui)).unwrap();
    terminal.backend().buffer().clone()
}

/// How a cell looks, but for what is written in it.
fn style(cell: &Cell) -> String {
    let colour = |colour: Color| match colour {
        Color::Rgb(red, green, blue) => {
            let mut owners = Owner::ALL.into_iter();
            let owner = owners.find(|owner| owner.colour() == [red, green, blue]);
            let name = owner.map_or("", Owner::name);
            format!("#{red:02x}{green:02x}{blue:02x} {name}")
        }
        other => format!("{other:?}"),
    };
    let style = format!(
        "{:?} {} on {}",
        cell.modifier,
        colour(cell.fg),
        colour(cell.bg)
    );
    style.trim_end().to_owned()
}

/// What is written, row by row; below it a letter for how each cell looks; below that, what the letters stand for.
fn text(buffer: &Buffer) -> String {
    const LETTERS: &[u8] = b".abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (width, height) = (buffer.area.width, buffer.area.height);
    let mut styles: Vec<String> = vec![style(&Cell::EMPTY)];
    let (mut words, mut looks) = (String::new(), String::new());
    for y in 0..height {
        let mut row = [String::new(), String::new()];
        for x in 0..width {
            let cell = &buffer[(x, y)];
            let style = style(cell);
            let place = styles.iter().position(|known| *known == style);
            let place = place.unwrap_or_else(|| {
                styles.push(style);
                styles.len() - 1
            });
            row[0].push_str(cell.symbol());
            row[1].push(char::from(LETTERS[place]));
        }
        writeln!(words, "{}", row[0].trim_end()).unwrap();
        writeln!(looks, "{}", row[1].trim_end_matches('.')).unwrap();
    }
    let mut text = format!("{words}----\n{looks}----\n");
    for (letter, style) in LETTERS.iter().zip(styles) {
        writeln!(text, "{} {style}", char::from(*letter)).unwrap();
    }
    text
}

fn compare(name: &str, ui: &mut Ui) {
    for size in SIZES {
        // The map's cells are as many as it had room for when it was drawn last.
        drawn(ui, size);
        let text = text(&drawn(ui, size));
        let file = format!("{name}-{}x{}.txt", size.0, size.1);
        expect_file![recorded::folder().join(file)].assert_eq(&text);
    }
}

#[test]
fn every_pane_is_drawn_as_before() {
    let recorded = Recorded::unpack();
    let guest = recorded.attach();
    for (number, pane) in (1..).zip(Pane::ALL) {
        let mut ui = screen(&guest, &number.to_string());
        assert_eq!(ui.pane, pane);
        ui.console = vec!["mm> what the machine printed".to_owned()];
        ui.selected = describe(&guest, &ui.snapshot, ui.cursor, &mut |_| None);
        compare(&pane.name().to_lowercase(), &mut ui);
    }
    compare("help", &mut screen(&guest, "2?"));
}

/// A frame of each kind that has more to say, in the middle of the map and large.
#[test]
fn frames_tell_what_they_are_for() {
    let recorded = Recorded::unpack();
    let guest = recorded.attach();
    let mut told = String::new();
    for owner in [Owner::Slab, Owner::PageTable, Owner::Stack, Owner::Used] {
        let mut ui = screen(&guest, "");
        let found = ui.snapshot.owners.iter().position(|found| *found == owner);
        ui.cursor = found.unwrap() as u64;
        ui.selected = describe(&guest, &ui.snapshot, ui.cursor, &mut |_| None);
        assert!(ui.selected.len() >= 3, "{:?}", ui.selected);
        writeln!(told, "{}\n", ui.selected.join("\n")).unwrap();
        if owner == Owner::Slab {
            drawn(&mut ui, SIZES[0]);
            for _ in 0..3 {
                ui.key(KeyEvent::new(KeyCode::Char('+'), KeyModifiers::NONE));
            }
            compare("zoom", &mut ui);
        }
    }
    expect_file![recorded::folder().join("frames.txt")].assert_eq(&told);
}

/// The last events are undone, and what is free is what was free before.
#[test]
fn the_past_is_drawn_as_before() {
    let recorded = Recorded::unpack();
    let guest = recorded.attach();
    let mut ui = screen(&guest, "8[[[[");
    assert_eq!((ui.is_paused, ui.past.undone), (true, 3));
    compare("past", &mut ui);
    let now = Snapshot::take(&guest).owners;
    let kinds = [
        EventKind::Alloc,
        EventKind::Split,
        EventKind::Merge,
        EventKind::Refill,
    ];
    for kind in kinds {
        let mut events = ui.past.history.events.iter();
        assert!(
            events.any(|happening| happening.event.kind == kind),
            "{kind:?}"
        );
    }
    let mut ui = screen(&guest, "8{{");
    assert_ne!(ui.snapshot.owners, now);
    ui.key(KeyEvent::new(KeyCode::Char('n'), KeyModifiers::NONE));
    assert_eq!(ui.snapshot.owners, now);
}

/// `view FILE`, as somebody would type it who has unpacked the file.
#[test]
fn it_is_opened_as_users_open_it() {
    let recorded = Recorded::unpack();
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let view = |option: &str, out: &Path| {
        let words = [
            "view".into(),
            recorded.path.clone(),
            option.into(),
            out.to_owned(),
        ];
        boot_runner::cli::main(words.map(PathBuf::into_os_string))
    };
    assert_eq!(view("--picture", &out("map.png")), 0);
    let guest = recorded.attach();
    let title = recorded.path.display().to_string();
    let picture = Picture::new(&Snapshot::take(&guest), &title);
    picture.save(&out("same.png")).unwrap();
    let read = |name| std::fs::read(out(name)).unwrap();
    assert!(read("map.png") == read("same.png"));
    assert_eq!(view("--splits", &out("splits.svg")), 0);
    assert_eq!(view("--addresses", &out("addresses.svg")), 0);
    let drawing = String::from_utf8(read("addresses.svg")).unwrap();
    assert!(
        drawing.contains("kernel image: 0xffffffff80000000"),
        "{drawing}"
    );
}

/// What a user is told whose viewer knows another layout.
#[test]
fn another_version_of_it_is_told() {
    use std::os::unix::fs::FileExt;
    let recorded = Recorded::unpack();
    let own = recorded.attach().header().own.as_u64();
    let file = std::fs::File::options()
        .write(true)
        .open(&recorded.path)
        .unwrap();
    file.write_all_at(&(mm::inspect::VERSION + 1).to_le_bytes(), own + 16)
        .unwrap();
    let words = [
        "view".into(),
        recorded.path.clone(),
        "--picture".into(),
        "/dev/null".into(),
    ];
    assert_eq!(
        boot_runner::cli::main(words.map(PathBuf::into_os_string)),
        121
    );
    let ram = Ram::open(slice::from_ref(&recorded.path)).unwrap();
    let (error, _) = Guest::attach(ram).unwrap_err();
    assert!(error.to_string().contains("version"), "{error}");
}
