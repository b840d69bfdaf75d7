//! `egress serve`: the sidecar, from its arguments to its end.
//!
//! The order matters: the slots are taken out of the environment and the process closes itself off before a second
//! thread runs and before anything listens.

mod listen;
mod slots;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use egress_ca::{Constraints, Issuer, Root};
use ipnet::IpNet;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use self::listen::{ListenAddress, Place};
use super::Failure;
use super::logging::{self, LogFilter, LogFormat};
use crate::admin::{self, AdminAddress};
use crate::audit::Audit;
use crate::config::{self, Faults};
use crate::confine::{self, Measure};
use crate::credential::handed::Lines;
use crate::credential::{Environment, Secret};
use crate::policy::Policy;
use crate::proxy::access::Access;
use crate::proxy::limits::Limits;
use crate::proxy::upstream::{Dialer, ProxyUrl, Roots, TlsClients, Upstream};
use crate::proxy::{self, Epoch, Listener, Source, State, uncertifiable};
use crate::route::host::{Host, HostPattern};
use crate::route::target::Scheme;
use crate::route::{Routes, Tls};

/// Arguments of `egress serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "EGRESS_ROUTES",
        default_value = "routes.yaml"
    )]
    routes: PathBuf,
    /// Where clients connect: IP:PORT, unix:PATH, or fd:N for a socket that listens already and is inherited. May be
    /// given several times
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Vec<ListenAddress>,
    #[command(flatten)]
    ca: CaArgs,
    /// Where `egress status` and `egress reload` connect: unix:PATH, or IP:PORT on loopback
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: Option<AdminAddress>,
    /// A network whose clients may connect; needed on every address but loopback. May be given several times
    #[arg(long, value_name = "CIDR")]
    allow_client: Vec<IpNet>,
    /// A file of USER:PASSWORD lines, one of which each client has to present
    #[arg(long, value_name = "FILE")]
    client_auth_file: Option<PathBuf>,
    /// A PEM file of certificates trusted for every upstream besides the roots. May be given several times
    #[arg(long, value_name = "FILE")]
    upstream_ca: Vec<PathBuf>,
    /// Whose root certificates are trusted for upstreams
    #[arg(long, value_enum, default_value_t)]
    roots: RootsArg,
    /// A further proxy that every upstream is reached through: http://[USER:PASSWORD@]HOST:PORT
    #[arg(
        long,
        value_name = "URL",
        env = "EGRESS_UPSTREAM_PROXY",
        hide_env_values = true
    )]
    upstream_proxy: Option<ProxyUrl>,
    /// The log's form
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged, as `info`, `debug` or a filter like `egress=debug,hyper=info`
    #[arg(
        long,
        value_name = "FILTER",
        env = "EGRESS_LOG",
        default_value = "info"
    )]
    log: LogFilter,
    /// A file descriptor that is told `LISTEN=ADDRESS` for each listener, `CA=` and the root's certificate in base64, and
    /// then `READY=1`
    #[arg(long, value_name = "N")]
    ready_fd: Option<RawFd>,
    /// A file descriptor from which lines of {"SLOT":"value"} are read: the first before the start, later ones replace
    /// the values that they name
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=65535))]
    slots_fd: Option<RawFd>,
    /// Stop when the other end of --slots-fd is closed: who handed the slots over is gone
    #[arg(long, requires = "slots_fd")]
    stop_at_eof: bool,
    /// Stop when the process that started this one ends, however it ends (Linux)
    #[arg(long)]
    die_with_parent: bool,
    /// Seconds for a request's head, from its first byte
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    head_timeout: u64,
    /// Seconds for a TLS handshake, on either side
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    handshake_timeout: u64,
    /// Seconds for a connection to an upstream
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    connect_timeout: u64,
    /// Seconds for an upstream's answer to begin
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = seconds())]
    answer_timeout: u64,
    /// Seconds for a body that stands still
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = seconds())]
    body_timeout: u64,
    /// Seconds for a tunnel or WebSocket on which nothing moves
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = seconds())]
    idle_timeout: u64,
    /// Seconds for exchanges under way when the sidecar is asked to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    drain_timeout: u64,
    /// Client connections at once
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
}

