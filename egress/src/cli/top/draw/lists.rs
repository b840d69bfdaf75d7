//! The four lists. The chosen line is marked by a sign and shown in reverse.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{BOLD, FIRST, Page, Tint};
use crate::admin;
use crate::audit::object::moment;
use crate::audit::row::Row;
use crate::cli::audit::table::plain;
use crate::cli::top::model::{Link, Model, View};
use crate::cli::top::status::Status;

/// Draws the list that is shown.
pub(super) fn list(model: &Model, page: &mut Page<'_>) {
    match model.view {
        View::Requests => requests(model, page),
        View::Hosts => hosts(model, page),
        View::Refusals => refusals(model, page),
        View::Sidecar => sidecar(model, page),
    }
}

fn requests(model: &Model, page: &mut Page<'_>) {
    let host = (page.width / 4).max(16);
    let head = format!(
        "  {:<8} {:<7} {:>3} {:<7} {:<host$} PATH",
        "TIME", "VERDICT", "ST", "METHOD", "HOST"
    );
    let lines = model.requests().map(|request| {
        let row = &request.row;
        let rest = page.width.saturating_sub(32 + host);
        Line::from(vec![
            format!("{} ", clock(row)).into(),
            page.tinted(
                format!("{:<7}", row.verdict),
                Tint::of_verdict(&row.verdict),
            ),
            format!(
                " {:>3} {:<7} {} {}",
                row.status,
                cut(&plain(&row.method), 7),
                padded(&plain(&row.host), host),
                path_and_code(row, rest)
            )
            .into(),
        ])
    });
    let lines: Vec<_> = window(model, page, lines);
    table(model, page, &head, lines, "no request has ended yet");
}

fn hosts(model: &Model, page: &mut Page<'_>) {
    let width = page.width.saturating_sub(48).max(12);
    let head = format!(
        "  {:<width$} {:>6} {:>6} {:>7} {:>6} {:>6} {:>8}",
        "HOST", "/S", "MINUTE", "ALL", "DENIED", "FAILED", "DOWN"
    );
    let now = model.second();
    let lines = model.hosts().into_iter().map(|(name, host)| {
        let name = match name {
            "" => "no host",
            name => name,
        };
        let tint = |count: u64, tint| match count {
            0 => Tint::Plain,
            _ => tint,
        };
        Line::from(vec![
            format!(
                "{} {:>6.1} {:>6} {:>7} ",
                padded(&plain(name), width),
                host.within(10, now) as f64 / 10.0,
                host.within(60, now),
                host.requests
            )
            .into(),
            page.tinted(format!("{:>6} ", host.denied), tint(host.denied, Tint::Bad)),
            page.tinted(
                format!("{:>6} ", host.failed),
                tint(host.failed, Tint::Doubtful),
            ),
            format!("{:>8}", size(host.bytes)).into(),
        ])
    });
    let lines: Vec<_> = window(model, page, lines);
    table(model, page, &head, lines, "no host was asked for yet");
}

fn refusals(model: &Model, page: &mut Page<'_>) {
    let code = 24;
    let head = format!(
        "  {:<8} {:>6} {:<code$} {:<7} WHAT",
        "LAST", "TIMES", "CODE", "METHOD"
    );
    let lines = model.refusals().map(|refusal| {
        let row = &refusal.latest.row;
        let rest = page.width.saturating_sub(27 + code);
        let what = format!("{}{}", plain(&row.host), plain(&row.path));
        Line::from(vec![
            format!("{} {:>6} ", clock(row), refusal.count).into(),
            page.tinted(padded(&plain(&row.code), code), Tint::Bad),
            format!(" {:<7} {}", cut(&plain(&row.method), 7), cut(&what, rest)).into(),
        ])
    });
    let lines: Vec<_> = window(model, page, lines);
    table(model, page, &head, lines, "nothing was refused yet");
}

