//! An agent in a container, and its sidecar in another one beside it, on a network that has no other way out.
//!
//! Both containers hang on this process: their standard input is a pipe of its own, and each ends when that does. So a
//! launcher that is killed leaves no agent at work. No value of a slot is in an argument, a variable, a file or a layer.

pub mod engine;
pub mod image;
mod names;
mod network;
mod provision;
mod tar;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use self::engine::Engine;
use self::image::User;
use self::names::Names;
use self::network::Network;
use self::tar::{ROOT, Tar};
use crate::launch::sidecar::audit_arguments;

/// The two networks, and the containers as they come. Dropping it removes all of them.
#[derive(Debug)]
pub struct Place {
    engine: Engine,
    names: Names,
    network: Network,
    // The agent's container ends with it.
    agent: Option<Child>,
}

/// What the sidecar's container is made of.
#[derive(Debug)]
pub struct SidecarPlan<'a> {
    /// Its image.
    pub image: &'a str,
    /// The text of its routes file.
    pub routes: &'a str,
    /// Files of certificates that the routes name, by the paths that they name them with.
    pub route_certificates: Vec<PathBuf>,
    /// Files of certificates that are trusted for every upstream.
    pub certificates: &'a [PathBuf],
    /// Its audit file.
    pub audit: Option<AuditPlan<'a>>,
}

/// Where the sidecar writes its audit file. The directory is the host's, and the file the operator's.
#[derive(Debug)]
pub struct AuditPlan<'a> {
    /// The directory of the host, which the sidecar has whole.
    pub directory: PathBuf,
    /// The file's name in there.
    pub name: &'a OsStr,
    /// The name of the bottle in its rows.
    pub bottle: &'a str,
}

/// What the agent's container is made of.
#[derive(Debug)]
pub struct AgentPlan<'a> {
    /// Its image.
    pub image: &'a str,
    /// The directory of the host that it works in.
    pub workspace: &'a Path,
    /// Its environment, for everybody to see.
    pub environment: &'a [(String, String)],
}

/// Where the workspace is, as the agent sees it.
pub const WORKSPACE: &str = "/workspace";

/// Where the trust bundle is, as the agent sees it.
pub const BUNDLE: &str = provision::BUNDLE;

