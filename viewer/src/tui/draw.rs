//! Drawing: from what is known to cells of a terminal, and nothing else.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, Wrap};

use super::{Order, Pane, Status, Ui};
use crate::areas::State;
use crate::grid::Grid;
use crate::owner::Owner;
use crate::picture::mib;
use crate::snapshot::{Cache, Zone};

/// Columns of the legend beside the map.
const LEGEND: u16 = 32;
/// Rows for what is selected, at least.
const DETAIL: u16 = 5;

/// What `?` shows.
pub(super) const HELP: [&str; 17] = [
    "1-8, Tab     panes: map, zones, CPUs, caches, areas, numbers, console,",
    "             events",
    "arrows       move in the map, scroll in lists; PageUp/Down, Home, End",
    "+  -  0      zoom in, zoom out, all of it",
    "s            caches: sort by frames, name, size, objects",
    "p, space     pause, go on",
    "[  ]  n      in time: an event back, an event forward, now;",
    "{  }         a hundred events (of a machine that runs with --events)",
    "?, h, F1     this",
    "q, Esc       quit",
    "",
    "In the console, keys go to the machine; Esc or Tab leads away.",
    "",
    "A cell has the colour of what most of its frames are used for.",
    "The machine is not asked and not stopped: what changes while it is",
    "read may be seen half.",
    "Any key closes this.",
];

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, ui: &mut Ui) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [top, body, bottom] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(tabs(ui)), top);
    match ui.pane {
        Pane::Map => map(frame, ui, body),
        Pane::Zones => list(frame, ui, body, zones(ui)),
        Pane::Cpus => table(frame, ui, body, &cpus(ui)),
        Pane::Caches => table(frame, ui, body, &caches(ui)),
        Pane::Areas => table(frame, ui, body, &areas(ui, body.width)),
        Pane::Numbers => table(frame, ui, body, &numbers(ui)),
        Pane::Console => console(frame, ui, body),
        // There may be a million: only those in sight become words.
        Pane::Events => {
            let first = ui.scroll.min(ui.happened().saturating_sub(1));
            table_from(frame, 0, body, &events(ui, (first, body.height.into())));
        }
    }
    frame.render_widget(Paragraph::new(foot(ui)), bottom);
    if let Status::Unseen(why) = &ui.status
        && ui.pane != Pane::Console
    {
        unseen(frame, why, body);
    }
    if ui.helps {
        help(frame);
    }
}

/// Why nothing is seen, with all its words.
fn unseen(frame: &mut Frame<'_>, why: &str, area: Rect) {
    let (width, height) = (60.min(area.width), 6.min(area.height));
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let text = Paragraph::new(why).wrap(Wrap { trim: true });
    let block = Block::bordered().title(" nothing to see yet ");
    frame.render_widget(text.block(block), area);
}

fn tabs(ui: &Ui) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, pane) in (1..).zip(Pane::ALL) {
        let style = if pane == ui.pane {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        spans.push(Span::styled(format!(" {number} {} ", pane.name()), style));
    }
    spans.push(Span::raw(format!(" {}", ui.title)).dim());
    Line::from(spans)
}

fn foot(ui: &Ui) -> Line<'static> {
    let status = match (&ui.status, ui.when()) {
        (_, Some(when)) => Span::raw(when).yellow(),
        (Status::Seen, None) if ui.is_paused => Span::raw("paused").yellow(),
        (Status::Seen, None) => Span::raw("live").green(),
        (Status::Unseen(_), None) => Span::raw("nothing to see yet").yellow(),
        (Status::Ended(how), None) => Span::raw(how.clone()).red(),
    };
    let keys = match ui.pane {
        Pane::Map => "  arrows move, + - 0 zoom",
        Pane::Caches => "  s sorts, arrows scroll",
        Pane::Events => "  [ ] go back and forth in time",
        Pane::Console => "  keys go to the machine, Esc leads away",
        _ => "  arrows scroll",
    };
    Line::from(vec![
        status,
        Span::raw(keys).dim(),
        Span::raw("  p pause  ? help  q quit").dim(),
    ])
}

fn colour(owner: Owner) -> Color {
    let [red, green, blue] = owner.colour();
    Color::Rgb(red, green, blue)
}

