//! The sidecar's environment: slot values are taken out of it once, and wiped where they stood.
//!
//! `/proc/PID/environ` shows a process's first environment to its own user for as long as it runs, even after
//! `unsetenv`; only overwriting the block helps. This file holds the crate's one use of `unsafe`, for that.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{Secret, SlotName};

/// Values that were taken from the environment at the start.
#[derive(Debug, Default)]
pub struct Environment {
    secrets: HashMap<String, Secret>,
    paths: HashMap<String, PathBuf>,
}

/// Variables of this form are slots even where no route names them yet: a reload may.
const SLOT_PREFIX: &str = "EGRESS_TOKEN_";

impl Environment {
    /// Takes the values of the named slots, and of every variable `EGRESS_TOKEN_*`, out of the process's environment.
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
                wipe(key);
            }
        }
        taken
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

    pub(super) fn secret(&self, name: &SlotName) -> Option<Secret> {
        self.secrets.get(name.as_str()).cloned()
    }

    pub(super) fn path(&self, variable: &str) -> Option<PathBuf> {
        self.paths.get(variable).cloned()
    }
}

fn is_slot(key: &str, named: &[&str]) -> bool {
    key.starts_with(SLOT_PREFIX) || named.contains(&key)
}

/// Overwrites a variable's value in the block that the kernel shows.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the environment block can be overwritten through its raw pointers only"
)]
fn wipe(key: &str) {
    use std::ffi::{CStr, c_char};
    unsafe extern "C" {
        static environ: *const *mut c_char;
    }
    // SAFETY: `environ` is a null-terminated array of C strings. The caller promises that no other thread runs yet, so
    // none reads or changes it meanwhile. Only bytes between `=` and the terminating NUL are written, through the
    // pointers that the C library itself handed out for a block that is mapped writable.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).count_bytes();
            let bytes = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if let Some([b'=', value @ ..]) = bytes.strip_prefix_mut(key.as_bytes()) {
                zeroize::Zeroize::zeroize(value);
            }
            entry = entry.add(1);
        }
    }
}

/// Elsewhere no file shows the block; the variable is left as it is.
#[cfg(not(target_os = "linux"))]
fn wipe(_key: &str) {}

#[cfg(target_os = "linux")]
trait StripPrefixMut {
    fn strip_prefix_mut(&mut self, prefix: &[u8]) -> Option<&mut [u8]>;
}

#[cfg(target_os = "linux")]
impl StripPrefixMut for [u8] {
    fn strip_prefix_mut(&mut self, prefix: &[u8]) -> Option<&mut [u8]> {
        if self.starts_with(prefix) {
            self.get_mut(prefix.len()..)
        } else {
            None
        }
    }
}