fn sidecar(model: &Model, page: &mut Page<'_>) {
    let Some(status) = &model.status else {
        page.put(FIRST, "  it was not heard yet".into());
        return;
    };
    let width = (page.width / 3).max(16);
    let head = format!("  {:<width$} {:<12} STATE", "SLOT", "LEFT");
    let mut lines: Vec<Line<'static>> = status
        .slots
        .iter()
        .map(|slot| {
            let left = slot.seconds_left.map_or("no end".into(), admin::duration);
            let tint = match (slot.state.as_str(), slot.seconds_left) {
                ("ok", Some(0..600)) => Tint::Doubtful,
                ("ok", _) => Tint::Good,
                _ => Tint::Bad,
            };
            Line::from(vec![
                format!("{} {left:<12} ", padded(&plain(&slot.name), width)).into(),
                page.tinted(plain(&slot.state), tint),
                format!("  ({})", plain(&slot.source)).into(),
            ])
        })
        .collect();
    if lines.is_empty() {
        lines.push("no slot: no credential is injected".into());
    }
    let slots = status.slots.len();
    lines.extend(about(status).into_iter().map(Line::from));
    if let Link::Gone(_) = model.link {
        lines.push("all of it as it was before the sidecar went away".into());
    }
    let offset = offset(model.place(), page.room());
    let lines: Vec<_> = lines.into_iter().skip(offset).take(page.room()).collect();
    table_from(
        model.place().checked_sub(offset).filter(|_| slots > 0),
        page,
        &head,
        lines,
    );
}

fn about(status: &Status) -> Vec<String> {
    let counters = &status.counters;
    let mut lines = vec![
        String::new(),
        format!(
            "egress {}, routes from {}",
            status.egress,
            plain(&status.routes_file)
        ),
        format!(
            "{} reloads, {} of them refused",
            counters.reloads + counters.reload_failures,
            counters.reload_failures
        ),
    ];
    if let Some(fault) = &status.last_reload_fault {
        lines.push("THE LAST RELOAD WAS REFUSED, the routes before it are in force:".into());
        lines.extend(fault.lines().map(|line| format!("  {}", plain(line))));
    }
    lines.push(match &status.audit {
        None => "no audit file".into(),
        Some(audit) if audit.failing => format!(
            "THE AUDIT FILE CANNOT BE WRITTEN, {} rows wait, {} are lost",
            audit.waiting, audit.lost
        ),
        Some(audit) => format!(
            "audit file: {} rows wait, {} are lost",
            audit.waiting, audit.lost
        ),
    });
    lines.push(String::new());
    let measures = status.confinement.iter();
    lines.extend(
        measures.map(|measure| format!("{}: {}", plain(&measure.name), plain(&measure.state))),
    );
    lines
}

/// The lines around the chosen one that there is room for.
fn window<'l>(
    model: &Model,
    page: &Page<'_>,
    lines: impl Iterator<Item = Line<'l>>,
) -> Vec<Line<'l>> {
    let room = page.room();
    lines.skip(offset(model.place(), room)).take(room).collect()
}

/// How many lines are above the screen, for the chosen one to be on it.
fn offset(place: usize, room: usize) -> usize {
    place.saturating_sub(room / 2)
}

fn table(model: &Model, page: &mut Page<'_>, head: &str, lines: Vec<Line<'_>>, empty: &str) {
    if lines.is_empty() {
        page.put(FIRST - 1, Span::styled(head.to_owned(), BOLD).into());
        page.put(FIRST, format!("  {}", nothing(model, empty)).into());
        return;
    }
    let place = model.place();
    let chosen = place - offset(place, page.room());
    table_from(Some(chosen), page, head, lines);
}

fn table_from(chosen: Option<usize>, page: &mut Page<'_>, head: &str, lines: Vec<Line<'_>>) {
    page.put(FIRST - 1, Span::styled(head.to_owned(), BOLD).into());
    for (number, mut line) in lines.into_iter().enumerate() {
        let is_chosen = chosen == Some(number);
        let mark = match is_chosen {
            true => "> ",
            false => "  ",
        };
        line.spans.insert(0, mark.into());
        if is_chosen {
            line = line.style(Style::new().add_modifier(Modifier::REVERSED));
        }
        page.put(FIRST + number, line);
    }
}

fn nothing(model: &Model, text: &str) -> String {
    match model.filter.is_empty() {
        true => text.to_owned(),
        false => "nothing contains the filter; Esc clears it".into(),
    }
}

/// The time of day at which a request began, in UTC.
fn clock(row: &Row<'_>) -> String {
    moment(row.time)
        .get(11..19)
        .unwrap_or("--------")
        .to_owned()
}

/// The path as far as there is room beside the code, which says more.
fn path_and_code(row: &Row<'_>, room: usize) -> String {
    let path = plain(&row.path);
    if row.code == "ok" {
        return cut(&path, room);
    }
    let code = plain(&row.code);
    match path.is_empty() {
        true => cut(&code, room),
        false => format!(
            "{}  {code}",
            cut(&path, room.saturating_sub(code.len() + 2))
        ),
    }
}

/// A text in so many columns, with a sign where some of it is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('~');
    }
    short
}

fn padded(text: &str, width: usize) -> String {
    format!("{:<width$}", cut(text, width))
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
