//! What is known and shown, and how each event changes it. Pure: no clock, no socket, no terminal. Everything is bounded,
//! since an agent chooses how much there is to know.

use std::collections::VecDeque;
use std::rc::Rc;

use super::hosts::{Host, Hosts};
use super::input::Action;
use super::status::Status;
use crate::admin::watch::Told;
use crate::audit::feed::Feed;
use crate::audit::object;
use crate::audit::row::Row;
use crate::cli::suggest;
use crate::route::Routes;

/// All that is known.
#[derive(Default)]
pub(super) struct Model {
    /// Whether the sidecar answers.
    pub(super) link: Link,
    /// What it last said of itself.
    pub(super) status: Option<Status>,
    /// Requests that ended and were not told.
    pub(super) missed: u64,
    /// The time, in microseconds since 1970.
    pub(super) now: i64,
    /// Which list is shown.
    pub(super) view: View,
    /// What is shown over it.
    pub(super) over: Over,
    /// What lines have to contain.
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) is_typing: bool,
    /// What came while nothing was to move.
    pub(super) held: Option<Held>,
    /// What the last key did, where that does not show.
    pub(super) notice: Option<&'static str>,
    routes: Option<Routes>,
    requests: VecDeque<Rc<Request>>,
    /// The latest first.
    refusals: VecDeque<Refusal>,
    hosts: Hosts,
    ended: u64,
    /// The line that was chosen; the first one where there is none.
    chosen: Option<String>,
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// The sidecar told something.
    Told(Told),
    /// It said how it is.
    Status(Box<Status>),
    /// Time passed.
    Tick(i64),
    /// Somebody wants something.
    Action(Action),
}

/// What an event has done besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Somebody has seen enough.
    Quit,
    /// A text is to be had for pasting.
    Copy(String),
}

/// Whether the sidecar answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// It does.
    #[default]
    Up,
    /// It does not, for this reason, and is waited for.
    Gone(String),
}

/// A list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    /// Requests as they come.
    #[default]
    Requests,
    /// What is asked of which host.
    Hosts,
    /// What is refused, equal ones together.
    Refusals,
    /// Slots and numbers.
    Sidecar,
}

/// What is shown over a list.
#[derive(Debug, Default)]
pub(super) enum Over {
    /// Nothing.
    #[default]
    None,
    /// The keys.
    Help,
    /// All about one request.
    Record(Record),
}

/// All about one request.
#[derive(Debug)]
pub(super) struct Record {
    /// The request.
    pub(super) request: Rc<Request>,
    /// The routes that would have let it through.
    pub(super) suggestion: Option<String>,
    /// How many lines are above the screen.
    pub(super) scrolled: usize,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Request {
    /// Which one it is.
    pub(super) number: u64,
    /// What is known of it.
    pub(super) row: Row<'static>,
}

/// Equal refusals.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// How many.
    pub(super) count: u64,
    /// The latest of them.
    pub(super) latest: Rc<Request>,
}

/// What came during a pause.
#[derive(Debug, Default)]
pub(super) struct Held {
    rows: VecDeque<Row<'static>>,
}

impl Held {
    /// How many requests wait to be shown.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Kinds of refusals that are told apart; of more, that of the longest ago goes.
const MOST_REFUSALS: usize = 256;
const LONGEST_FILTER: usize = 64;

impl Model {
    /// Nothing is known yet but, where they are given, the routes in force.
    pub(super) fn new(routes: Option<Routes>, now: i64) -> Self {
        Self {
            routes,
            now,
            ..Self::default()
        }
    }

    /// What follows from an event.
    pub(super) fn update(&mut self, event: Event) -> Effect {
        match event {
            Event::Told(told) => self.told(told),
            Event::Status(status) if self.held.is_none() => self.status = Some(*status),
            Event::Tick(now) if self.held.is_none() => self.now = now,
            Event::Status(_) | Event::Tick(_) => {}
            Event::Action(action) => return self.act(action),
        }
        Effect::None
    }

