//! `egress serve`: the sidecar, from its arguments to its end.
//!
//! The order matters. The process closes itself to others before it reads anything, and the slots are taken out of the
//! environment. It gives up all that it does not need before a second thread runs and before anything listens.

pub mod args;
mod audit;
mod dns;
mod files;
mod listen;
mod observe;
mod page;
mod slots;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use egress_ca::Issuer;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use self::args::Args;
use self::files::Opened;
use self::listen::{Guards, Place};
use super::Failure;
use super::logging::{self, Logging};
use crate::admin::{self, AdminAddress, AdminListener};
use crate::audit::Audit;
use crate::config;
use crate::confine::{self, Measure, MeasureState};
use crate::credential::handed::Lines;
use crate::credential::{Environment, Shown, SlotName};
use crate::os::Untaken;
use crate::policy::Policy;
use crate::proxy::access::Access;
use crate::proxy::clients::Clients;
use crate::proxy::dns::{Server, Socket};
use crate::proxy::observe::end_in_time;
use crate::proxy::steer::preamble::Token;
use crate::proxy::upstream::{Dialer, Upstream};
use crate::proxy::{self, Entrance, Epoch, Listener, Source, State, redact};
use crate::proxy::{warn_of_unnamed, warn_of_waivers};
use crate::route::observation::Observation;

