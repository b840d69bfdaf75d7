//! What every launch begins with, wherever the agent is to run: the bottle is this launch's, its routes are written, and
//! its credentials are in hand.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Host;
use super::claim::{self, Claim};
use super::handover::Handed;
use super::resolve::{Unresolved, resolve};
use crate::config::manifest::Bottle;
use crate::config::{self, Faults};
use crate::route::Routes;

/// A bottle that is ready for its sidecar. Dropping it lets go of the bottle.
#[derive(Debug)]
pub struct Prepared {
    /// The bottle's name.
    pub name: String,
    /// Its routes, as the sidecar will enforce them.
    pub routes: Routes,
    /// What its routes are marked with.
    pub roles: Vec<String>,
    /// The values of its slots.
    pub handed: Handed,
    /// The launch's own directory.
    claim: Claim,
}

impl Prepared {
    /// Takes a bottle.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn new(bottle: &Bottle, host: &Host<'_>) -> Result<Self, Error> {
        let rendered = bottle.render()?;
        let handed = resolve(&rendered.slots, host)?;
        let claim = Claim::take(&bottle.name, host)?;
        let path = claim.directory().join(ROUTES);
        write_private(&path, &rendered.routes).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let file = config::load(&path)?;
        // Rendering has found ties already; here they would be faults of the same file.
        let routes = Routes::new(file.rules, None).map_err(|_| Error::Tie(bottle.name.clone()))?;
        Ok(Self {
            name: bottle.name.clone(),
            routes,
            roles: rendered.roles,
            handed,
            claim,
        })
    }

    /// The routes file, for the sidecar.
    pub fn routes_file(&self) -> PathBuf {
        self.directory().join(ROUTES)
    }

    /// A directory that is this launch's, and goes with it.
    pub fn directory(&self) -> &Path {
        self.claim.directory()
    }
}

const ROUTES: &str = "routes.yaml";

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Why a launch does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest's faults.
    #[error("{0}")]
    Faults(Faults),
    /// Credentials that cannot be had.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The bottle cannot be taken.
    #[error(transparent)]
    Claim(#[from] claim::Error),
    /// Two of its routes tie.
    #[error("two routes of the bottle `{0}` tie")]
    Tie(String),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}