    /// The requests that the filter lets through, the latest first.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Rc<Request>> {
        let requests = self.requests.iter().rev();
        requests.filter(|request| self.passes(&request.row))
    }

    /// The refusals that it lets through, the latest first.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        let refusals = self.refusals.iter();
        refusals.filter(|refusal| self.passes(&refusal.latest.row))
    }

    /// The hosts that it lets through, the busiest first.
    pub(super) fn hosts(&self) -> Vec<(&str, &Host)> {
        let mut hosts = self.hosts.list(self.second());
        hosts.retain(|(name, _)| contains(name, &self.filter));
        hosts
    }

    /// The time in seconds.
    pub(super) fn second(&self) -> i64 {
        self.now.div_euclid(1_000_000)
    }

    /// Which line of the list is the chosen one.
    pub(super) fn place(&self) -> usize {
        let Some(chosen) = &self.chosen else { return 0 };
        let keys = self.keys();
        keys.iter().position(|key| key == chosen).unwrap_or(0)
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Up { .. } => self.link = Link::Up,
            Told::Lost(reason) => self.link = Link::Gone(reason),
            Told::Gap(missed) => self.missed += missed,
            Told::Request(object) => {
                let Some(row) = object::row(&object).map(Row::into_owned) else {
                    return;
                };
                let Some(held) = &mut self.held else {
                    return self.add(row);
                };
                held.rows.push_back(row);
                if held.rows.len() > Feed::KEPT {
                    held.rows.pop_front();
                    self.missed += 1;
                }
            }
        }
    }

    fn add(&mut self, row: Row<'static>) {
        self.hosts.add(&row);
        let number = self.ended;
        self.ended += 1;
        let request = Rc::new(Request { number, row });
        if request.row.verdict == "denied" {
            self.refuse(&request);
        }
        self.requests.push_back(request);
        if self.requests.len() > Feed::KEPT {
            self.requests.pop_front();
        }
    }

    fn refuse(&mut self, latest: &Rc<Request>) {
        let key = refusal_key(&latest.row);
        let mut known = self.refusals.iter();
        let known = known.position(|refusal| refusal_key(&refusal.latest.row) == key);
        let known = known.and_then(|place| self.refusals.remove(place));
        self.refusals.push_front(Refusal {
            count: known.map_or(0, |refusal| refusal.count) + 1,
            latest: latest.clone(),
        });
        self.refusals.truncate(MOST_REFUSALS);
    }

    fn act(&mut self, action: Action) -> Effect {
        self.notice = None;
        match action {
            Action::Quit => return Effect::Quit,
            Action::Copy => return self.copy(),
            Action::Show(view) => self.show(view),
            Action::Next => self.show(self.view.beside(1)),
            Action::Previous => self.show(self.view.beside(3)),
            Action::Move(lines) => self.step(lines),
            Action::Open => self.open(),
            Action::Back => self.back(),
            Action::Pause => self.pause(),
            Action::Help => self.over = Over::Help,
            Action::Filter => {
                self.over = Over::None;
                self.is_typing = true;
            }
            Action::Type(char) if self.filter.len() < LONGEST_FILTER => self.filter.push(char),
            Action::Type(_) => {}
            Action::Erase => _ = self.filter.pop(),
            Action::Accept => self.is_typing = false,
        }
        Effect::None
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.over = Over::None;
        self.chosen = None;
    }

    fn step(&mut self, lines: isize) {
        match &mut self.over {
            Over::Help => {}
            Over::Record(record) => {
                let last = record.lines().len().saturating_sub(1);
                record.scrolled = record.scrolled.saturating_add_signed(lines).min(last);
            }
            Over::None => {
                let place = self.place().saturating_add_signed(lines);
                let mut keys = self.keys();
                let last = keys.len().saturating_sub(1);
                // At the first line one sees what is new.
                self.chosen = match place.min(last) {
                    0 => None,
                    place => keys.drain(..).nth(place),
                };
            }
        }
    }

    fn open(&mut self) {
        if !matches!(self.over, Over::None) {
            return;
        }
        let place = self.place();
        let request = match self.view {
            View::Requests => self.requests().nth(place).cloned(),
            View::Refusals => self
                .refusals()
                .nth(place)
                .map(|refusal| refusal.latest.clone()),
            View::Hosts => {
                if let Some((name, _)) = self.hosts().get(place) {
                    self.filter = (*name).to_owned();
                    self.show(View::Requests);
                }
                None
            }
            View::Sidecar => None,
        };
        if let Some(request) = request {
            let suggestion = suggest::for_row(&request.row, self.routes.as_ref());
            self.over = Over::Record(Record {
                request,
                suggestion,
                scrolled: 0,
            });
        }
    }

    fn back(&mut self) {
        if self.is_typing || matches!(self.over, Over::None) {
            self.filter.clear();
            self.chosen = None;
        }
        self.is_typing = false;
        self.over = Over::None;
    }

    fn pause(&mut self) {
        match self.held.take() {
            None => self.held = Some(Held::default()),
            Some(held) => held.rows.into_iter().for_each(|row| self.add(row)),
        }
    }

    fn copy(&mut self) -> Effect {
        match &self.over {
            Over::Record(Record {
                suggestion: Some(text),
                ..
            }) => {
                self.notice = Some("sent to the terminal's clipboard, where it has one (OSC 52)");
                Effect::Copy(text.clone())
            }
            _ => Effect::None,
        }
    }

    fn passes(&self, row: &Row<'_>) -> bool {
        let texts = [&row.host, &row.path, &row.method, &row.verdict, &row.code];
        // What an agent was told, whole: any few digits are in some number.
        let is_named = row.id.as_ref();
        let is_named = is_named.is_some_and(|id| id.eq_ignore_ascii_case(&self.filter));
        is_named || texts.iter().any(|text| contains(text, &self.filter))
    }

    /// What the lines of the list are known by.
    fn keys(&self) -> Vec<String> {
        match self.view {
            View::Requests => self
                .requests()
                .map(|request| request.number.to_string())
                .collect(),
            View::Refusals => self
                .refusals()
                .map(|refusal| refusal_key(&refusal.latest.row).join(" "))
                .collect(),
            View::Hosts => self
                .hosts()
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            View::Sidecar => (0..self.status.as_ref().map_or(0, |status| status.slots.len()))
                .map(|slot| slot.to_string())
                .collect(),
        }
    }
}

