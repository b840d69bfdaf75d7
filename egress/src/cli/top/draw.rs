//! How what is known is drawn. Pure: a model into a frame. Colour says nothing that a word does not say, too.

mod lists;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::model::{Link, Model, Over, Record, View};
use crate::admin;
use crate::cli::audit::table::plain;
use crate::config::Colour;

/// Draws the whole screen.
pub(super) fn draw(model: &Model, admin: &str, colour: Colour, frame: &mut Frame<'_>) {
    let area = frame.area();
    let mut page = Page {
        width: area.width.into(),
        height: area.height.into(),
        colour,
        buffer: frame.buffer_mut(),
    };
    if page.width < LEAST_WIDTH || page.height < LEAST_HEIGHT {
        page.put(
            0,
            format!("too small: {LEAST_WIDTH}x{LEAST_HEIGHT} at least").into(),
        );
        page.put(1, "q quits".into());
        return;
    }
    head(model, admin, &mut page);
    match &model.over {
        Over::None => lists::list(model, &mut page),
        Over::Help => help(&mut page),
        Over::Record(shown) => record(shown, &mut page),
    }
    let last = page.height - 1;
    page.put(last, foot(model));
}

const LEAST_WIDTH: usize = 40;
const LEAST_HEIGHT: usize = 10;

/// The first line that is a list's or another text's.
const FIRST: usize = 4;

/// What is drawn on.
struct Page<'b> {
    width: usize,
    height: usize,
    colour: Colour,
    buffer: &'b mut Buffer,
}

impl Page<'_> {
    /// Writes a line, as far as there is room.
    fn put(&mut self, number: usize, line: Line<'_>) {
        let (Ok(number), Ok(width)) = (u16::try_from(number), u16::try_from(self.width)) else {
            return;
        };
        if number < self.buffer.area.height {
            self.buffer.set_line(0, number, &line, width);
        }
    }

    /// How many lines there are between the head and the last one.
    fn room(&self) -> usize {
        self.height - FIRST - 1
    }

    /// A text in the colour of what it says.
    fn tinted<'t>(&self, text: impl Into<String>, tint: Tint) -> Span<'t> {
        let style = match (self.colour, tint) {
            (Colour::Never, _) | (_, Tint::Plain) => Style::new(),
            (Colour::Always, Tint::Good) => Style::new().fg(Color::Green),
            (Colour::Always, Tint::Bad) => Style::new().fg(Color::Red),
            (Colour::Always, Tint::Doubtful) => Style::new().fg(Color::Yellow),
        };
        Span::styled(text.into(), style)
    }
}

/// What a text says.
#[derive(Clone, Copy)]
enum Tint {
    Plain,
    Good,
    Bad,
    Doubtful,
}

impl Tint {
    fn of_verdict(verdict: &str) -> Self {
        match verdict {
            "allowed" => Self::Good,
            "denied" => Self::Bad,
            _ => Self::Doubtful,
        }
    }
}

