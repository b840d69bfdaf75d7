//! One launch: from its arguments to the end of the agent and of its sidecar.

use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, anyhow};
use tokio::process::Child;

use super::Args;
use crate::cli::Failure;
use crate::cli::launching::stops::Stops;
use crate::cli::launching::watch::{AtWork, watch};
use crate::cli::launching::{Chosen, given_variables, prepared};
use crate::file::directory_of;
use crate::launch::agent::{Agent, HomeFile, Setting};
use crate::launch::place::docker::engine::Engine;
use crate::launch::place::docker::image::{self, User};
use crate::launch::place::docker::{
    AgentPlan, AuditPlan, BUNDLE, Error, Place, SidecarPlan, Terminal, WORKSPACE,
};
use crate::launch::place::local::contents::has_users_home;
use crate::launch::prepare::Prepared;
use crate::launch::sidecar::Sidecar;
use crate::launch::variables::{AgentPath, ProxyUrl, variables};
use crate::launch::{Host, bundle};

/// An agent that has begun, and what it hangs on. Dropped at any time, it leaves nothing behind.
pub(super) struct Session {
    sidecar: Sidecar,
    // After the sidecar, which runs in it.
    container: Container,
    prepared: Prepared,
    agent: Agent,
}

/// An agent at work in its container.
struct Container {
    command: Child,
    place: Place,
    user: User,
    home: PathBuf,
    terminal: Terminal,
}

impl Session {
    /// Looks at everything first, and then starts everything.
    pub(super) async fn begin(
        args: &Args,
        chosen: &Chosen,
        workspace: &Path,
    ) -> Result<Self, Failure> {
        let prepared = prepared(chosen).await?;
        let engine = Engine::find().await.map_err(Error::from)?;
        let user = user(&engine, args).await.map_err(Error::from)?;
        let mut place = Place::open(engine, &prepared.name).await?;
        let sidecar = start_sidecar(args, chosen, &prepared, &place, workspace).await?;
        let agent = chosen.agent(&Setting {
            host: Host::this(),
            home: &args.agent_home,
            workspace: Path::new(WORKSPACE),
            routes: Some(&prepared.routes),
            roles: &prepared.roles,
            handed: Some(&prepared.handed),
        })?;
        for note in &agent.notes {
            eprintln!("note: {note}");
        }
        let environment = args.environment(&agent, &prepared, &place.proxy_url())?;
        let plan = AgentPlan {
            image: &args.image,
            workspace,
            environment: &environment,
        };
        place.agent(&plan).await?;
        let certificate = bundle::pem(sidecar.certificate());
        let trusted = trusted(&place, &certificate).await?;
        place
            .provision(
                &user,
                &args.agent_home,
                &agent.files,
                &certificate,
                &trusted,
            )
            .await?;
        let words = chosen.command(&agent, &args.command);
        check(&place, &user, &agent, &words, &args.image).await?;
        let terminal = terminal();
        let mut command = place.exec(&user, terminal, &words);
        if !std::io::stdin().is_terminal() {
            // At a terminal the keys are the agent's. Elsewhere a signal for all is told to the agent by this process.
            command.process_group(0);
        }
        let command = command
            .stdin(Stdio::inherit())
            .spawn()
            .context("docker exec")
            .map_err(Failure::runtime)?;
        Ok(Self {
            sidecar,
            container: Container {
                command,
                place,
                user,
                home: args.agent_home.clone(),
                terminal,
            },
            prepared,
            agent,
        })
    }

    /// Waits for the agent's end.
    pub(super) async fn watch(self, stops: &mut Stops) -> Result<i32, Failure> {
        watch(
            self.container,
            self.sidecar,
            &self.prepared,
            &self.agent,
            stops,
        )
        .await
    }
}

impl AtWork for Container {
    type Rest = Place;

    async fn ended(&mut self) -> Result<i32, Failure> {
        code(self.command.wait().await)
    }

    async fn signal(&self, number: i32) {
        self.place.signal(&self.user, number).await;
    }

    fn has_keys(&self) -> bool {
        self.terminal == Terminal::Yes
    }

    async fn write(&self, file: &HomeFile) -> Result<(), Failure> {
        let written = self.place.write(&self.user, &self.home, file).await;
        written.map_err(Failure::from)
    }

    async fn close(self) -> Result<Place, Failure> {
        let mut place = self.place;
        place.end_agent().await;
        Ok(place)
    }
}

/// Looks at both images.
async fn user(engine: &Engine, args: &Args) -> Result<User, image::Error> {
    image::check(engine, &args.sidecar_image, "--sidecar-image").await?;
    image::check(engine, &args.image, "--image").await?;
    image::user(engine, &args.image, &args.user).await
}