/// Runs the sidecar until it is told to stop.
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    // Before anything else, since whoever opens this process's memory before that keeps it.
    let shown = Shown::open();
    let closed = confine::close();
    // Before anything is opened here that stays so, so that no number is one of our own.
    let places = args.places()?;
    let names = dns::take(&args.dns)?;
    let mut handed = args.slots_fd.map(slots::take).transpose()?;
    let guards = Guards {
        networks: !args.allow_client.is_empty(),
        logins: args.client_auth_file.is_some(),
    };
    listen::check(&places, &names, guards)?;
    args.check_answers()?;
    observe::check(&args)?;
    let ready = args.ready_fd.map(open_fd).transpose()?;
    if args.die_with_parent {
        die_with_parent()?;
    }
    let draft = config::read(&args.routes);
    let token = args.token_name();
    let environment = Environment::take(draft.slots().chain(&token));
    let mut confinement = vec![Measure {
        name: "environment wiped",
        state: environment.wiped(shown),
    }];
    confinement.extend(closed);
    confine::raise_file_limit();
    let mut given = match &mut handed {
        Some(lines) => slots::first(lines, &environment)?,
        None => Vec::new(),
    };
    let audit = Arc::new(Audit::default());
    let logging = logging::begin(args.log_format, args.log.clone(), audit.clone());
    let _last_words = logging.last_words();
    if let Some(name) = token {
        check_token(&environment, &name)?;
        given.retain(|slot| *slot != name);
    }
    let needs = files::needs(&args, &draft, &environment, &places, &names);
    let policy = draft.into_policy(&environment, None, SystemTime::now())?;
    warn_of_unnamed(&policy, &given);
    let opened = files::open(&args, &policy)?;
    let written = args.audit.open()?;
    // A container's share of the processors is told by files.
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    confinement.extend(confine::enclose(&needs));
    if args.require_confinement {
        require(&confinement)?;
    }
    #[cfg(all(target_os = "linux", debug_assertions))]
    confine::probe::run();
    logging.detach().map_err(Failure::runtime)?;
    if let Some(writer) = written {
        args.audit.begin(writer, &audit)?;
    }
    let ended = audit.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors)
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let started = Started {
        audit,
        logging: logging.clone(),
        policy,
        opened,
        environment,
        confinement,
        places,
        names,
        handed,
        ready,
    };
    runtime.block_on(serve(args, started))?;
    // Exchanges that outlived the drain deadline do not keep the process.
    runtime.shutdown_background();
    if let Some(journal) = ended.journal() {
        let rows = journal.close(LAST_ENTRIES);
        if rows > 0 {
            tracing::error!(
                rows,
                "the audit file could not be written before the end: rows are missing in it"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How long the end of the process waits for the audit file.
const LAST_ENTRIES: Duration = Duration::from_secs(5);

/// What there is before the first thread and the first listener.
struct Started {
    audit: Arc<Audit>,
    logging: Logging,
    policy: Policy,
    opened: Opened,
    environment: Environment,
    confinement: Vec<Measure>,
    places: Vec<(Entrance, Place)>,
    names: Vec<dns::Place>,
    handed: Option<Lines>,
    ready: Option<File>,
}

async fn serve(args: Args, started: Started) -> Result<(), Failure> {
    let Started {
        audit,
        logging,
        policy,
        opened,
        environment,
        confinement,
        places,
        names,
        handed,
        ready,
    } = started;
    // All before anybody is told that it is ready: the first process of a container never gets a signal that it does not
    // handle, and any other dies of it.
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::runtime)?;
    let terminate = signal(SignalKind::terminate()).map_err(Failure::runtime)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(Failure::runtime)?;
    let listeners = listen::bind_all(places).await?;
    let names = dns::bind_all(names).await?;
    let admin = match &args.admin {
        Some(address) => Some(admin::bind(address, "--admin").await?),
        None => None,
    };
    let page = match &args.ui {
        Some(address) => Some(page::Bound::at(address).await?),
        None => None,
    };
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .filter_map(|(_, listener)| listener.address())
        .chain(names.iter().filter_map(Socket::tcp_address))
        .chain(admin.as_ref().and_then(AdminListener::address))
        .chain(page.as_ref().and_then(page::Bound::address))
        .collect();
    let source = Source::new(args.routes.clone(), environment);
    let policy = match args.observe.time() {
        Some(time) => policy.observed(Observation::until(Instant::now() + time)),
        None => policy,
    };
    let state = Arc::new(state(
        &args,
        audit,
        policy,
        source,
        opened,
        confinement,
        &addresses,
    )?);
    if let Some(admin) = admin {
        let desk = page.as_ref().map(page::Bound::desk);
        tokio::spawn(admin::serve(admin, state.clone(), desk));
    }
    let page = page.map(|page| page.show(&state)).transpose()?;
    tokio::spawn(watch_slots(state.clone()));
    let launcher = handed
        .map(|lines| slots::follow(lines, state.clone()))
        .transpose()?
        .filter(|_| args.stop_at_eof);
    let reloading = state.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // What came of it is told there, to whoever is to know.
            _ = admin::reload::reload(&reloading).await;
        }
    });
    announce(&state, &listeners, &names, page, ready)?;
    tokio::spawn(end_in_time(state.clone()));
    if !names.is_empty() {
        let server = Server::new(state.clone(), args.dns_answer.iter().copied().collect());
        for socket in names {
            tokio::spawn(server.clone().serve(socket));
        }
    }
    let stop = stop(terminate, interrupt, launcher, logging);
    proxy::serve(state, listeners, stop).await;
    for operators in [&args.admin, &args.ui] {
        if let Some(AdminAddress::Unix(path)) = operators {
            // Whoever asks a sidecar that is gone is told that it is not there, and not that it refuses.
            _ = std::fs::remove_file(path);
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Puts the sidecar together.
fn state(
    args: &Args,
    audit: Arc<Audit>,
    policy: Policy,
    source: Source,
    opened: Opened,
    confinement: Vec<Measure>,
    addresses: &[SocketAddr],
) -> Result<State, Failure> {
    let limits = args.limits.limits();
    let Opened { root, tls, logins } = opened;
    let issuer = Issuer::new(root, limits.leaves)?;
    let dialer = Dialer::new(args.upstream_proxy.clone(), addresses.into(), limits);
    Ok(State {
        policy: ArcSwap::from_pointee(policy),
        source,
        issuer,
        upstream: Upstream::new(dialer, tls, limits),
        clients: Clients::new(limits),
        access: Access::new(args.allow_client.clone(), logins),
        audit,
        limits,
        decoders: redact::decoders(limits.decoders),
        epoch: watch::Sender::new(Epoch::default()),
        tasks: TaskTracker::new(),
        nothing: Arc::new(nothing().map_err(Failure::runtime)?),
        confinement,
        started: SystemTime::now(),
    })
}

/// Refuses to run where a measure is not in force.
fn require(confinement: &[Measure]) -> Result<(), Failure> {
    let missing: Vec<String> = confinement
        .iter()
        .filter(|measure| measure.state != MeasureState::On)
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let error = anyhow!(
        "--require-confinement: {} not in force: {}",
        if missing.len() == 1 {
            "a measure is"
        } else {
            "measures are"
        },
        missing.join(", ")
    );
    Err(Failure::runtime(error)
        .hint("see \"Confinement\" in docs/operations.md, or start it without that option"))
}

/// A configuration that has a certificate for no name.
fn nothing() -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())))
}