/// Where the bottle's CA is.
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    /// The directory of the bottle's CA; created where it is missing [default: $XDG_STATE_HOME/egress/ca, else
    /// ~/.local/state/egress/ca]
    #[arg(long, value_name = "DIR", env = "EGRESS_CA_DIR")]
    pub ca_dir: Option<PathBuf>,
    /// Keep the CA's key in memory alone, and forget it at the end
    #[arg(long)]
    pub ca_ephemeral: bool,
    /// Create the CA without name constraints, for routes whose hosts change often
    #[arg(long)]
    pub no_name_constraints: bool,
}

const EXAMPLES: &str = "\
Examples:
  EGRESS_TOKEN_0=... egress serve --routes routes.yaml
  EGRESS_TOKEN_0_FILE=/run/secrets/openai egress serve -r routes.yaml --listen 10.1.0.2:8080 --allow-client 10.1.0.0/24
  egress serve -r routes.yaml --listen unix:/run/bottle/egress.sock --admin unix:/run/bottle/admin.sock

Signals: HUP reads the routes and slots again; TERM and INT stop after the exchanges under way, a second INT at once.";

fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=7 * 86_400)
}

/// Runs the sidecar until it is told to stop.
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    // Before anything is opened here: numbers are all that tells inherited descriptors from our own.
    let places = listen::take("--listen", &args.listen)?;
    let mut handed = args.slots_fd.map(slots::take).transpose()?;
    listen::check(
        &places,
        !args.allow_client.is_empty() || args.client_auth_file.is_some(),
    )?;
    let ready = args.ready_fd.map(open_fd).transpose()?;
    if args.die_with_parent {
        die_with_parent()?;
    }
    let draft = config::read(&args.routes);
    let environment = Environment::take(draft.slots());
    let confinement = confine::apply();
    confine::raise_file_limit();
    if let Some(lines) = &mut handed {
        slots::first(lines, &environment)?;
    }
    logging::begin(args.log_format, args.log.clone());
    let policy = draft.into_policy(&environment, None, SystemTime::now())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let started = Started {
        policy,
        environment,
        confinement,
        places,
        handed,
        ready,
    };
    runtime.block_on(serve(args, started))?;
    // Exchanges that outlived the drain deadline do not keep the process.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// What there is before the first thread and the first listener.
struct Started {
    policy: Policy,
    environment: Environment,
    confinement: Vec<Measure>,
    places: Vec<Place>,
    handed: Option<Lines>,
    ready: Option<File>,
}

async fn serve(args: Args, started: Started) -> Result<(), Failure> {
    let Started {
        policy,
        environment,
        confinement,
        places,
        handed,
        ready,
    } = started;
    // All before anybody is told that it is ready: the first process of a container never gets a signal that it does not
    // handle, and any other dies of it.
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::runtime)?;
    let terminate = signal(SignalKind::terminate()).map_err(Failure::runtime)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(Failure::runtime)?;
    let listeners = listen::bind_all(places).await?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(Listener::address).collect();
    let admin = match &args.admin {
        Some(address) => Some(admin::bind(address).await?),
        None => None,
    };
    let state = Arc::new(state(&args, policy, environment, confinement, &addresses)?);
    if let Some(admin) = admin {
        tokio::spawn(admin::serve(admin, state.clone()));
    }
    tokio::spawn(watch_slots(state.clone()));
    let launcher = handed
        .map(|lines| slots::follow(lines, state.clone()))
        .transpose()?
        .filter(|_| args.stop_at_eof);
    let reloading = state.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload(&reloading).await;
        }
    });
    announce(&state, &listeners, ready)?;
    proxy::serve(state, listeners, stop(terminate, interrupt, launcher)).await;
    if let Some(AdminAddress::Unix(path)) = &args.admin {
        // Whoever asks a sidecar that is gone is told that it is not there, and not that it refuses.
        _ = std::fs::remove_file(path);
    }
    tracing::info!("stopped");
    Ok(())
}