fn map(frame: &mut Frame<'_>, ui: &mut Ui, area: Rect) {
    let columns = Layout::horizontal([Constraint::Min(16), Constraint::Length(LEGEND)]);
    // As many rows as there are lines, under a rule.
    let lines = u16::try_from(ui.selected.len()).unwrap_or(DETAIL);
    let detail = DETAIL.max(lines.saturating_add(1));
    let rows = Layout::vertical([Constraint::Min(1), Constraint::Length(detail)]);
    let [upper, lower] = rows.areas(area);
    let [cells, legend] = columns.areas(upper);
    ui.cells = (
        u64::from(cells.width.max(1)),
        u64::from(cells.height.max(1)),
    );
    let (first, log) = ui.shown();
    let count = usize::from(cells.width) * usize::from(cells.height);
    let grid = Grid::new(&ui.snapshot.owners, first, log, count);
    let cursor = ui.cursor.checked_sub(first).map(|behind| behind >> log);
    let buffer = frame.buffer_mut();
    for (place, owner) in (0_u64..).zip(&grid.cells) {
        let (x, y) = (place % ui.cells.0, place / ui.cells.0);
        let at = (cells.x + x as u16, cells.y + y as u16);
        if let Some(cell) = buffer.cell_mut(at) {
            cell.set_bg(colour(*owner));
            if cursor == Some(place) {
                cell.set_char('\u{2588}').set_fg(Color::White);
            }
        }
    }
    legend_of(frame, ui, legend, log);
    let lines: Vec<_> = ui
        .selected
        .iter()
        .map(|line| Line::raw(line.clone()))
        .collect();
    let border = Block::new().borders(ratatui::widgets::Borders::TOP);
    frame.render_widget(Paragraph::new(lines).block(border), lower);
}

fn legend_of(frame: &mut Frame<'_>, ui: &Ui, area: Rect, log: u32) {
    let counts = ui.snapshot.counts();
    let present = Owner::ALL
        .into_iter()
        .zip(counts)
        .filter(|&(_, count)| count > 0);
    let mut lines: Vec<_> = present
        .map(|(owner, count)| {
            Line::from(vec![
                Span::raw(" "),
                Span::styled("  ", Style::new().bg(colour(owner))),
                Span::raw(format!(" {:<20}{:>7}", owner.name(), mib(count))),
            ])
        })
        .collect();
    lines.push(Line::raw(format!(" a cell is {}", mib(1 << log))).dim());
    frame.render_widget(Paragraph::new(lines), area);
}