/// Refuses an interceptor without a token.
fn check_token(environment: &Environment, name: &SlotName) -> Result<(), Failure> {
    match environment.value(name).as_ref().map(Token::parse) {
        Some(Some(_)) => Ok(()),
        given => {
            let fault = match given {
                None => "is not set",
                Some(_) => "is not 64 hexadecimal digits",
            };
            let error = anyhow!("--interceptor: {name} {fault}");
            Err(Failure::usage(error).hint(format!(
                "give {name} in the environment or on --slots-fd, as the machine has it"
            )))
        }
    }
}

/// Says that clients can connect: to the log, to the service manager, and to whoever waits at `--ready-fd`.
fn announce(
    state: &State,
    listeners: &[(Entrance, Listener)],
    names: &[dns::Socket],
    page: Option<String>,
    ready: Option<File>,
) -> Result<(), Failure> {
    let policy = state.policy.load();
    warn_of_waivers(&policy.routes);
    let mut lines = String::new();
    for (entrance, listener) in listeners {
        let (address, option) = (listener.to_string(), listen::flag(*entrance));
        tracing::info!(%address, option, "listening");
        let key = match entrance {
            Entrance::Proxy => "LISTEN",
            Entrance::SteerTls => "STEER_TLS",
            Entrance::SteerHttp => "STEER_HTTP",
            Entrance::Interceptor => "INTERCEPTOR",
        };
        lines.push_str(&format!("{key}={address}\n"));
    }
    for socket in names {
        let (key, address) = match socket {
            dns::Socket::Udp(socket) => ("DNS_UDP", socket.local_addr()),
            dns::Socket::Tcp(listener) => ("DNS_TCP", listener.local_addr()),
        };
        let address = address.map_err(Failure::runtime)?;
        tracing::info!(%address, option = "--dns", "listening");
        lines.push_str(&format!("{key}={address}\n"));
    }
    lines.extend(page);
    let shown: Vec<String> = state.confinement.iter().map(ToString::to_string).collect();
    tracing::info!(
        routes = policy.routes.iter().len(),
        slots = policy.slots.iter().count(),
        ca = state.issuer.root().fingerprint_sha256(),
        confinement = shown.join(", "),
        "ready",
    );
    for measure in &state.confinement {
        if measure.state != MeasureState::On {
            let (name, state) = (measure.name, measure.state.to_string());
            tracing::warn!(measure = name, state, "a measure of confinement is missing");
        }
    }
    redact::warn_of_short_values(&policy);
    if let Some(mut ready) = ready {
        let certificate = BASE64_STANDARD.encode(state.issuer.root().certificate_der());
        lines.push_str(&format!("CA={certificate}\nREADY=1\n"));
        ready
            .write_all(lines.as_bytes())
            .context("cannot write to --ready-fd")
            .map_err(Failure::runtime)?;
    }
    admin::service_manager::ready(state);
    Ok(())
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
    logging: Logging,
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
    admin::service_manager::stopping();
    tokio::spawn(async move {
        interrupt.recv().await;
        logging.flush();
        std::process::exit(130);
    });
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
    let opened = File::options()
        .write(true)
        .open(format!("/dev/fd/{number}"));
    opened
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!(Untaken::NotOpen),
            _ => error.into(),
        })
        .with_context(|| format!("--ready-fd {number}"))
        .map_err(Failure::usage)
}