/// Puts the sidecar together.
fn state(
    args: &Args,
    policy: Policy,
    environment: Environment,
    confinement: Vec<Measure>,
    addresses: &[SocketAddr],
) -> Result<State, Failure> {
    let limits = args.limits();
    let root = args.ca.open(&policy.routes)?;
    let faults: Vec<_> = uncertifiable(&policy.routes, &root).collect();
    if !faults.is_empty() {
        return Err(Faults::new(args.routes.display().to_string(), "", faults).into());
    }
    let issuer = Issuer::new(root, LEAF_CACHE)?;
    let roots = match args.roots {
        RootsArg::Platform => Roots::Platform,
        RootsArg::Bundled => Roots::Bundled,
    };
    let extra = args
        .upstream_ca
        .iter()
        .map(|path| certificates(path))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let tls = TlsClients::new(roots, &extra).map_err(Failure::runtime)?;
    let dialer = Dialer::new(args.upstream_proxy.clone(), addresses.into(), limits);
    let logins = match &args.client_auth_file {
        Some(path) => logins(path)?,
        None => Vec::new(),
    };
    Ok(State {
        policy: ArcSwap::from_pointee(policy),
        source: Source::new(args.routes.clone(), environment),
        issuer,
        upstream: Upstream::new(dialer, tls, limits),
        access: Access::new(args.allow_client.clone(), logins),
        audit: Arc::new(Audit::default()),
        limits,
        epoch: watch::Sender::new(Epoch::default()),
        tasks: TaskTracker::new(),
        nothing: Arc::new(nothing().map_err(Failure::runtime)?),
        confinement,
        started: SystemTime::now(),
    })
}

/// How many leaf certificates are kept.
const LEAF_CACHE: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not 0");

/// A configuration that has a certificate for no name.
fn nothing() -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())))
}

impl CaArgs {
    /// Opens the bottle's root, or creates it for these routes.
    pub fn open(&self, routes: &Routes) -> Result<Root, Failure> {
        let constraints = if self.no_name_constraints {
            Constraints::None
        } else {
            constraints(routes)
        };
        let root = if self.ca_ephemeral {
            Root::ephemeral(&constraints)?
        } else {
            Root::open(&super::ca_dir(self.ca_dir.as_ref())?, &constraints)?
        };
        Ok(root)
    }
}

/// The names that the routes have certified: those of intercepted tunnels.
pub fn constraints(routes: &Routes) -> Constraints {
    let hosts = routes
        .iter()
        .filter(|route| route.rule.tls == Tls::Intercept && route.rule.scheme == Scheme::Https);
    let names = hosts.filter_map(|route| match &route.rule.host {
        HostPattern::Exact(Host::Address(_)) => None,
        pattern => Some(pattern.to_string()),
    });
    Constraints::Hosts(names.collect())
}

impl Args {
    fn limits(&self) -> Limits {
        Limits {
            head: Duration::from_secs(self.head_timeout),
            handshake: Duration::from_secs(self.handshake_timeout),
            connect: Duration::from_secs(self.connect_timeout),
            answer: Duration::from_secs(self.answer_timeout),
            body_idle: Duration::from_secs(self.body_timeout),
            tunnel_idle: Duration::from_secs(self.idle_timeout),
            drain: Duration::from_secs(self.drain_timeout),
            connections: usize::try_from(self.max_connections)
                .unwrap_or(usize::MAX)
                .max(1),
            ..Limits::default()
        }
    }
}

/// Says that clients can connect: to the log, to systemd, and to whoever waits at `--ready-fd`.
fn announce(state: &State, listeners: &[Listener], ready: Option<File>) -> Result<(), Failure> {
    let policy = state.policy.load();
    let mut lines = String::new();
    for listener in listeners {
        let address = listener.to_string();
        tracing::info!(%address, "listening");
        lines.push_str(&format!("LISTEN={address}\n"));
    }
    let shown: Vec<String> = state
        .confinement
        .iter()
        .map(|measure| format!("{}: {}", measure.name, measure.state))
        .collect();
    tracing::info!(
        routes = policy.routes.iter().len(),
        slots = policy.slots.iter().count(),
        ca = state.issuer.root().fingerprint_sha256(),
        confinement = shown.join(", "),
        "ready",
    );
    if let Some(mut ready) = ready {
        let certificate = BASE64_STANDARD.encode(state.issuer.root().certificate_der());
        lines.push_str(&format!("CA={certificate}\nREADY=1\n"));
        ready
            .write_all(lines.as_bytes())
            .context("cannot write to --ready-fd")
            .map_err(Failure::runtime)?;
    }
    // Not under systemd there is nobody to tell, and that is no fault.
    _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    Ok(())
}

