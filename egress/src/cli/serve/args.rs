//! The arguments of `egress serve`, and what follows from them alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::path::PathBuf;

use anyhow::anyhow;
use egress_ca::{Constraints, Root};
use ipnet::IpNet;

use super::super::Failure;
use super::super::limits::LimitArgs;
use super::super::logging::{LogFilter, LogFormat};
use super::audit::AuditArgs;
use super::dns::DnsAddress;
use super::listen::{self, ListenAddress, Place};
use super::observe::ObserveArgs;
use crate::admin::AdminAddress;
use crate::credential::{SlotName, UPSTREAM_PROXY};
use crate::proxy::Entrance;
use crate::proxy::steer::preamble::TOKEN_NAME;
use crate::proxy::upstream::ProxyUrl;
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
    pub(super) routes: PathBuf,
    /// Where clients connect: IP:PORT, unix:PATH, or fd:N for a socket that listens already and is inherited. May be
    /// given several times [default: 127.0.0.1:8080, unless there is another way in]
    #[arg(short, long, value_name = "ADDRESS")]
    pub(super) listen: Vec<ListenAddress>,
    /// Where clients connect that know of no proxy, with TLS whose server name is their https origin: addresses as for
    /// --listen
    #[arg(long, value_name = "ADDRESS")]
    pub(super) steer_tls: Vec<ListenAddress>,
    /// The same for plain requests, whose Host is their http origin
    #[arg(long, value_name = "ADDRESS")]
    pub(super) steer_http: Vec<ListenAddress>,
    /// Where smolvm's network connects (`--egress-interceptor`), with the token of SMOLVM_INTERCEPTOR_TOKEN
    #[arg(long, value_name = "ADDRESS")]
    pub(super) interceptor: Vec<ListenAddress>,
    /// Where names are asked for, over UDP and TCP: IP:PORT, or fd:N for a socket of either kind. Names that a route admits,
    /// or an observation lets through, are answered with --dns-answer, and no others
    #[arg(long, value_name = "ADDRESS", requires = "dns_answer")]
    pub(super) dns: Vec<DnsAddress>,
    /// The address of the steered listeners, as clients reach them; one for each family
    #[arg(long, value_name = "IP", requires = "dns")]
    pub(super) dns_answer: Vec<IpAddr>,
    #[command(flatten)]
    pub(super) ca: CaArgs,
    /// Where `egress status` and `egress reload` connect: unix:PATH, or IP:PORT on loopback
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    pub(super) admin: Option<AdminAddress>,
    /// Where a browser of the operator's is shown the page: IP:PORT on loopback, or unix:PATH. The log has an address that opens
    /// it once, and `egress ui` prints another
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ui: Option<AdminAddress>,
    /// A network whose clients may connect; needed on every address but loopback. May be given several times
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub(super) allow_client: Vec<IpNet>,
    /// A file of USER:PASSWORD lines, one of which each client has to present
    #[arg(long, value_name = "FILE")]
    pub(super) client_auth_file: Option<PathBuf>,
    /// A PEM file of certificates trusted for every upstream besides the roots. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(super) upstream_ca: Vec<PathBuf>,
    /// Whose root certificates are trusted for upstreams
    #[arg(long, value_enum, default_value_t)]
    pub(super) roots: RootsArg,
    /// A further proxy that every upstream is reached through: http://[USER:PASSWORD@]HOST:PORT
    #[arg(
        long,
        value_name = "URL",
        env = UPSTREAM_PROXY,
        hide_env_values = true
    )]
    pub(super) upstream_proxy: Option<ProxyUrl>,
    /// The log's form
    #[arg(long, value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
    /// What is logged, as `info`, `debug` or a filter like `egress=debug,hyper=info`
    #[arg(
        long,
        value_name = "FILTER",
        env = "EGRESS_LOG",
        default_value = "info"
    )]
    pub(super) log: LogFilter,
    /// A file descriptor that is told `LISTEN=ADDRESS` for each listener, `UI=ADDRESS` for the page, `CA=` and the root's certificate in base64, and
    /// then `READY=1`
    #[arg(long, value_name = "N")]
    pub(super) ready_fd: Option<RawFd>,
    /// A file descriptor from which lines of {"SLOT":"value"} are read: the first before the start, later ones replace
    /// the values that they name
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=65535))]
    pub(super) slots_fd: Option<RawFd>,
    /// Stop when the other end of --slots-fd is closed: who handed the slots over is gone
    #[arg(long, requires = "slots_fd")]
    pub(super) stop_at_eof: bool,
    /// Stop when the process that started this one ends, however it ends (Linux)
    #[arg(long)]
    pub(super) die_with_parent: bool,
    /// Do not start where a measure by which the process confines itself is not in force
    #[arg(long)]
    pub(super) require_confinement: bool,
    #[command(flatten)]
    pub(super) audit: AuditArgs,
    #[command(flatten)]
    pub(super) observe: ObserveArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
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
  EGRESS_TOKEN_0_FILE=/run/secrets/openai egress serve -r routes.yaml \\
    --listen 10.1.0.2:8080 --allow-client 10.1.0.0/24
  egress serve -r routes.yaml \\
    --listen unix:/run/bottle/egress.sock --admin unix:/run/bottle/admin.sock
  egress serve -r routes.yaml --listen 10.1.0.2:8080 \\
    --steer-tls 10.1.0.2:443 --steer-http 10.1.0.2:80 \\
    --dns 10.1.0.2:53 --dns-answer 10.1.0.2 --allow-client 10.1.0.0/24
  egress serve -r routes.yaml --listen fd:5 --slots-fd 0 --stop-at-eof <slots.pipe
  egress serve -r routes.yaml --no-name-constraints --audit egress.db --observe-for 30m

