//! What is drawn, and what keys do, without a terminal.

use expect_test::expect;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use mm::addr::Pfn;
use mm::report::{Event, EventKind};

use super::{Asked, KeyCode, KeyEvent, KeyModifiers, Order, Pane, Past, Status, Ui, draw};
use crate::areas::{Area, State};
use crate::guest::AttachError;
use crate::history::{Happening, History};
use crate::owner::{Owner, Type};
use crate::snapshot::{Cache, CpuList, Snapshot, Zone};

fn snapshot() -> Snapshot {
    let mut owners = vec![Owner::Free(Type::Movable); 16384];
    owners[..1024].fill(Owner::Reserved);
    owners[1024..1536].fill(Owner::Slab);
    owners[4096..4106].fill(Owner::PageTable);
    let numbers = [
        ("managed", 15360),
        ("free", 14000),
        ("min", 300),
        ("low", 1500),
        ("high", 3000),
    ];
    let mut blocks = [0; 16];
    blocks[10] = 13;
    blocks[0] = 5;
    Snapshot {
        owners,
        zones: vec![Zone {
            name: "DMA32".to_owned(),
            span: (0, 16384),
            present: 16384,
            numbers: numbers.map(|(name, value)| (name.to_owned(), value)).into(),
            blocks,
            lists: vec![CpuList {
                count: 63,
                high: 252,
                batch: 63,
                freed: 12345,
                ..CpuList::default()
            }],
            ..Zone::default()
        }],
        caches: [
            ("kmalloc-64", 64, 7, 3),
            ("inode", 600, 9, 9),
            ("anon_vma", 80, 1, 1),
        ]
        .map(|(name, size, taken, slabs)| Cache {
            name: name.to_owned(),
            size,
            per_slab: 16,
            taken,
            slabs,
            frames: slabs,
            ..Cache::default()
        })
        .to_vec(),
        areas: vec![Area {
            start: 0xffff_c900_0000_0000,
            end: 0xffff_c900_0000_5000,
            state: State::Waits,
            kind: "vmalloc",
            asked: 16384,
            place: Some("kernel/src/memory/stacks.rs:56".to_owned()),
        }],
        numbers: [("table_frames".to_owned(), 10)].into(),
    }
}

fn ui() -> Ui {
    let mut ui = Ui::new("64M of memory, 1 CPUs");
    ui.snapshot = snapshot();
    ui.status = Status::Seen;
    ui
}

fn press(ui: &mut Ui, code: KeyCode) -> Asked {
    ui.key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// The screen as text, and the colours of a column of the map.
fn screen(ui: &mut Ui, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, ui)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..height).map(|y| {
        let row: String = (0..width)
            .map(|x| buffer[(x, y)].symbol().to_owned())
            .collect();
        format!("{}\n", row.trim_end())
    });
    rows.collect()
}