impl Place {
    /// Makes the networks of a bottle, after what an earlier launch of it has left is gone.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn open(engine: Engine, bottle: &str) -> Result<Self, Error> {
        let names = Names::of(bottle);
        names.clear_leavings(&engine).await?;
        // From here on there is something to remove.
        let mut place = Self {
            network: Network::default(),
            agent: None,
            engine,
            names,
        };
        place.network = Network::make(&place.engine, &place.names).await?;
        Ok(place)
    }

    /// The proxy's URL, as the agent sees it.
    pub fn proxy_url(&self) -> String {
        format!("http://{}:{PROXY_PORT}", self.network.sidecar)
    }

    /// Makes the sidecar's container, and returns the command that runs it: `egress serve`, whose slots are its input.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn sidecar(&self, plan: &SidecarPlan<'_>) -> Result<Command, Error> {
        let mut arguments = self.create(&self.names.sidecar);
        let address = self.network.sidecar.to_string();
        arguments.extend(["--network", &self.names.inside, "--ip", &address].map(Into::into));
        arguments.extend(SIDECAR_LIMITS.map(Into::into));
        match &plan.audit {
            None => arguments.push(NOBODY.into()),
            Some(audit) => {
                let mount = mount(&audit.directory, AUDIT)?;
                arguments.extend([operator(), "--mount".into(), mount]);
            }
        }
        for directory in plan.directories() {
            arguments.extend(["--volume".into(), directory.into()]);
        }
        if let Ok(filter) = std::env::var("EGRESS_LOG") {
            arguments.extend(["--env".into(), format!("EGRESS_LOG={filter}").into()]);
        }
        arguments.push(plan.image.into());
        arguments.extend(self.serve(plan));
        self.engine.run(&arguments).await?;
        let connect = [
            "network",
            "connect",
            &self.names.outside,
            &self.names.sidecar,
        ];
        self.engine.run(&connect).await?;
        for (directory, archive) in plan.archives()? {
            let target = format!("{}:{directory}", self.names.sidecar);
            self.engine.feed(&["cp", "-", &target], &archive).await?;
        }
        Ok(self.attached(&self.names.sidecar))
    }

    /// Makes the agent's container, in which nothing runs yet but what waits for this process's end.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn agent(&mut self, plan: &AgentPlan<'_>) -> Result<(), Error> {
        let mut arguments = self.create(&self.names.agent);
        arguments.extend(["--network", &self.names.inside].map(Into::into));
        arguments.extend(["--dns".into(), self.network.sidecar.to_string().into()]);
        arguments.extend(AGENT_LIMITS.map(Into::into));
        arguments.extend(["--hostname", &self.names.host].map(Into::into));
        arguments.extend(["--workdir", WORKSPACE, "--mount"].map(Into::into));
        arguments.push(mount(plan.workspace, WORKSPACE)?);
        for (name, value) in plan.environment {
            arguments.extend(["--env".into(), format!("{name}={value}").into()]);
        }
        let holder = [
            "--user",
            "0:0",
            "--entrypoint",
            "/bin/sh",
            plan.image,
            "-c",
            HOLD,
        ];
        arguments.extend(holder.map(Into::into));
        self.engine.run(&arguments).await?;
        let mut child = self
            .attached(&self.names.agent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(engine::Error::spawn)?;
        let stdout = child.stdout.take();
        self.agent = Some(child);
        let mut lines = BufReader::new(stdout.ok_or(Error::AgentGone)?).lines();
        match lines.next_line().await {
            Ok(Some(line)) if line == "ready" => Ok(()),
            _ => Err(Error::AgentGone),
        }
    }

    /// A program in the agent's container, run by its user in the workspace.
    pub fn exec(&self, user: &User, terminal: Terminal, command: &[String]) -> Command {
        let mut arguments: Vec<OsString> = ["exec", "--interactive"].map(Into::into).into();
        if terminal == Terminal::Yes {
            arguments.push("--tty".into());
            for name in TERMINAL_VARIABLES {
                if std::env::var_os(name).is_some() {
                    arguments.extend(["--env".into(), name.into()]);
                }
            }
        }
        arguments.extend(["--user", &user.name, &self.names.agent].map(Into::into));
        arguments.extend(command.iter().map(Into::into));
        self.engine.command(&arguments)
    }

    /// Sends a signal to all that the agent's user runs.
    pub async fn signal(&self, user: &User, number: i32) {
        let kill = format!("kill -{number} -1");
        let arguments = [
            "exec",
            "--user",
            &user.name,
            &self.names.agent,
            "/bin/sh",
            "-c",
            &kill,
        ];
        // A container that has ended already needs none.
        _ = self.engine.output(&arguments, b"").await;
    }

    /// Ends the agent's container, and removes it.
    pub async fn end_agent(&mut self) {
        drop(self.agent.take());
        let remove = ["rm", "--force", "--volumes", &self.names.agent];
        // What cannot be removed now is removed with the rest.
        _ = self.engine.output(&remove, b"").await;
    }

    fn create(&self, name: &str) -> Vec<OsString> {
        let label = self.names.label();
        let arguments = [
            "create",
            "--name",
            name,
            "--label",
            &label,
            "--rm",
            "--interactive",
        ];
        let mut arguments: Vec<OsString> = arguments.map(Into::into).into();
        arguments.extend(["--security-opt", "no-new-privileges"].map(Into::into));
        arguments
    }

    fn attached(&self, name: &str) -> Command {
        let mut command = self
            .engine
            .command(&["start", "--attach", "--interactive", name]);
        // A key that ends the agent at the terminal is not the sidecar's end.
        command.process_group(0);
        command
    }

    fn serve(&self, plan: &SidecarPlan<'_>) -> Vec<OsString> {
        let address = self.network.sidecar;
        let mut arguments: Vec<OsString> = [
            "serve",
            "--slots-fd",
            "0",
            "--stop-at-eof",
            "--ready-fd",
            "1",
            "--ca-ephemeral",
            "--routes",
            ROUTES,
        ]
        .map(Into::into)
        .into();
        let mut pair = |flag: &str, value: String| arguments.extend([flag.into(), value.into()]);
        pair("--allow-client", self.network.subnet.to_string());
        pair("--listen", format!("{address}:{PROXY_PORT}"));
        pair("--steer-tls", format!("{address}:443"));
        pair("--steer-http", format!("{address}:80"));
        pair("--dns", format!("{address}:53"));
        pair("--dns-answer", address.to_string());
        for index in 0..plan.certificates.len() {
            pair("--upstream-ca", certificate(index));
        }
        if let Some(audit) = &plan.audit {
            let file = Path::new(AUDIT).join(audit.name);
            arguments.extend(audit_arguments(&file, audit.bottle));
        }
        arguments
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.agent.take());
        self.names.remove_all();
    }
}

impl SidecarPlan<'_> {
    /// The directories that get files. A volume of its own takes them, since all else is read-only.
    fn directories(&self) -> Vec<String> {
        let own = std::iter::once(Path::new(CONFIG));
        let named = self
            .route_certificates
            .iter()
            .filter_map(|path| path.parent());
        let mut directories: Vec<String> = own
            .chain(named)
            .map(|path| path.display().to_string())
            .collect();
        directories.sort();
        directories.dedup();
        directories
    }

    fn archives(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut archives = Vec::new();
        for directory in self.directories() {
            let mut tar = Tar::default();
            if directory == CONFIG {
                tar.file("routes.yaml", 0o644, ROOT, self.routes.as_bytes())?;
                for (index, path) in self.certificates.iter().enumerate() {
                    let name = certificate(index);
                    let name = name.rsplit('/').next().unwrap_or_default();
                    tar.file(name, 0o644, ROOT, &read(path)?)?;
                }
            }
            for path in &self.route_certificates {
                if path.parent() == Some(Path::new(&directory)) {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    tar.file(&name, 0o644, ROOT, &read(path)?)?;
                }
            }
            archives.push((directory, tar.finish()));
        }
        Ok(archives)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File {
        path: path.into(),
        source,
    })
}

