//! The sockets and the terminal of `egress top`: what happens becomes events, one after the other, and after each the
//! screen is drawn. However it ends, the terminal is as it was.

use std::io::{self, Stdout, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Error, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event as Input};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::draw::draw;
use super::input::{Action, action};
use super::model::{Effect, Event, Model};
use crate::admin::events::Begin;
use crate::admin::watch::{self, Watch};
use crate::admin::{AdminAddress, client};
use crate::cli::Failure;
use crate::config::Colour;
use crate::route::Routes;

/// Shows the sidecar until somebody quits.
///
/// # Errors
///
/// A runtime [`Failure`], where no sidecar answers at first, or the terminal cannot be used.
pub(super) fn run(
    admin: &AdminAddress,
    routes: Option<Routes>,
    colour: Colour,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let ended = runtime.block_on(show(admin, routes, colour));
    // A question to the sidecar may be under way, and nobody waits for the answer any more.
    runtime.shutdown_background();
    ended
}

async fn show(
    admin: &AdminAddress,
    routes: Option<Routes>,
    colour: Colour,
) -> Result<ExitCode, Failure> {
    let mut watch = Watch::new(admin.clone(), Begin::Kept);
    // Before the terminal is taken: what is wrong at first is told like any error.
    let first = watch.next().await?;
    let mut model = Model::new(routes, now());
    model.update(Event::Told(first));
    let mut stopped = Stopped::new().map_err(Failure::runtime)?;
    let mut screen = Screen::take().map_err(unusable)?;
    let (sender, mut happened) = mpsc::channel(WAITING);
    tokio::spawn(follow(watch, sender.clone()));
    tokio::spawn(ask(admin.clone(), sender.clone()));
    thread::spawn(move || read(&sender));
    let name = admin.to_string();
    loop {
        let drawn = screen
            .terminal
            .draw(|frame| draw(&model, &name, colour, frame));
        drawn.map_err(unusable)?;
        let mut next = tokio::select! {
            next = happened.recv() => next,
            code = stopped.wait() => return Ok(code),
        };
        // What came together is drawn together.
        while let Some(happening) = next {
            let event = match happening {
                Happening::Event(event) => Some(event),
                Happening::Input(input) => meant(&input, model.is_typing).map(Event::Action),
                Happening::Unwatched(error) => return Err(error.into()),
                Happening::NoInput => return Ok(ExitCode::SUCCESS),
            };
            match event.map_or(Effect::None, |event| model.update(event)) {
                Effect::None => {}
                Effect::Quit => return Ok(ExitCode::SUCCESS),
                Effect::Copy(text) => copy(&text).map_err(unusable)?,
            }
            next = happened.try_recv().ok();
        }
    }
}

/// Events that wait to be drawn. While they do, the sidecar is not read.
const WAITING: usize = 256;

/// What comes from elsewhere.
enum Happening {
    Event(Event),
    Input(Input),
    /// The terminal is gone.
    NoInput,
    /// The sidecar cannot be watched any more.
    Unwatched(watch::Error),
}

/// Requests as they come.
async fn follow(mut watch: Watch, sender: mpsc::Sender<Happening>) {
    loop {
        let happening = match watch.next().await {
            Ok(told) => Happening::Event(Event::Told(told)),
            Err(error) => Happening::Unwatched(error),
        };
        let is_last = matches!(happening, Happening::Unwatched(_));
        if sender.send(happening).await.is_err() || is_last {
            return;
        }
    }
}

/// The time and the sidecar's account of itself, each second. That it does not answer is told by who follows its requests.
async fn ask(admin: AdminAddress, sender: mpsc::Sender<Happening>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let tick = Happening::Event(Event::Tick(now()));
        if sender.send(tick).await.is_err() {
            return;
        }
        let Ok((_, body)) = client::answer(&admin, Method::GET, "/status").await else {
            continue;
        };
        if let Ok(status) = serde_json::from_str(&body) {
            let status = Happening::Event(Event::Status(status));
            if sender.send(status).await.is_err() {
                return;
            }
        }
    }
}

/// Keys, for as long as there is a terminal.
fn read(sender: &mpsc::Sender<Happening>) {
    while let Ok(input) = event::read() {
        if sender.blocking_send(Happening::Input(input)).is_err() {
            return;
        }
    }
    _ = sender.blocking_send(Happening::NoInput);
}

fn meant(input: &Input, is_typing: bool) -> Option<Action> {
    match input {
        Input::Key(key) => action(*key, is_typing),
        // Of another size: it is drawn anew anyway.
        _ => None,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// Hands a text to the terminal's clipboard (xterm, "Operating System Commands", 52). In base64, it moves no cursor.
fn copy(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "\x1b]52;c;{}\x07", STANDARD.encode(text))?;
    out.flush()
}

fn unusable(error: io::Error) -> Failure {
    Failure::runtime(Error::new(error).context(anyhow!("cannot use the terminal")))
        .hint("`egress tail` prints requests to wherever you like")
}

/// The signals by which others end a program.
struct Stopped([(tokio::signal::unix::Signal, u8); 3]);

impl Stopped {
    fn new() -> io::Result<Self> {
        Ok(Self([
            (signal(SignalKind::hangup())?, 128 + 1),
            (signal(SignalKind::interrupt())?, 128 + 2),
            (signal(SignalKind::terminate())?, 128 + 15),
        ]))
    }

    /// With which code a shell says that one of them ended it.
    async fn wait(&mut self) -> ExitCode {
        let [(hangup, first), (interrupt, second), (terminate, third)] = &mut self.0;
        let code = tokio::select! {
            _ = hangup.recv() => *first,
            _ = interrupt.recv() => *second,
            _ = terminate.recv() => *third,
        };
        code.into()
    }
}

/// The terminal, for as long as it is ours.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn take() -> io::Result<Self> {
        // A panic's words belong on the screen that stays.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
        enable_raw_mode()?;
        let screen = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match screen {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Where the terminal is gone there is nothing to give back.
    _ = disable_raw_mode();
    _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}