#[test]
fn zones_have_bars_and_blocks() {
    let mut ui = ui();
    press(&mut ui, KeyCode::Char('2'));
    expect![[r#"
         1 map  2 zones  3 CPUs  4 caches  5 areas  6 numbers  7 console  8 events  64M
        node 0 DMA32    54M of 60M free; min 300 low 1500 high 3000 boost 0
         m     l      h
        free blocks      5     0     0     0     0     0     0     0     0     0    13
        of order         0     1     2     3     4     5     6     7     8     9    10


        live  arrows scroll  p pause  ? help  q quit
    "#]]
    .assert_eq(&screen(&mut ui, (80, 8)));
}

#[test]
fn caches_are_sorted_as_asked() {
    let mut ui = ui();
    press(&mut ui, KeyCode::Char('4'));
    let first = |ui: &mut Ui| {
        let text = screen(ui, (80, 8));
        text.lines()
            .nth(2)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push((ui.order, first(&mut ui)));
        press(&mut ui, KeyCode::Char('s'));
    }
    let names = ["inode", "anon_vma", "inode", "inode"].map(str::to_owned);
    let orders = [Order::Frames, Order::Name, Order::Size, Order::Objects];
    assert_eq!(seen, orders.into_iter().zip(names).collect::<Vec<_>>());
    assert_eq!(ui.order, Order::Frames);
}

#[test]
fn the_map_has_a_cell_for_frames_and_a_legend() {
    let mut ui = ui();
    ui.selected = vec!["frame 0x0, address 0x0: reserved".to_owned()];
    let text = screen(&mut ui, (80, 24));
    for words in [
        "free, movable",
        "reserved",
        "slab",
        "page tables",
        "frame 0x0, address",
        "a cell is 128K",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // All colours of the map, one cell after the other.
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &mut ui)).unwrap();
    let buffer = terminal.backend().buffer();
    let (columns, rows) = ui.cells;
    let (_, log) = ui.shown();
    let mut seen = 0;
    for place in 0..ui.snapshot.owners.len() as u64 >> log {
        let at = ((place % columns) as u16, 1 + (place / columns) as u16);
        let [red, green, blue] = ui.snapshot.owners[(place << log) as usize].colour();
        // Ten page tables are less than half of a cell.
        if ui.snapshot.owners[(place << log) as usize] != Owner::PageTable {
            assert_eq!(
                buffer[at].bg,
                ratatui::style::Color::Rgb(red, green, blue),
                "{place}"
            );
        }
        seen += 1;
    }
    assert!(seen <= columns * rows && seen > columns * rows / 2);
}

#[test]
fn the_cursor_moves_and_the_window_follows() {
    let mut ui = ui();
    let _ = screen(&mut ui, (80, 24));
    let (_, all) = ui.shown();
    press(&mut ui, KeyCode::Right);
    assert_eq!(ui.cursor, 1 << all);
    press(&mut ui, KeyCode::Down);
    assert_eq!(ui.cursor, (1 + ui.cells.0) << all);
    press(&mut ui, KeyCode::End);
    assert_eq!(ui.cursor, 16383);
    for zoom in 1..=all {
        press(&mut ui, KeyCode::Char('+'));
        let (first, log) = ui.shown();
        assert_eq!(log, all - zoom);
        let shown = (ui.cells.0 * ui.cells.1) << log;
        assert!(
            first <= ui.cursor && ui.cursor < first + shown,
            "{first} {log}"
        );
    }
    press(&mut ui, KeyCode::Home);
    assert_eq!((ui.cursor, ui.shown()), (0, (0, 0)));
    press(&mut ui, KeyCode::PageDown);
    press(&mut ui, KeyCode::Up);
    let (first, log) = ui.shown();
    assert!(first <= ui.cursor && ui.cursor < first + ((ui.cells.0 * ui.cells.1) << log));
    press(&mut ui, KeyCode::Char('0'));
    assert_eq!(ui.shown(), (0, all));
    // Whatever is pressed, on whatever screen, without a machine too.
    for (width, height) in [(1, 1), (20, 3), (80, 24), (300, 100)] {
        for mut ui in [Ui::new(""), super::tests::ui()] {
            for code in [
                KeyCode::Down,
                KeyCode::Char('+'),
                KeyCode::End,
                KeyCode::Up,
                KeyCode::Char('-'),
                KeyCode::Tab,
            ] {
                for _ in 0..9 {
                    press(&mut ui, code);
                    let _ = screen(&mut ui, (width, height));
                }
            }
        }
    }
}

#[test]
fn keys_of_the_console_are_the_machines() {
    let mut ui = ui();
    press(&mut ui, KeyCode::Char('7'));
    assert_eq!(ui.pane, Pane::Console);
    assert_eq!(
        press(&mut ui, KeyCode::Char('q')),
        Asked::Type(b"q".to_vec())
    );
    assert_eq!(press(&mut ui, KeyCode::Enter), Asked::Type(b"\r".to_vec()));
    let stop = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(ui.key(stop), Asked::Type(vec![3]));
    assert_eq!(press(&mut ui, KeyCode::Esc), Asked::Nothing);
    assert_eq!(ui.pane, Pane::Events);
    press(&mut ui, KeyCode::Tab);
    assert_eq!(ui.pane, Pane::Map);
    press(&mut ui, KeyCode::Char('?'));
    assert!(screen(&mut ui, (80, 24)).contains("Any key closes this."));
    assert_eq!(press(&mut ui, KeyCode::Char('q')), Asked::Nothing);
    assert!(!ui.helps);
    press(&mut ui, KeyCode::Char('p'));
    assert!(ui.is_paused && screen(&mut ui, (80, 24)).contains("paused"));
    assert_eq!(press(&mut ui, KeyCode::Char('q')), Asked::Quit);
}

#[test]
fn what_happened_is_undone_and_done_again() {
    let mut ui = ui();
    press(&mut ui, KeyCode::Char('8'));
    assert!(screen(&mut ui, (80, 8)).contains("nothing is recorded"));
    let events = [
        (EventKind::Free, 1024, 0),
        (EventKind::Give, 1024, 0),
        (EventKind::Take, 8192, 1),
        (EventKind::Alloc, 8192, 1),
    ];
    let events = (0..)
        .zip(events)
        .map(|(time, (kind, pfn, order))| Happening {
            time: 1000 * time,
            cpu: 1,
            event: Event::block(kind, Pfn::new(pfn), mm::addr::Order::new(order).unwrap()),
        });
    ui.snapshot.owners[1024] = Owner::Free(Type::Movable);
    ui.snapshot.owners[8192..8194].fill(Owner::Used);
    // As a look finds it.
    ui.past = Past::new(
        History {
            events: events.collect(),
            per_second: Some(1_000_000_000),
            is_recorded: true,
        },
        &ui.snapshot,
    );
    let live = ui.snapshot.owners.clone();
    // The first key stops the time where nobody did.
    press(&mut ui, KeyCode::Char('['));
    assert!(ui.is_paused);
    expect![[r#"
         1 map  2 zones  3 CPUs  4 caches  5 areas  6 numbers  7 console  8 events  64M
        us           CPU what     of what
        -1.0         1   take     0x2000 order 1, unmovable
        -2.0         1   give     0x400 order 0
        -3.0         1   free     0x400 order 0


        1 events, 1.0 us back  [ ] go back and forth in time  p pause  ? help  q quit
    "#]]
    .assert_eq(&screen(&mut ui, (80, 8)));
    assert_eq!(ui.snapshot.owners[8193], Owner::PerCpu);
    press(&mut ui, KeyCode::Char('['));
    assert_eq!(ui.snapshot.owners[8193], Owner::Free(Type::Movable));
    press(&mut ui, KeyCode::Char('{'));
    assert_eq!(ui.snapshot.owners[1024], Owner::Used);
    assert!(screen(&mut ui, (80, 8)).contains("4 events back"));
    press(&mut ui, KeyCode::Char('}'));
    assert_eq!(ui.snapshot.owners, live);
    for key in ['[', '[', 'n'] {
        press(&mut ui, KeyCode::Char(key));
    }
    assert_eq!((ui.snapshot.owners.clone(), ui.past.undone), (live, 0));
}

/// All of it is to be read in 80 columns and 24 rows.
#[test]
fn help_and_the_reason_why_nothing_is_seen_are_whole() {
    let mut ui = ui();
    ui.helps = true;
    let shown = screen(&mut ui, (80, 24));
    for line in draw::HELP {
        assert!(shown.contains(line.trim_end()), "{line}:\n{shown}");
    }
    for error in [
        AttachError::Nothing,
        AttachError::Sheet(mm::inspect::NotASheet::Version(2)),
        AttachError::Cut {
            here: 1 << 30,
            machine: 1 << 40,
        },
    ] {
        let mut ui = Ui::new("");
        ui.status = Status::Unseen(error.to_string());
        let shown = screen(&mut ui, (80, 24));
        let words: Vec<_> = shown.split([' ', '\n', '\u{2502}']).collect();
        for word in error.to_string().split(' ') {
            assert!(words.contains(&word), "{word}:\n{shown}");
        }
        // Nor does a very small terminal hurt.
        for size in [(1, 1), (20, 5), (80, 3)] {
            screen(&mut ui, size);
        }
    }
}

/// Of a place in the sources the end is shown, where the line is.
#[test]
fn places_end_with_their_line() {
    let mut ui = ui();
    press(&mut ui, KeyCode::Char('5'));
    let place = "kernel/src/memory/vmalloc_stress.rs:1234";
    ui.snapshot.areas[0].place = Some(place.to_owned());
    let small = screen(&mut ui, (80, 24));
    assert!(
        small.contains("waits …el/src/memory/vmalloc_stress.rs:1234\n"),
        "{small}"
    );
    assert!(screen(&mut ui, (100, 24)).contains(place));
}
