//! One run: from its arguments to the end of the agent and of its sidecar.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Args;
use super::arguments::is_installed;
use super::given::Given;
use crate::cli::Failure;
use crate::cli::launching::watch::{AtWork, watch};
use crate::cli::launching::{self, Chosen};
use crate::launch::agent::{Agent, HomeFile, Setting};
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
    let given = Given::new(&args, &Host::this())?;
    launching::drive(async |stops| {
        let ready = match stops.before(Ready::new(&args, &given)).await {
            Ok(ready) => ready?,
            Err(number) => return Ok(128 + number),
        };
        // From here on a signal is the command's, which may not be there yet to get it.
        let mut early = None;
        let mut start = pin!(ready.place.start(ready.contents));
        let started = loop {
            match stops.before(&mut start).await {
                Ok(started) => break started,
                Err(number) => early = Some(number),
            }
        };
        let place = match (started, early) {
            // The key ended what was not the command yet.
            (Err(_), Some(number)) => return Ok(128 + number),
            (started, _) => started?,
        };
        if let Some(number) = early {
            place.signal(number).await;
        }
        watch(place, ready.sidecar, &ready.prepared, &ready.agent, stops).await
    })
}

/// Everything but the command. Dropped, it leaves nothing behind.
struct Ready {
    place: Waiting,
    contents: Contents,
    sidecar: Sidecar,
    prepared: Prepared,
    agent: Agent,
}

/// Where the agent will be.
enum Waiting {
    Box(OpenBox),
    /// Without a box: where its home and its bundle will be.
    Unboxed(PathBuf, PathBuf),
}

impl Ready {
    /// Starts the sidecar, and gathers what the agent is given.
    async fn new(args: &Args, given: &Given) -> Result<Self, Failure> {
        let chosen = Chosen::new(args.agent.as_deref(), &args.sources)?;
        chosen.needs_command(&args.command)?;
        let host = Host::this();
        given.keep_out_of(&chosen, &host)?;
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
            None => outside(given.home.as_deref(), &prepared, &sidecar),
        };
        let agent = chosen.agent(&Setting {
            host,
            home: &agent_home,
            workspace: &given.workspace,
            routes: Some(&prepared.routes),
            roles: &prepared.roles,
            handed: Some(&prepared.handed),
        })?;
        for note in given.notes().chain(agent.notes.iter().cloned()) {
            eprintln!("note: {note}");
        }
        let command = chosen.command(&agent, &args.command);
        is_installed(&command, &agent)?;
        let environment = args.environment(&agent, &prepared, &agent_home, &bundle_path, &proxy)?;
        let contents = Contents {
            name: prepared.name.clone(),
            workspace: given.workspace.clone(),
            home: given.home.clone(),
            more: given.more.clone(),
            pinned: given.pinned.clone(),
            command,
            files: agent.files.clone(),
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
            agent,
        })
    }
}

impl Waiting {
    /// Starts the command.
    async fn start(self, contents: Contents) -> Result<Place, Failure> {
        match self {
            Self::Box(mut opened) => {
                opened.start(contents).await?;
                Ok(Place::Box(opened))
            }
            Self::Unboxed(home, bundle) => {
                eprintln!("warning: {}", unboxed::WARNING);
                let program = contents.command.first().cloned().unwrap_or_default();
                let started = Unboxed::start(contents, &home, &bundle)
                    .with_context(|| format!("{program} does not start"))
                    .map_err(Failure::runtime);
                Ok(Place::Unboxed(started?))
            }
        }
    }
}

/// Where the agent is at work.
enum Place {
    Box(OpenBox),
    Unboxed(Unboxed),
}

impl AtWork for Place {
    type Rest = ();

    async fn ended(&mut self) -> Result<i32, Failure> {
        match self {
            Self::Box(place) => Ok(i32::from(place.ended().await?)),
            Self::Unboxed(place) => place.ended().await.map_err(Failure::runtime),
        }
    }

    async fn signal(&self, number: i32) {
        match self {
            // A box that has ended is noticed where its end is waited for.
            Self::Box(place) => _ = place.signal(number),
            Self::Unboxed(place) => place.signal(number),
        }
    }

    fn has_keys(&self) -> bool {
        terminal().is_some()
    }

    async fn write(&self, file: &HomeFile) -> Result<(), Failure> {
        let written = match self {
            Self::Box(place) => place.write(file),
            Self::Unboxed(place) => place.write(file),
        };
        written.map_err(Failure::runtime)
    }

    async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Box(place) => place.close().await,
            Self::Unboxed(place) => place.close().await,
        }
        Ok(())
    }
}

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
