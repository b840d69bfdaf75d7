//! The `auth.json` that the agent gets: it looks logged in, and holds nothing that opens a door.
//!
//! Built from an allowlist, never by copying and masking: a field that nobody has thought of is dropped. [`Dummy`] is
//! made by [`Dummy::build`] alone, which looks for every text of the host's file in the result, so that writing
//! something unchecked does not compile.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::leak::{self, Explained};
use super::login::{AUTH_CLAIM, PLAN, account_id, text};
use super::{Document, HostFile, write};
use crate::credential::jwt::{self, Expiry};

/// A checked dummy: no text of the host's login is in it but those that the allowlist keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dummy(String);

impl Dummy {
    /// Builds the dummy of a host's document. `exp` is the end of the host's access token, and becomes the end of both
    /// dummy tokens: Codex refreshes when its own token lapses, and would fail with a placeholder. Same input, same
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`Leak`] when a text of the host's login that the allowlist does not keep would appear in the result.
    pub fn build(host: &Value, exp: Expiry) -> Result<Self, Leak> {
        let no_tokens = Map::new();
        let tokens = host.get("tokens").and_then(Value::as_object);
        let tokens = tokens.unwrap_or(&no_tokens);
        let mut builder = Builder {
            exp,
            account_id: account_id(tokens),
            kept: Vec::new(),
        };
        let dummy = json!({
            "auth_mode": auth_mode(host),
            "OPENAI_API_KEY": null,
            "tokens": {
                "id_token": builder.token(text(tokens, "id_token")),
                "access_token": builder.token(text(tokens, "access_token")),
                "refresh_token": PLACEHOLDER,
                "account_id": builder.account_id.map(|id| builder.keep(id)),
            },
            "last_refresh": last_refresh(host).map(|time| builder.keep(time)),
        });
        let text = format!("{dummy:#}\n");
        let explained = Explained {
            constants: &CONSTANTS,
            kept: &builder.kept,
        };
        match leak::find(host, &text, &explained) {
            Some(what) => Err(Leak(what)),
            None => Ok(Self(text)),
        }
    }

    /// The file's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes the file in one step, mode 0600: it is there in full or not at all. What stands there is replaced; a
    /// symlink is replaced too, not followed. A missing directory is made with mode 0700; one that is there is left as
    /// it is, and refused where everybody may write to it. A login that is no dummy is never replaced: its refresh
    /// token exists nowhere else.
    ///
    /// # Errors
    ///
    /// See [`WriteError`]. Nothing is left behind then.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        if HostFile::read(path).is_ok_and(|there| holds_login(there.document())) {
            return Err(WriteError::RealLogin(path.to_owned()));
        }
        write::atomically(path, self.0.as_bytes())
    }
}

/// A text of the host's login would have come into the agent's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dummy login would contain {0} of the host's login; nothing was written")]
pub struct Leak(&'static str);

/// Why a dummy was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The host's own login stands there, or one that somebody made in the agent.
    #[error("{}: holds a login that is not a dummy", .0.display())]
    RealLogin(PathBuf),
    /// Not the path of a file.
    #[error("{}: not a path that a file can have", .0.display())]
    NotAFile(PathBuf),
    /// The directory is missing and cannot be made, or cannot be looked at.
    #[error("directory {}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Everybody may put files there, and so could swap the login under the agent.
    #[error("directory {}: writable by every user", .0.display())]
    OpenDirectory(PathBuf),
    /// The file cannot be written, or not be put in its place.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Notes every text that is taken over, which tells the check what may appear.
struct Builder<'a> {
    exp: Expiry,
    account_id: Option<&'a str>,
    kept: Vec<String>,
}