Signals: HUP reads the routes and slots again; TERM and INT stop after the exchanges under way, a
second INT at once.";

/// A network in its own name: with bits behind the prefix, it is not what whoever wrote it had in mind.
fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text
        .parse()
        .map_err(|_| "expected a network as 10.0.0.0/8 or fd00::/8")?;
    if network == network.trunc() {
        Ok(network)
    } else {
        let network = network.trunc();
        Err(format!(
            "it has bits set behind its prefix; the network is {network}"
        ))
    }
}

impl Args {
    /// The listeners, inherited ones taken over.
    pub(super) fn places(&self) -> Result<Vec<(Entrance, Place)>, Failure> {
        let ways = [
            (Entrance::Proxy, &self.listen),
            (Entrance::SteerTls, &self.steer_tls),
            (Entrance::SteerHttp, &self.steer_http),
            (Entrance::Interceptor, &self.interceptor),
        ];
        let mut places = Vec::new();
        for (entrance, addresses) in ways {
            places.extend(listen::take(entrance, addresses)?);
        }
        if places.is_empty() {
            let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
            places.push((Entrance::Proxy, Place::Tcp(default)));
        }
        Ok(places)
    }

    /// The slot of the interceptor's token, where there is an interceptor.
    pub(super) fn token_name(&self) -> Option<SlotName> {
        let name = || TOKEN_NAME.parse().ok();
        (!self.interceptor.is_empty()).then(name).flatten()
    }

    /// Refuses answers that no client could use.
    pub(super) fn check_answers(&self) -> Result<(), Failure> {
        for (at, answer) in self.dns_answer.iter().enumerate() {
            let earlier = self.dns_answer.get(..at).unwrap_or_default();
            if earlier
                .iter()
                .any(|other| other.is_ipv4() == answer.is_ipv4())
            {
                let error = anyhow!("--dns-answer {answer} is a second address of its family");
                return Err(
                    Failure::usage(error).hint("give one IPv4 and one IPv6 address at most")
                );
            }
            if answer.is_unspecified() || answer.is_multicast() {
                let error = anyhow!("--dns-answer {answer} is no address that can be connected to");
                let hint = "give the address of the steered listeners, as clients reach them";
                return Err(Failure::usage(error).hint(hint));
            }
        }
        Ok(())
    }
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
            Root::open(&super::super::ca_dir(self.ca_dir.as_ref())?, &constraints)?
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

/// Whose root certificates are trusted.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum RootsArg {
    /// The platform's; the bundled ones where it has none
    #[default]
    Platform,
    /// Mozilla's, as of the binary's build
    Bundled,
}