impl Record {
    /// The lines of it: what would admit it, which is looked for, and each value by its name.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(suggestion) = &self.suggestion {
            lines.push("What would admit it, to be read before it is kept (y copies it):".into());
            lines.push(String::new());
            lines.extend(suggestion.lines().map(str::to_owned));
            lines.push(String::new());
        }
        let named = object::NAMES.iter().zip(object::values(&self.request.row));
        // Who writes an audit file numbers its rows; here there is none.
        let named = named.filter(|(name, value)| !value.is_null() && **name != "number");
        lines.extend(named.map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name:<11}{text}"),
            None => format!("{name:<11}{value}"),
        }));
        lines
    }
}

impl View {
    /// All there are, in the order of their keys.
    pub(super) const ALL: [Self; 4] = [Self::Requests, Self::Hosts, Self::Refusals, Self::Sidecar];

    fn beside(self, steps: usize) -> Self {
        let mut views = Self::ALL.into_iter().cycle();
        let from_here = views.find(|view| *view == self);
        views.nth(steps - 1).or(from_here).unwrap_or_default()
    }
}

fn refusal_key<'r>(row: &'r Row<'_>) -> [&'r str; 4] {
    [&row.code, &row.method, &row.host, &row.path]
}

/// Whether a text has another one in it, in whichever case.
fn contains(text: &str, part: &str) -> bool {
    part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
}