async fn start_sidecar(
    args: &Args,
    chosen: &Chosen,
    prepared: &Prepared,
    place: &Place,
    workspace: &Path,
) -> Result<Sidecar, Failure> {
    let path = prepared.routes_file();
    let routes = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(Failure::runtime)?;
    let plan = SidecarPlan {
        image: &args.sidecar_image,
        routes: &routes,
        route_certificates: chosen.bottle.upstream_cas().map(Path::to_owned).collect(),
        certificates: &args.upstream_ca,
        audit: args
            .audit
            .as_deref()
            .map(|file| audit(file, &prepared.name, workspace))
            .transpose()?,
    };
    let command = place.sidecar(&plan).await?;
    let slots = prepared.handed.line();
    Ok(Sidecar::start_by(command, &slots, args.log.as_deref()).await?)
}

/// Where the sidecar's audit file is: its directory has to be there, as for every audit file.
fn audit<'a>(file: &'a Path, bottle: &'a str, workspace: &Path) -> Result<AuditPlan<'a>, Failure> {
    let Some(name) = file.file_name() else {
        let error = anyhow!("{} is no name of a file", file.display());
        return Err(Failure::usage(error).hint("name an audit file, such as egress.db"));
    };
    let directory = directory_of(file);
    let directory = directory
        .canonicalize()
        .with_context(|| format!("cannot find {}", directory.display()))
        .map_err(Failure::usage)?;
    // The sidecar's container gets the whole directory.
    if workspace.starts_with(&directory) || has_users_home(&directory) {
        let error = anyhow!("{} holds the workspace or your home", directory.display());
        return Err(Failure::usage(error).hint("give the audit file a directory of its own"));
    }
    Ok(AuditPlan {
        directory,
        name,
        bottle,
    })
}

/// The bundle for the agent: the bottle's certificate, and the roots of its image, or else of this machine.
async fn trusted(place: &Place, certificate: &str) -> Result<String, Failure> {
    if let Some(roots) = place.roots().await? {
        return Ok(format!("{}\n{roots}", certificate.trim_end()));
    }
    match bundle::text(certificate) {
        Ok((text, _)) => Ok(text),
        Err(error) => Err(Failure::runtime(error).hint(error.hint())),
    }
}

/// The last look before the command runs: the agent accepts its home where it is in the image, and the program is there.
async fn check(
    place: &Place,
    user: &User,
    agent: &Agent,
    words: &[String],
    image: &str,
) -> Result<(), Failure> {
    if let Some(test) = &agent.test
        && let Some(program) = test.first()
        && place.has(user, program).await?
    {
        place.test(user, test).await?;
    }
    let Some(program) = words.first() else {
        let error = anyhow!("nothing says what is to be run");
        return Err(Failure::usage(error).hint("write a command after `--`"));
    };
    if place.has(user, program).await? {
        return Ok(());
    }
    let failure = Failure::usage(anyhow!("the image `{image}` has no `{program}`"));
    Err(match &agent.install {
        Some(install) if agent.command.first() == Some(program) => {
            let install = install.join(" ");
            failure.hint(format!("install it when the image is built: `{install}`"))
        }
        _ => failure,
    })
}

impl Args {
    /// The agent's variables beside those of its image.
    fn environment(
        &self,
        agent: &Agent,
        prepared: &Prepared,
        proxy: &str,
    ) -> Result<Vec<(String, String)>, Failure> {
        let proxy = ProxyUrl::parse(proxy).map_err(Failure::runtime)?;
        let bundle = AgentPath::new(Path::new(BUNDLE))
            .ok_or_else(|| Failure::runtime(anyhow!("{BUNDLE} is no path")))?;
        let home = self.agent_home.display().to_string();
        let mut environment = vec![("HOME".to_owned(), home)];
        let found = variables(&proxy, &bundle, Some(&prepared.routes));
        environment.extend(found.into_iter().map(|(name, value)| (name.into(), value)));
        environment.extend(agent.environment.iter().cloned());
        environment.extend(given_variables(&self.env)?);
        Ok(environment)
    }
}

/// How the command ended, in the way of a shell.
fn code(ended: std::io::Result<std::process::ExitStatus>) -> Result<i32, Failure> {
    let status = ended.map_err(Failure::runtime)?;
    let signalled = || 128 + status.signal().unwrap_or_default();
    Ok(status.code().unwrap_or_else(signalled))
}

fn terminal() -> Terminal {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        Terminal::Yes
    } else {
        Terminal::No
    }
}
