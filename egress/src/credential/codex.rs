//! The Codex login of the host: where its file lies, and whether it is one that a sandbox can be served with.
//!
//! Only the access token leaves this module, as a [`Secret`](crate::credential::Secret). Refresh and id tokens are neither returned nor printed;
//! the buffer and the document that they arrive in are wiped on drop. The refresh token is never redeemed: it is
//! single-use, and a second redeemer logs the host out. Nothing that the file holds enters an error.

pub mod dummy;
pub(crate) mod leak;
pub mod login;
mod write;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use self::login::HostLogin;
use crate::credential::jwt::Expiry;

/// Where Codex keeps its login: `$CODEX_HOME/auth.json` when that is set and not empty, else `~/.codex/auth.json`.
///
/// `env` looks a variable of the environment up.
///
/// # Errors
///
/// [`NoHome`] when the place hangs on `HOME` and that is missing or empty.
pub fn locate(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, NoHome> {
    let set = |name| env(name).filter(|value| !value.is_empty());
    let home = || set("HOME").map(PathBuf::from).ok_or(NoHome);
    let directory = match set("CODEX_HOME").map(PathBuf::from) {
        None => home()?.join(".codex"),
        Some(path) => match path.strip_prefix("~") {
            Ok(rest) => home()?.join(rest),
            Err(_) => path,
        },
    };
    Ok(directory.join("auth.json"))
}

/// Neither `CODEX_HOME` nor `HOME` says where the login lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Codex login cannot be located: HOME is not set")]
pub struct NoHome;

/// The login file as it was read once: the token and the dummy made of it always belong together. Wiped on drop.
pub struct HostFile {
    path: PathBuf,
    document: Document,
}

impl HostFile {
    /// Reads the file. A symlink is followed, since dotfile managers make them.
    ///
    /// # Errors
    ///
    /// The file is missing, unreadable, larger than 1 MiB, not JSON or not an object.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |problem| Error::new(path, problem);
        let bytes = read_bounded(path).map_err(fail)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            // The place alone: serde_json's own text may quote what it read.
            fail(Problem::NotJson {
                line: error.line(),
                column: error.column(),
            })
        })?;
        let document = Document(value);
        if !document.0.is_object() {
            return Err(fail(Problem::NotAnObject));
        }
        Ok(Self {
            path: path.to_owned(),
            document,
        })
    }

    /// Checks that the file holds a ChatGPT login whose access token is good at `now`.
    ///
    /// # Errors
    ///
    /// The first [`Problem`] that was found.
    pub fn login(&self, now: SystemTime) -> Result<HostLogin, Error> {
        HostLogin::from_document(&self.document.0, now).map_err(|p| Error::new(&self.path, p))
    }

    /// The whole document, for the dummy, which takes from it what its allowlist names.
    pub fn document(&self) -> &Value {
        &self.document.0
    }
}

/// A login that cannot be used: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("Codex login {}: {problem}", .path.display())]
pub struct Error {
    path: PathBuf,
    problem: Problem,
}

impl Error {
    fn new(path: &Path, problem: Problem) -> Self {
        let path = path.to_owned();
        Self { path, problem }
    }

    /// The file that it is about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self.problem {
            Problem::Unreadable(_) => {
                "make the file readable for this user, or log in anew with `codex login --device-auth`"
            }
            _ => "log in on the host with `codex login --device-auth`",
        }
    }
}

/// The ways in which a login file can be of no use.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such file.
    #[error("the file is missing")]
    Missing,
    /// The file cannot be read, or is not a regular file.
    #[error("the file is unreadable: {0}")]
    Unreadable(io::Error),
    /// More than 1 MiB: no login is as long as that.
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    /// No JSON text, with the place where it goes wrong.
    #[error("not JSON (line {line}, column {column})")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON, but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A login with an API key, which a slot of its own can carry.
    #[error("an API-key login, not a ChatGPT login")]
    ApiKey,
    /// A kind of login that cannot be forwarded. Named only where the name is one of Codex's.
    #[error("unsupported auth_mode ({})", .0.unwrap_or("not a known one"))]
    UnsupportedMode(Option<&'static str>),
    /// Logged out, or never logged in.
    #[error("no tokens in it")]
    NoTokens,
    /// Tokens without the one that matters.
    #[error("no access_token in it")]
    NoAccessToken,
    /// The access token has not the shape of a JWT.
    #[error("the access_token is not a JWT")]
    NotAJwt,
    /// The access token does not say when it ends.
    #[error("the access_token has no exp")]
    NoExp,
    /// The access token's `exp` is not a number, or absurd.
    #[error("the access_token's exp is not a time in seconds")]
    OddExp,
    /// The access token has ended.
    #[error("the access_token expired at {0}")]
    Expired(Expiry),
}

impl Problem {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable(_) => "unreadable",
            Self::TooLarge => "too_large",
            Self::NotJson { .. } => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::ApiKey => "api_key",
            Self::UnsupportedMode(_) => "unsupported_mode",
            Self::NoTokens => "no_tokens",
            Self::NoAccessToken => "no_access_token",
            Self::NotAJwt => "not_a_jwt",
            Self::NoExp => "no_exp",
            Self::OddExp => "odd_exp",
            Self::Expired(_) => "expired",
        }
    }
}

/// A JSON document whose texts are wiped on drop. The names of its members are not: they are no secrets.
struct Document(Value);

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The file's bytes. Opened without blocking, since a FIFO in its place would otherwise hold us for ever.
fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Problem::Missing,
            _ => Problem::Unreadable(error),
        })?;
    let length = regular_length(&file).map_err(Problem::Unreadable)?;
    // Room for the whole of it from the start: a buffer that grows leaves copies behind that nobody wipes.
    let room = usize::try_from(length.min(MAX_BYTES)).unwrap_or_default() + 64;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(Problem::Unreadable)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= MAX_BYTES => Ok(bytes),
        _ => Err(Problem::TooLarge),
    }
}

fn regular_length(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(metadata.len())
}

const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