fn certificate(index: usize) -> String {
    format!("{CONFIG}/upstream-ca-{index}.pem")
}

/// `--mount`'s fields are those of a line of CSV.
fn mount(directory: &Path, target: &str) -> Result<OsString, Error> {
    let text = directory
        .to_str()
        .filter(|text| !text.contains('"') && !text.chars().any(char::is_control));
    match text {
        Some(text) => Ok(format!("type=bind,\"source={text}\",target={target}").into()),
        None => Err(Error::Directory(directory.into())),
    }
}

/// The sidecar's user where it writes a file of the operator's.
fn operator() -> OsString {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    format!("--user={}:{}", user.as_raw(), group.as_raw()).into()
}

/// Whether the agent works at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// It does.
    Yes,
    /// Its input or its output goes elsewhere.
    No,
}

const PROXY_PORT: u16 = 8080;
const CONFIG: &str = "/etc/egress";
const ROUTES: &str = "/etc/egress/routes.yaml";
const AUDIT: &str = "/var/log/egress";

/// The sidecar writes to its own socket's directory, binds ports below 1024 without being root, and must not carry
/// packets between its two networks.
const SIDECAR_LIMITS: [&str; 12] = [
    "--read-only",
    "--tmpfs=/run/egress:mode=1777",
    "--cap-drop=ALL",
    "--pids-limit=256",
    "--sysctl=net.ipv4.ip_forward=0",
    "--sysctl=net.ipv4.ip_unprivileged_port_start=0",
    // Whatever the image says, what is run is `egress serve`.
    "--entrypoint=/egress",
    "--log-driver=json-file",
    "--log-opt=max-size=10m",
    "--log-opt=max-file=2",
    "--hostname=egress",
    "--restart=no",
];

/// The sidecar's user where it writes nothing that stays.
const NOBODY: &str = "--user=65532:65532";

/// Without NET_RAW there are no packets but those that the kernel makes.
const AGENT_LIMITS: [&str; 4] = [
    "--cap-drop=NET_RAW",
    "--cap-drop=MKNOD",
    "--pids-limit=8192",
    "--restart=no",
];

/// Says that it runs, and waits until nobody holds the other end of its input. The shell reaps what loses its parent.
const HOLD: &str = "exec 3<&0; cat <&3 >/dev/null & echo ready; wait $!";

/// What the agent may know of the terminal that it works at.
const TERMINAL_VARIABLES: [&str; 5] = [
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "NO_COLOR",
    "FORCE_COLOR",
];

/// Why there is no agent in a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Docker's own.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The image is of no use.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// Another launch has the bottle.
    #[error("the bottle `{bottle}` is at work already: container {container}")]
    Taken {
        /// Its name.
        bottle: String,
        /// Where.
        container: String,
    },
    /// Every network that could be taken is.
    #[error("docker has no free network for the agent")]
    NoNetwork,
    /// The container does not stay up.
    #[error("the agent's container ended before anything ran in it")]
    AgentGone,
    /// A directory that cannot be mounted.
    #[error("{} cannot be mounted: its name is not plain text", .0.display())]
    Directory(PathBuf),
    /// A name in an archive.
    #[error(transparent)]
    TooLong(#[from] tar::TooLong),
    /// A file of the host.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The agent's own check failed.
    #[error("the agent does not work in its container: `{command}` ended with {status}\n  {said}")]
    Test {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
}

impl Error {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint().map(Into::into),
            Self::Image(error) => error.hint(),
            Self::Taken { .. } => Some(
                "end the other launch first, or give the second one a bottle of its own in the manifest".into(),
            ),
            Self::NoNetwork => Some("`docker network prune` removes those that nobody uses".into()),
            Self::AgentGone => Some("see whether `docker run IMAGE` works by itself".into()),
            Self::Test { .. } => Some("is the version in the image a current one?".into()),
            Self::Directory(_) | Self::TooLong(_) | Self::File { .. } => None,
        }
    }

    /// Whether the operator's own input is at fault, and not the system.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Image(
                image::Error::Missing { .. }
                    | image::Error::NoShell { .. }
                    | image::Error::NoUser { .. }
            ) | Self::Engine(engine::Error::NoClient)
                | Self::Taken { .. }
                | Self::Directory(_)
                | Self::File { .. }
        )
    }
}
