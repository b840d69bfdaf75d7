//! `egress ca`: creates the bottle's CA, and prints what agents need of it. The key never leaves its directory.
//!
//! Exit: 0 done, 2 usage or configuration, 3 runtime.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;
use egress_ca::{Constraints, Root};

use super::serve::args::constraints;
use super::{Failure, load_routes, output, print, trust_bundle};
use crate::audit::object::rfc3339;
use crate::config::Faults;
use crate::proxy::uncertifiable;
use crate::route::Routes;

/// The bottle's CA
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Create the CA, or check the one that is there, and say for which hosts it may stand
    #[command(after_help = INIT_EXAMPLES)]
    Init(Init),
    /// Print the CA's certificate
    #[command(after_help = CERT_EXAMPLES)]
    Cert(Cert),
    /// Print or write the platform's roots and the CA's certificate as one file, for agents to trust
    #[command(after_help = BUNDLE_EXAMPLES)]
    Bundle(Bundle),
}

/// Arguments of `egress ca init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    #[command(flatten)]
    ca: CaDir,
    /// The routes file, whose hosts the CA may stand for
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "EGRESS_ROUTES",
        default_value = "routes.yaml"
    )]
    routes: PathBuf,
    /// Have the CA stand for any host, and read no routes
    #[arg(long)]
    no_name_constraints: bool,
    /// Put a new key and certificate in place of those that are there; agents need the new certificate
    #[arg(long)]
    renew: bool,
}

/// Arguments of `egress ca cert`.
#[derive(Debug, clap::Args)]
pub struct Cert {
    #[command(flatten)]
    ca: CaDir,
}

/// Arguments of `egress ca bundle`.
#[derive(Debug, clap::Args)]
pub struct Bundle {
    #[command(flatten)]
    ca: CaDir,
    /// Write to a file, in one step and readable for everybody, and not to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Where a CA is looked for that has to be there.
#[derive(Debug, clap::Args)]
pub struct CaDir {
    /// The directory of the bottle's CA [default: $XDG_STATE_HOME/egress/ca, else ~/.local/state/egress/ca]
    #[arg(long = "ca-dir", value_name = "DIR", env = "EGRESS_CA_DIR")]
    pub path: Option<PathBuf>,
}

const INIT_EXAMPLES: &str = "\
Examples:
  egress ca init -r routes.yaml
  egress ca init -r routes.yaml --renew   # after a host was added: it stands for named hosts only
  egress ca init --no-name-constraints    # for hosts that change often; a stolen key stands for all

`egress serve` creates a missing CA by itself. A CA that is there is never changed without --renew.";

const CERT_EXAMPLES: &str = "\
Examples:
  egress ca cert > agent/ca-cert.pem
  egress ca cert | openssl x509 -noout -text

The certificate goes to stdout; its fingerprint and its end to stderr.";

const BUNDLE_EXAMPLES: &str = "\
Examples:
  egress ca bundle -o /srv/bottle/ca-bundle.pem
  SSL_CERT_FILE=/etc/company/roots.pem egress ca bundle -o ca-bundle.pem   # not the platform's

Hosts that are passed through show their own certificates, so an agent needs the public roots as
well as the CA.";

/// Runs the command.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(command: &Ca) -> Result<ExitCode, Failure> {
    match command {
        Ca::Init(args) => init(args)?,
        Ca::Cert(args) => {
            let root = args.ca.root()?;
            print(root.certificate_pem())?;
            eprint!("{}", facts(&root));
        }
        Ca::Bundle(args) => {
            let root = args.ca.root()?;
            let text = trust_bundle(&root)?;
            match &args.output {
                Some(path) => output::write(path, &text, "choose a file in a directory of yours")?,
                None => print(&text)?,
            }
            eprint!("{}", facts(&root));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl CaDir {
    /// The root, which has to be there.
    ///
    /// # Errors
    ///
    /// A [`Failure`], also where there is none.
    pub fn root(&self) -> Result<Root, Failure> {
        let dir = super::ca_dir(self.path.as_ref())?;
        Root::load(&dir)?.ok_or_else(|| {
            Failure::usage(anyhow!("there is no CA in {}", dir.display())).hint(
                "create it with `egress ca init` or `egress serve`, or name its directory with --ca-dir",
            )
        })
    }
}

fn init(args: &Init) -> Result<(), Failure> {
    let routes = match args.no_name_constraints {
        true => None,
        false => Some(load_routes(&args.routes)?),
    };
    let wanted = routes.as_ref().map_or(Constraints::None, constraints);
    let dir = &super::ca_dir(args.ca.path.as_ref())?;
    let existing = match args.renew {
        // What is wrong with a pair is no matter once it is replaced.
        true => None,
        false => Root::load(dir)?,
    };
    let (done, root) = match existing {
        Some(root) => {
            check_constraints(&root, &wanted, dir)?;
            ("was there before, and stays", root)
        }
        None if args.renew => ("issued anew", Root::renew(dir, &wanted)?),
        None => ("created", Root::open(dir, &wanted)?),
    };
    if let Some(routes) = &routes {
        check_routes(&root, routes, &args.routes)?;
    }
    print(&format!(
        "CA in {}: {done}\n{}{}",
        dir.display(),
        facts(&root),
        certifies(&root)
    ))
}

/// Refuses to leave a narrower CA than was asked for.
fn check_constraints(root: &Root, wanted: &Constraints, dir: &Path) -> Result<(), Failure> {
    match (root.permitted_names(), wanted) {
        (Some(_), Constraints::None) => Err(Failure::usage(anyhow!(
            "the CA in {} has name constraints",
            dir.display()
        ))
        .hint("replace it with --renew; agents must then be given the new certificate")),
        (None, Constraints::Hosts(_)) => {
            eprintln!("warning: the CA that is there may stand for any host; --renew narrows it");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses a CA that cannot stand for each host of the routes, as `egress serve` would.
fn check_routes(root: &Root, routes: &Routes, file: &Path) -> Result<(), Failure> {
    let faults: Vec<_> = uncertifiable(routes, root).collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Faults::new(file.display().to_string(), "", faults).into())
}

fn facts(root: &Root) -> String {
    format!(
        "  fingerprint  {}\n  expires      {}\n",
        root.fingerprint_sha256(),
        rfc3339(root.not_after())
    )
}

fn certifies(root: &Root) -> String {
    match root.permitted_names() {
        None => "  certifies    any host: whoever has the key can stand for all of them\n".into(),
        // The name that nobody ever has (RFC 2606): what a CA without hosts is constrained to.
        Some([only]) if only == "invalid" => "  certifies    no host\n".into(),
        Some(names) => names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let title = if index == 0 { "certifies" } else { "" };
                format!("  {title:<11}  {name} and all below it\n")
            })
            .collect(),
    }
}
