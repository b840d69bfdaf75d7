//! Where slot values come from: the sidecar's environment, taken once at the start, and what its launcher hands over.
//!
//! A variable's value is wiped where it stood. What the launcher handed over is replaced by what it hands over later.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::handed::Handed;
use super::{Secret, SlotName};
use crate::confine::MeasureState;
use crate::os;

/// Values that were taken from the environment at the start, and those that were handed over since.
#[derive(Debug, Default)]
pub struct Environment {
    secrets: HashMap<String, Secret>,
    paths: HashMap<String, PathBuf>,
    handed: Mutex<Handed>,
}

/// The variable of `--upstream-proxy`, whose URL may have a password in it. It was read with the arguments.
pub const UPSTREAM_PROXY: &str = "EGRESS_UPSTREAM_PROXY";

/// Variables of this form are slots even where no route names them yet: a reload may.
const SLOT_PREFIX: &str = "EGRESS_TOKEN_";

impl Environment {
    /// Takes the values of the named slots, and of every variable `EGRESS_TOKEN_*`, out of the process's environment, and
    /// wipes the block behind them and behind [`UPSTREAM_PROXY`].
    ///
    /// Call it before a second thread runs.
    pub fn take<'a>(names: impl Iterator<Item = &'a SlotName>) -> Self {
        let mut taken = Self::default();
        let named: Vec<&str> = names.map(SlotName::as_str).collect();
        for (key, value) in std::env::vars_os() {
            let Some(key) = key.to_str() else { continue };
            if let Some(slot) = key
                .strip_suffix("_FILE")
                .filter(|slot| is_slot(slot, &named))
            {
                taken.paths.insert(format!("{slot}_FILE"), value.into());
            } else if is_slot(key, &named) {
                // A value that is not UTF-8 becomes one that no header takes, so that it is named and not passed over.
                let text = value.into_string().unwrap_or_else(|_| "\u{fffd}".into());
                taken.secrets.insert(key.into(), Secret::new(text));
                os::wipe_variable(key);
            } else if key == UPSTREAM_PROXY {
                os::wipe_variable(key);
            }
        }
        taken
    }

    /// Whether the values have gone from the block that `/proc` shows. Without `/proc` nothing shows them.
    #[cfg(target_os = "linux")]
    pub fn wiped(&self, shown: Shown) -> MeasureState {
        let Some(block) = shown.read() else {
            return MeasureState::On;
        };
        let is_held = |key: &str| key == UPSTREAM_PROXY || self.secrets.contains_key(key);
        let shown = block.split(|byte| *byte == 0).find_map(|entry| {
            let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            (!value.is_empty() && is_held(key)).then(|| key.to_owned())
        });
        match shown {
            None => MeasureState::On,
            Some(key) => MeasureState::Off(format!("{key} still shows its value")),
        }
    }

    /// Elsewhere no file shows the block.
    #[cfg(not(target_os = "linux"))]
    pub fn wiped(&self, _: Shown) -> MeasureState {
        MeasureState::Unsupported
    }

    /// The files of slots.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.paths.values().map(PathBuf::as_path)
    }

    /// An environment from pairs, as `take` would read it.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut taken = Self::default();
        for (key, value) in pairs {
            if key.ends_with("_FILE") {
                taken.paths.insert(key.into(), value.into());
            } else {
                taken.secrets.insert(key.into(), Secret::new(value));
            }
        }
        taken
    }

    /// Takes values over in place of those that were handed over for the same slots before.
    ///
    /// # Errors
    ///
    /// The first slot that has its value from the environment; then nothing is taken.
    pub fn hand_over(&self, values: Handed) -> Result<(), SlotName> {
        let elsewhere = |name: &SlotName| self.secret(name).is_some() || self.path(name).is_some();
        if let Some(name) = values.names().find(|name| elsewhere(name)) {
            return Err(name.clone());
        }
        self.handed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(values);
        Ok(())
    }

    /// A value that is no route's, from its variable or as it was handed over last.
    pub fn value(&self, name: &SlotName) -> Option<Secret> {
        self.secret(name).or_else(|| self.handed(name))
    }

    /// The value of the slot's own variable.
    pub(super) fn secret(&self, name: &SlotName) -> Option<Secret> {
        self.secrets.get(name.as_str()).cloned()
    }

    /// The file that the slot's `_FILE` variable names.
    pub(super) fn path(&self, name: &SlotName) -> Option<PathBuf> {
        self.paths.get(&name.file_variable()).cloned()
    }

    /// The value that was handed over last.
    pub(super) fn handed(&self, name: &SlotName) -> Option<Secret> {
        self.handed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
    }
}

/// The block of variables as `/proc` shows it. Once the process is closed to others, its own user cannot open it any more, and
/// that includes itself.
#[derive(Debug)]
pub struct Shown(#[cfg(target_os = "linux")] Option<std::fs::File>);

impl Shown {
    /// Opens it, and reads nothing yet.
    pub fn open() -> Self {
        #[cfg(target_os = "linux")]
        return Self(std::fs::File::open("/proc/self/environ").ok());
        #[cfg(not(target_os = "linux"))]
        return Self();
    }

    #[cfg(target_os = "linux")]
    fn read(self) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        use std::io::Read as _;
        let mut block = zeroize::Zeroizing::new(Vec::new());
        self.0?.read_to_end(&mut block).ok()?;
        Some(block)
    }
}

fn is_slot(key: &str, named: &[&str]) -> bool {
    key.starts_with(SLOT_PREFIX) || named.contains(&key)
}