fn head(model: &Model, admin: &str, page: &mut Page<'_>) {
    let status = model.status.as_ref();
    let (word, tint) = match (&model.link, status) {
        (Link::Gone(reason), _) => (format!("GONE: {reason}; waiting for it"), Tint::Bad),
        (Link::Up, None) => ("asking".into(), Tint::Plain),
        (Link::Up, Some(status)) if status.healthy => ("healthy".into(), Tint::Good),
        (Link::Up, Some(_)) => ("NOT HEALTHY, see 4".into(), Tint::Bad),
    };
    let mut line = Line::from(vec![
        Span::styled("egress top", BOLD),
        "  ".into(),
        page.tinted(word, tint),
    ]);
    if let Some(left) = status.and_then(|status| status.observe_seconds_left) {
        let text = format!("  OBSERVING, {} left", admin::duration(left));
        line.push_span(page.tinted(text, Tint::Bad).patch_style(BOLD));
    }
    if let Some(held) = &model.held {
        line.push_span("  ");
        line.push_span(Span::styled(format!("PAUSED, {} wait", held.len()), BOLD));
    }
    line.push_span(format!("  {}", plain(admin)));
    page.put(0, line);
    if let Some(status) = status {
        let counters = &status.counters;
        let mut text = format!(
            "up {}, {} routes, {} requests, {} denied, {} failed, open: {} connections, {} tunnels, {} WebSockets",
            admin::duration(status.uptime_seconds),
            status.routes,
            counters.requests,
            counters.denied,
            counters.failed,
            counters.open_connections,
            counters.open_tunnels,
            counters.open_websockets,
        );
        if page.width < text.len() {
            text = format!(
                "up {}  req {}  den {}  fail {}  conn {}  tun {}  ws {}",
                admin::duration(status.uptime_seconds),
                counters.requests,
                counters.denied,
                counters.failed,
                counters.open_connections,
                counters.open_tunnels,
                counters.open_websockets,
            );
        }
        page.put(1, text.into());
    }
    let mut tabs = Line::default();
    for (number, view) in View::ALL.into_iter().enumerate() {
        let text = format!("{} {}", number + 1, name(view));
        let tab = match view == model.view {
            true => Span::styled(format!("[{text}]"), BOLD),
            false => Span::raw(format!(" {text} ")),
        };
        tabs.push_span(tab);
    }
    if model.missed > 0 {
        tabs.push_span(page.tinted(format!("  {} missed", model.missed), Tint::Doubtful));
    }
    page.put(2, tabs);
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

fn name(view: View) -> &'static str {
    match view {
        View::Requests => "Requests",
        View::Hosts => "Hosts",
        View::Refusals => "Refusals",
        View::Sidecar => "Sidecar",
    }
}

fn foot(model: &Model) -> Line<'static> {
    if model.is_typing {
        return Line::from(format!(
            "/{}_   Enter keeps it, Esc clears it",
            model.filter
        ));
    }
    if let Some(notice) = model.notice {
        return Line::from(notice);
    }
    let keys = match &model.over {
        Over::None => "/ filter  space pause  Enter open  ? help  q quit",
        Over::Help => "Esc back  q quit",
        Over::Record(Record {
            suggestion: Some(_),
            ..
        }) => "y copy  Up Down scroll  Esc back  q quit",
        Over::Record(_) => "Up Down scroll  Esc back  q quit",
    };
    match model.filter.is_empty() {
        true => Line::from(keys),
        false => Line::from(format!("filter: {}  {keys}", model.filter)),
    }
}

fn help(page: &mut Page<'_>) {
    for (number, (keys, meaning)) in KEYS.iter().enumerate().take(page.room() + 1) {
        page.put(FIRST - 1 + number, format!("  {keys:<18}{meaning}").into());
    }
}

const KEYS: [(&str, &str); 13] = [
    ("1", "requests as they come"),
    ("2", "hosts, and how much is asked of them"),
    ("3", "refusals, equal ones together"),
    ("4", "the sidecar: slots, reload, confinement"),
    ("Tab, Left, Right", "the list beside this one"),
    (
        "Up, Down, j, k",
        "choose a line; PageUp, PageDown, Home, End",
    ),
    ("Enter", "all about the line; of a host, its requests"),
    ("y", "copy what would admit it, from its page"),
    ("/", "show what contains a text"),
    ("space", "pause, and go on"),
    ("Esc", "back; in a list, without a filter"),
    ("?", "this page"),
    ("q, Ctrl-C", "quit"),
];

fn record(record: &Record, page: &mut Page<'_>) {
    let lines = record.lines();
    let wrapped = lines.iter().flat_map(|line| wrapped(line, page.width));
    let shown: Vec<String> = wrapped
        .skip(record.scrolled)
        .take(page.room() + 1)
        .collect();
    for (number, line) in shown.into_iter().enumerate() {
        let tint = match line.strip_prefix("verdict    ") {
            Some(verdict) => Tint::of_verdict(verdict),
            None => Tint::Plain,
        };
        let line = page.tinted(line, tint).into();
        page.put(FIRST - 1 + number, line);
    }
}

/// A line in pieces that fit. Whoever copies from the screen gets each piece as the terminal has it, so nothing is put between.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let text = plain(line);
    let chars: Vec<char> = text.chars().collect();
    match chars.is_empty() {
        true => vec![String::new()],
        false => chars
            .chunks(width)
            .map(|piece| piece.iter().collect())
            .collect(),
    }
}

#[cfg(test)]
mod tests;
