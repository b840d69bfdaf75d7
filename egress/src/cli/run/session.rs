//! One run: from its arguments to the end of the agent and of its sidecar.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Args;
use super::given::{home, is_installed, workspace};
use super::stops::Stops;
use crate::cli::Failure;
use crate::cli::launching::{self, Chosen};
use crate::launch::agent::{HomeFile, Setting};
use crate::launch::follow::{Change, Follower};
use crate::launch::place::local::contents::{Contents, terminal};
use crate::launch::place::local::{self, OpenBox, Sockets};
use crate::launch::place::unboxed::{self, Unboxed};
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::Sidecar;
use crate::launch::{Host, bundle};

/// Runs an agent to its end.
pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    // Before any other thread runs, and before anything is started.
    crate::os::keep_descriptors().map_err(Failure::runtime)?;
    let workspace = workspace(&args)?;
    let home = home(&args, &Host::this())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let result = runtime.block_on(async {
        let mut stops = Stops::new().map_err(Failure::runtime)?;
        let ready = tokio::select! {
            ready = Ready::new(&args, &workspace, home.as_deref()) => ready?,
            number = stops.next() => return Ok(128 + number),
        };
        let session = tokio::select! {
            biased;
            // The command may not have been there yet to get it.
            number = stops.next() => return Ok(128 + number),
            session = ready.start() => session?,
        };
        // From here on a signal is the command's.
        session.watch(stops).await
    });
    launching::ends(runtime);
    result.map(|code| u8::try_from(code).unwrap_or(u8::MAX).into())
}

/// Everything but the command. Dropped, it leaves nothing behind.
struct Ready {
    place: Waiting,
    contents: Contents,
    sidecar: Sidecar,
    prepared: Prepared,
    has_dummy: bool,
}

/// Where the agent will be.
enum Waiting {
    Box(OpenBox),
    /// Without a box: where its home and its bundle will be.
    Unboxed(PathBuf, PathBuf),
}

impl Ready {
    /// Starts the sidecar, and gathers what the agent is given.
    async fn new(args: &Args, workspace: &Path, home: Option<&Path>) -> Result<Self, Failure> {
        let chosen = Chosen::new(
            args.agent.as_deref(),
            args.manifest.as_deref(),
            args.bottle.as_deref(),
            args.agents.as_deref(),
        )?;
        chosen.needs_command(&args.command)?;
        let host = Host::this();
        let prepared = launching::prepared(&chosen).await?;
        let (opened, sockets) = if args.no_box {
            (None, Sockets::new())
        } else {
            let (opened, sockets) = OpenBox::open().await?;
            (Some(opened), sockets)
        };
        let routes = prepared.routes_file();
        let sidecar = Sidecar::start(args.sidecar(&prepared, &routes, sockets)).await?;
        let (text, _) = bundle::text(&bundle::pem(sidecar.certificate()))
            .map_err(|error| Failure::runtime(error).hint(error.hint()))?;
        let (agent_home, bundle_path, proxy) = match &opened {
            Some(_) => (local::HOME.into(), local::BUNDLE.into(), local::proxy_url()),
            None => outside(home, &prepared, &sidecar),
        };
        let agent = chosen.agent(&Setting {
            host,
            home: &agent_home,
            workspace,
            routes: Some(&prepared.routes),
            roles: &prepared.roles,
            handed: Some(&prepared.handed),
        })?;
        for note in &agent.notes {
            eprintln!("note: {note}");
        }
        let command = chosen.command(&agent, &args.command);
        is_installed(&command, &agent)?;
        let login = prepared
            .handed
            .codex()
            .map(|codex| HomeFile::codex_login(&codex.login));
        let has_dummy =
            login.is_some_and(|login| agent.files.iter().any(|file| file.target == login.target));
        let environment = args.environment(&agent, &prepared, &agent_home, &bundle_path, &proxy)?;
        let contents = Contents {
            name: prepared.name.clone(),
            workspace: workspace.into(),
            home: home.map(Path::to_owned),
            more: args.more()?,
            command,
            files: agent.files,
            bundle: text,
            environment,
        };
        let place = match opened {
            Some(opened) => Waiting::Box(opened),
            None => Waiting::Unboxed(agent_home, bundle_path),
        };
        Ok(Self {
            place,
            contents,
            sidecar,
            prepared,
            has_dummy,
        })
    }