/// Reloads off the async threads, and logs what came of it.
async fn reload(state: &Arc<State>) {
    _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading, monotonic()]);
    let reloading = state.clone();
    match tokio::task::spawn_blocking(move || reloading.reload()).await {
        Ok(result) => admin::log_reload(&result),
        Err(error) => tracing::error!(%error, "the reload broke off; the old routes stay in force"),
    }
    _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

fn monotonic() -> sd_notify::NotifyState<'static> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    sd_notify::NotifyState::MonotonicUsec(micros)
}

/// Looks at file slots every two seconds (a mounted secret is replaced by renaming directories above it, which no watch
/// on the file sees), and warns before a value expires.
async fn watch_slots(state: Arc<State>) {
    let mut warned = std::collections::HashMap::new();
    loop {
        tokio::time::sleep(SLOT_INTERVAL).await;
        let refreshing = state.clone();
        _ = tokio::task::spawn_blocking(move || refreshing.refresh_slots()).await;
        for slot in state.policy.load().slots.iter() {
            let Some(expiry) = slot.expiry() else {
                continue;
            };
            let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
            if left < EXPIRY_WARNING && warned.insert(slot.name().clone(), expiry) != Some(expiry) {
                tracing::warn!(slot = %slot.name(), seconds_left = left.as_secs(), "the slot's value expires soon");
            }
        }
    }
}

const SLOT_INTERVAL: Duration = Duration::from_secs(2);
const EXPIRY_WARNING: Duration = Duration::from_secs(600);

/// Resolves at the first TERM or INT, or when the launcher is gone. A second INT ends the process at once.
async fn stop(
    mut terminate: Signal,
    mut interrupt: Signal,
    launcher: Option<oneshot::Receiver<()>>,
) {
    let gone = async {
        match launcher {
            Some(launcher) => _ = launcher.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = gone => {}
    }
    tracing::info!("stopping: no new requests are taken");
    _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tokio::spawn(async move {
        interrupt.recv().await;
        std::process::exit(130);
    });
}

/// Certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = || -> anyhow::Result<Vec<_>> {
        let found = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
        if found.is_empty() {
            Err(anyhow!("it holds no certificate"))
        } else {
            Ok(found)
        }
    };
    read()
        .with_context(|| format!("--upstream-ca {}", path.display()))
        .map_err(Failure::usage)
}

/// The `USER:PASSWORD` lines of a file, at least one.
fn logins(path: &Path) -> Result<Vec<Secret>, Failure> {
    let text = std::fs::read_to_string(path)
        .map(zeroize::Zeroizing::new)
        .with_context(|| format!("--client-auth-file {}", path.display()))
        .map_err(Failure::usage)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() || !lines.iter().all(|line| line.contains(':')) {
        let error = anyhow!(
            "--client-auth-file {} is not made of USER:PASSWORD lines",
            path.display()
        );
        return Err(Failure::usage(error));
    }
    Ok(lines.into_iter().map(Secret::new).collect())
}

/// Has the kernel end this process with its parent, also where the parent is killed and cannot do it itself.
///
/// A parent that is gone already is not noticed here: it no longer reads `--ready-fd` either, and that is noticed.
#[cfg(target_os = "linux")]
fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("--die-with-parent")
        .map_err(Failure::runtime)
}

/// Elsewhere the parent has to end this process.
#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> Result<(), Failure> {
    Ok(())
}

/// Opens an inherited descriptor anew, which leaves the original to whoever else holds it.
fn open_fd(number: RawFd) -> Result<File, Failure> {
    File::options()
        .write(true)
        .open(format!("/dev/fd/{number}"))
        .with_context(|| format!("--ready-fd {number}"))
        .map_err(Failure::usage)
}

/// Whose root certificates are trusted.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum RootsArg {
    /// The platform's; the bundled ones where it has none
    #[default]
    Platform,
    /// Mozilla's, as of the binary's build
    Bundled,
}