/// A bar of so many columns: what is free, with marks.
fn bar(zone: &Zone, width: u64) -> Line<'static> {
    let managed = zone.number("managed").max(1);
    let place = |frames: u64| {
        let part = u128::from(frames.min(managed)) * u128::from(width) / u128::from(managed);
        u64::try_from(part).unwrap_or(width)
    };
    let free = place(zone.free());
    let marks = ["min", "low", "high"].map(|name| place(zone.number(name)));
    let spans = (0..width).map(|column| {
        let mark = marks.iter().position(|&mark| mark == column);
        let letter = match mark {
            Some(0) => "m",
            Some(1) => "l",
            Some(_) => "h",
            None => " ",
        };
        let style = match column < free {
            true => Style::new().bg(Color::Rgb(0x2f, 0x8f, 0x57)),
            false => Style::new().bg(Color::Rgb(0x3a, 0x3f, 0x47)),
        };
        Span::styled(letter, style)
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn zones(ui: &Ui) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for zone in &ui.snapshot.zones {
        lines.push(
            Line::raw(format!(
                "node {} {:<8} {} of {} free; min {} low {} high {} boost {}",
                zone.node,
                zone.name,
                mib(zone.free()),
                mib(zone.number("managed")),
                zone.number("min"),
                zone.number("low"),
                zone.number("high"),
                zone.number("boost"),
            ))
            .bold(),
        );
        lines.push(bar(zone, 72));
        let blocks = zone.blocks.iter().take(11);
        let row: String = blocks.map(|count| format!("{count:>6}")).collect();
        lines.push(Line::raw(format!("free blocks {row}")));
        let orders: String = (0..11).map(|order| format!("{order:>6}")).collect();
        lines.push(Line::raw(format!("of order    {orders}")).dim());
        lines.push(Line::raw(""));
    }
    lines
}

/// Rows of a table: what heads them, how wide they are, and they.
struct Rows {
    head: Vec<String>,
    widths: Vec<u16>,
    rows: Vec<Vec<String>>,
}

fn cpus(ui: &Ui) -> Rows {
    let mut rows = Vec::new();
    for zone in &ui.snapshot.zones {
        for (cpu, list) in zone.lists.iter().enumerate() {
            rows.push(vec![
                cpu.to_string(),
                format!("{} {}", zone.node, zone.name),
                list.count.to_string(),
                list.high.to_string(),
                list.batch.to_string(),
                list.freed.to_string(),
                list.refills.to_string(),
                list.drains.to_string(),
            ]);
        }
    }
    let head = [
        "CPU", "zone", "count", "high", "batch", "freed", "refills", "drains",
    ];
    Rows {
        head: head.map(str::to_owned).to_vec(),
        widths: vec![4, 12, 8, 8, 6, 12, 10, 10],
        rows,
    }
}

fn caches(ui: &Ui) -> Rows {
    let mut caches: Vec<&Cache> = ui.snapshot.caches.iter().collect();
    match ui.order {
        Order::Frames => caches.sort_by_key(|cache| core::cmp::Reverse(cache.frames)),
        Order::Name => caches.sort_by(|a, b| a.name.cmp(&b.name)),
        Order::Size => caches.sort_by_key(|cache| core::cmp::Reverse(cache.size)),
        Order::Objects => caches.sort_by_key(|cache| core::cmp::Reverse(cache.taken)),
    }
    let rows = caches.into_iter().map(|cache| {
        vec![
            cache.name.clone(),
            cache.taken.to_string(),
            cache.slabs.saturating_mul(cache.per_slab).to_string(),
            cache.size.to_string(),
            cache.per_slab.to_string(),
            cache.slabs.to_string(),
            mib(cache.frames),
        ]
    });
    let mark = |name: &str, order: Order| match ui.order == order {
        true => format!("{name} v"),
        false => name.to_owned(),
    };
    Rows {
        head: vec![
            mark("cache", Order::Name),
            mark("taken", Order::Objects),
            "objects".to_owned(),
            mark("size", Order::Size),
            "a slab".to_owned(),
            "slabs".to_owned(),
            mark("memory", Order::Frames),
        ],
        widths: vec![18, 10, 10, 8, 8, 8, 9],
        rows: rows.collect(),
    }
}

/// The last letters of a text that has no room: of a path, those tell the most.
fn end_of(text: &str, room: usize) -> String {
    let surplus = text.chars().count().saturating_sub(room);
    match surplus {
        0 => text.to_owned(),
        _ => {
            let kept: String = text.chars().skip(surplus + 1).collect();
            format!("\u{2026}{kept}")
        }
    }
}

fn areas(ui: &Ui, width: u16) -> Rows {
    let mut widths = vec![18, 6, 10, 5];
    // A column stands between two.
    let room = width.saturating_sub(widths.iter().map(|width| width + 1).sum());
    let rows = ui.snapshot.areas.iter().map(|area| {
        let state = match area.state {
            State::InUse => "",
            State::Waits => "waits",
            State::Ready => "ready",
        };
        vec![
            format!("{:#018x}", area.start),
            mib((area.end - area.start) >> 12),
            area.kind.to_owned(),
            state.to_owned(),
            end_of(area.place.as_deref().unwrap_or_default(), room.into()),
        ]
    });
    let head = ["from", "size", "kind", "", "by"];
    widths.push(room);
    Rows {
        head: head.map(str::to_owned).to_vec(),
        widths,
        rows: rows.collect(),
    }
}

fn events(ui: &Ui, (first, count): (usize, usize)) -> Rows {
    let what = match ui.past.history.is_recorded {
        true => "of what",
        false => "nothing is recorded without --events",
    };
    let clock = match ui.past.history.per_second {
        Some(_) => "us",
        None => "clock",
    };
    let head = [clock, "CPU", "what", what];
    Rows {
        head: head.map(str::to_owned).to_vec(),
        widths: vec![12, 3, 8, 54],
        rows: ui.happenings(first, count),
    }
}

fn numbers(ui: &Ui) -> Rows {
    let rows = ui.numbers().into_iter().map(|(name, value)| {
        let change = ui.rates.get(&name).copied().unwrap_or(0);
        let change = match change {
            0 => String::new(),
            change => format!("{change:+}/s"),
        };
        vec![name, value.to_string(), change]
    });
    let head = ["number", "value", "change"];
    Rows {
        head: head.map(str::to_owned).to_vec(),
        widths: vec![40, 18, 14],
        rows: rows.collect(),
    }
}

fn table(frame: &mut Frame<'_>, ui: &Ui, area: Rect, rows: &Rows) {
    let first = ui.scroll.min(rows.rows.len().saturating_sub(1));
    table_from(frame, first, area, rows);
}

fn table_from(frame: &mut Frame<'_>, first: usize, area: Rect, rows: &Rows) {
    let body = rows.rows.iter().skip(first).take(area.height.into());
    let body = body.cloned().map(Row::new);
    let widths = rows.widths.iter().map(|&width| Constraint::Length(width));
    let head = Row::new(rows.head.clone()).bold();
    frame.render_widget(Table::new(body, widths).header(head), area);
}

fn list(frame: &mut Frame<'_>, ui: &Ui, area: Rect, lines: Vec<Line<'static>>) {
    let first = ui.scroll.min(lines.len().saturating_sub(1));
    let shown: Vec<_> = lines.into_iter().skip(first).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

fn console(frame: &mut Frame<'_>, ui: &Ui, area: Rect) {
    let first = ui.console.len().saturating_sub(usize::from(area.height));
    let lines: Vec<_> = ui
        .console
        .iter()
        .skip(first)
        .map(|line| Line::raw(line.clone()))
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn help(frame: &mut Frame<'_>) {
    let all = frame.area();
    let (width, height) = (76.min(all.width), (HELP.len() as u16 + 2).min(all.height));
    let area = Rect {
        x: (all.width - width) / 2,
        y: (all.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let lines: Vec<_> = HELP.into_iter().map(Line::raw).collect();
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