impl Builder<'_> {
    fn keep(&mut self, text: &str) -> Value {
        self.kept.push(text.to_owned());
        Value::from(text)
    }

    /// A token that parses, of which nobody could take the signature for one.
    fn token(&mut self, host: Option<&str>) -> String {
        let payload = self.payload(host).to_string();
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        format!("{HEADER}.{payload}.{SIGNATURE}")
    }

    fn payload(&mut self, host: Option<&str>) -> Value {
        let claims = host
            .and_then(jwt::payload)
            .and_then(|payload| serde_json::from_slice(&payload).ok())
            .map(Document);
        let mut out = match claims.as_ref().map(|claims| &claims.0) {
            Some(Value::Object(claims)) => self.claims(claims),
            _ => Map::new(),
        };
        out.insert("exp".to_owned(), self.exp.unix_seconds().into());
        out.insert("sub".to_owned(), PLACEHOLDER.into());
        Value::Object(out)
    }

    fn claims(&mut self, claims: &Map<String, Value>) -> Map<String, Value> {
        let mut out = Map::new();
        let verified = match claims.get("email_verified") {
            Some(&Value::Bool(verified)) => verified,
            _ => true,
        };
        for (name, value) in claims {
            let redacted = match (name.as_str(), value) {
                ("iat" | "nbf" | "auth_time" | "pwd_auth_time", Value::Number(time)) => {
                    Value::Number(time.clone())
                }
                ("aud" | "scp" | "amr", Value::Array(items)) => self.list(items),
                ("email", _) => EMAIL.into(),
                ("email_verified", _) => verified.into(),
                (PROFILE_CLAIM, Value::Object(profile)) => match profile.get("email_verified") {
                    Some(&Value::Bool(own)) => json!({"email": EMAIL, "email_verified": own}),
                    _ => json!({"email": EMAIL, "email_verified": verified}),
                },
                (AUTH_CLAIM, Value::Object(auth)) => self.auth(auth),
                (name, &Value::Bool(flag)) if !TYPED.contains(&name) => {
                    self.kept.push(name.to_owned());
                    flag.into()
                }
                _ => continue,
            };
            out.insert(name.clone(), redacted);
        }
        if out.contains_key("email") {
            out.insert("email_verified".to_owned(), verified.into());
        }
        out
    }

    /// Audiences, scopes and methods are words. What is no text in such a list is nothing that Codex reads.
    fn list(&mut self, items: &[Value]) -> Value {
        items
            .iter()
            .filter_map(Value::as_str)
            .map(|item| self.keep(item))
            .collect()
    }

    fn auth(&mut self, auth: &Map<String, Value>) -> Value {
        let mut out = Map::new();
        for (name, value) in auth {
            let redacted = match value {
                &Value::Bool(flag) => flag.into(),
                Value::Array(_) => json!([]),
                Value::Object(_) => json!({}),
                Value::String(_) => PLACEHOLDER.into(),
                Value::Null | Value::Number(_) => continue,
            };
            self.kept.push(name.clone());
            out.insert(name.clone(), redacted);
        }
        let plan = text(auth, PLAN).map_or("unknown".into(), |plan| self.keep(plan));
        let account = text(auth, ACCOUNT).or(self.account_id);
        let account = account.map_or(PLACEHOLDER.into(), |account| self.keep(account));
        out.insert(PLAN.to_owned(), plan);
        out.insert(ACCOUNT.to_owned(), account);
        out.insert("user_id".to_owned(), PLACEHOLDER.into());
        out.insert("chatgpt_user_id".to_owned(), PLACEHOLDER.into());
        Value::Object(out)
    }
}

/// Whether a login file's document holds a login that is none of our dummies.
pub fn holds_login(there: &Value) -> bool {
    let member = |at: &Value, name| at.as_object().and_then(|at| text(at, name)).is_some();
    let tokens = there.get("tokens").unwrap_or(&Value::Null);
    let ours = tokens.get("refresh_token").and_then(Value::as_str) == Some(PLACEHOLDER);
    let any_token = member(tokens, "access_token") || member(tokens, "refresh_token");
    member(there, "OPENAI_API_KEY") || (any_token && !ours)
}

/// The host's mode where Codex takes tokens with it. With another one it would send requests unauthenticated.
fn auth_mode(host: &Value) -> &'static str {
    match host.get("auth_mode").and_then(Value::as_str) {
        Some("chatgptAuthTokens") => "chatgptAuthTokens",
        _ => "chatgpt",
    }
}

/// Codex parses it as a time and refuses the whole file otherwise, so what is no time is none.
fn last_refresh(host: &Value) -> Option<&str> {
    host.get("last_refresh")?
        .as_str()
        .filter(|time| OffsetDateTime::parse(time, &Rfc3339).is_ok())
}

const PLACEHOLDER: &str = "bot-bottle-placeholder";
const EMAIL: &str = "bot-bottle@example.invalid";
const PROFILE_CLAIM: &str = "https://api.openai.com/profile";
const ACCOUNT: &str = "chatgpt_account_id";

/// `{"alg":"none","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";

/// Codex refuses a token whose signature is empty.
const SIGNATURE: &str = "placeholder";

/// Claims with a row of their own in the table, which a boolean is not kept for.
const TYPED: [&str; 11] = [
    "exp",
    "sub",
    "iat",
    "nbf",
    "auth_time",
    "pwd_auth_time",
    "aud",
    "scp",
    "amr",
    PROFILE_CLAIM,
    AUTH_CLAIM,
];

/// Every text of 8 or more characters that the dummy holds by itself. A host's text that is one of these, or a part of
/// one, gives nothing away. (`https://api.openai.com` stands in many a login.)
const CONSTANTS: [&str; 19] = [
    HEADER,
    SIGNATURE,
    PLACEHOLDER,
    EMAIL,
    AUTH_CLAIM,
    PROFILE_CLAIM,
    PLAN,
    ACCOUNT,
    "OPENAI_API_KEY",
    "access_token",
    "account_id",
    "auth_mode",
    "chatgptAuthTokens",
    "chatgpt_user_id",
    "email_verified",
    "id_token",
    "last_refresh",
    "pwd_auth_time",
    "refresh_token",
];

#[cfg(test)]
mod tests;