    /// Starts the command.
    async fn start(self) -> Result<Session, Failure> {
        let place = match self.place {
            Waiting::Box(mut opened) => {
                opened.start(self.contents).await?;
                Place::Box(opened)
            }
            Waiting::Unboxed(home, bundle) => {
                eprintln!("warning: {}", unboxed::WARNING);
                let program = self.contents.command.first().cloned().unwrap_or_default();
                let started = Unboxed::start(self.contents, &home, &bundle)
                    .with_context(|| format!("{program} does not start"))
                    .map_err(Failure::runtime);
                Place::Unboxed(started?)
            }
        };
        Ok(Session {
            place,
            sidecar: self.sidecar,
            prepared: self.prepared,
            has_dummy: self.has_dummy,
        })
    }
}

/// An agent at work.
struct Session {
    place: Place,
    sidecar: Sidecar,
    prepared: Prepared,
    // Whether the agent's home has a dummy of the host's login.
    has_dummy: bool,
}

/// Where the agent is.
enum Place {
    Box(OpenBox),
    Unboxed(Unboxed),
}

impl Session {
    /// Waits for the agent's end, and sees to its login and its sidecar meanwhile.
    async fn watch(mut self, mut stops: Stops) -> Result<i32, Failure> {
        // A key at the terminal reaches the agent by itself, since it is in the terminal's foreground group.
        let at_terminal = terminal().is_some();
        let mut deadline = pin!(tokio::time::sleep(FOREVER));
        let (tell, mut changes) = mpsc::unbounded_channel();
        let _following = match self.prepared.handed.codex() {
            Some(codex) => Some(
                Follower::new(&codex.login)
                    .spawn(move |change| _ = tell.send(change))
                    .context("cannot follow the host's Codex login")
                    .map_err(Failure::runtime)?,
            ),
            None => None,
        };
        let mut stopped = 0;
        let result = loop {
            tokio::select! {
                ended = self.place.ended() => break ended,
                ended = self.sidecar.ended() => break Err(launching::sidecar_ended(&ended)),
                Some(change) = changes.recv() => self.follow(change).await,
                number = stops.next() => match number {
                    libc::SIGINT | libc::SIGQUIT if at_terminal => {}
                    libc::SIGTERM | libc::SIGHUP => {
                        self.place.signal(number);
                        deadline.as_mut().reset(Instant::now() + STOPPING);
                        stopped = 128 + number;
                    }
                    _ => self.place.signal(number),
                },
                () = &mut deadline => break Ok(stopped),
            }
        };
        self.place.close().await;
        launching::tell_refusals(&self.sidecar.stop().await);
        result
    }

    /// Gives a renewed login to the sidecar, and its dummy to the agent.
    async fn follow(&mut self, change: Change) {
        match change {
            Change::Renewed(login) => {
                let Some(codex) = self.prepared.handed.codex() else {
                    return;
                };
                // A sidecar or an agent that has ended is noticed where it is waited for.
                _ = self.sidecar.hand(&codex.line(&login)).await;
                if self.has_dummy {
                    _ = self.place.write(&HomeFile::codex_login(&login));
                }
            }
            Change::Kept(reason) => {
                eprintln!(
                    "warning: the host's Codex login is of no use now, and the last good one is kept: {reason}"
                );
            }
        }
    }
}

impl Place {
    async fn ended(&mut self) -> Result<i32, Failure> {
        match self {
            Self::Box(place) => Ok(i32::from(place.ended().await?)),
            Self::Unboxed(place) => place.ended().await.map_err(Failure::runtime),
        }
    }

    fn signal(&self, number: i32) {
        match self {
            Self::Box(place) => _ = place.signal(number),
            Self::Unboxed(place) => place.signal(number),
        }
    }

    fn write(&self, file: &HomeFile) -> io::Result<()> {
        match self {
            Self::Box(place) => place.write(file),
            Self::Unboxed(place) => place.write(file),
        }
    }

    async fn close(self) {
        match self {
            Self::Box(place) => place.close().await,
            Self::Unboxed(place) => place.close().await,
        }
    }
}

/// Longer than any agent works.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// How long an agent that is asked to end may take.
const STOPPING: Duration = Duration::from_secs(10);

/// The home, the bundle and the proxy of an agent without a box.
fn outside(
    home: Option<&Path>,
    prepared: &Prepared,
    sidecar: &Sidecar,
) -> (PathBuf, PathBuf, String) {
    let own = prepared.directory();
    let address = sidecar.addresses().next().unwrap_or_default();
    (
        home.map_or_else(|| own.join("home"), Path::to_owned),
        own.join("ca-bundle.pem"),
        format!("http://{address}"),
    )
}
