//! Which logins are accepted: a ChatGPT login whose access token is a JWT that has not ended. Pure.
//!
//! The rules are an allowlist. What a file says never enters an error: any text may stand there, a token too.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{Document, Problem};
use crate::credential::Secret;
use crate::credential::jwt::{self, Expiry, NoExpiry};

/// A login that a sandbox can be served with.
#[derive(Clone, Debug)]
pub struct HostLogin {
    access_token: Secret,
    expiry: Expiry,
    mode: Mode,
    account_id: Option<String>,
    plan: Option<String>,
}

impl HostLogin {
    pub(super) fn from_document(document: &Value, now: SystemTime) -> Result<Self, Problem> {
        let mode = Mode::of(document)?;
        let tokens = document
            .get("tokens")
            .and_then(Value::as_object)
            .ok_or(Problem::NoTokens)?;
        let token = text(tokens, "access_token").ok_or(Problem::NoAccessToken)?;
        let expiry = jwt::expiry(token).map_err(|why| match why {
            NoExpiry::NotAJwt => Problem::NotAJwt,
            NoExpiry::NoExp => Problem::NoExp,
            NoExpiry::OddExp => Problem::OddExp,
        })?;
        if expiry.is_past(now) {
            return Err(Problem::Expired(expiry));
        }
        Ok(Self {
            access_token: Secret::new(token),
            expiry,
            mode,
            account_id: account_id(tokens).map(str::to_owned),
            plan: plan(token),
        })
    }

    /// The one token that leaves the host's file.
    pub fn access_token(&self) -> &Secret {
        &self.access_token
    }

    /// When the access token ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The kind of login.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The account that requests are made for. No secret, and no one else's business either.
    pub fn account_id(&self) -> Option<&str> {
        self.account_id.as_deref()
    }

    /// The ChatGPT plan, where the access token names it in a plain word.
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }
}

/// The kinds of login that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `chatgpt`: a login by browser or device code.
    ChatGpt,
    /// `chatgptAuthTokens`: tokens that another program manages.
    ChatGptAuthTokens,
    /// `user`: a name that Codex does not use, but that older hosts may still hold.
    User,
    /// No `auth_mode`: Codex itself treats it as optional.
    Unstated,
}

impl Mode {
    fn of(document: &Value) -> Result<Self, Problem> {
        match document.get("auth_mode") {
            None | Some(Value::Null) => {
                let key = document.get("OPENAI_API_KEY").and_then(Value::as_str);
                let has_key = key.is_some_and(|key| !key.is_empty());
                let has_tokens = document.get("tokens").is_some_and(Value::is_object);
                if has_key && !has_tokens {
                    return Err(Problem::ApiKey);
                }
                Ok(Self::Unstated)
            }
            Some(mode) => match mode.as_str() {
                Some("chatgpt") => Ok(Self::ChatGpt),
                Some("chatgptAuthTokens") => Ok(Self::ChatGptAuthTokens),
                Some("user") => Ok(Self::User),
                Some("apikey" | "api_key") => Err(Problem::ApiKey),
                other => Err(Problem::UnsupportedMode(known_mode(other))),
            },
        }
    }

    /// The name as the file writes it; `unstated` where it writes none.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatGpt => "chatgpt",
            Self::ChatGptAuthTokens => "chatgptAuthTokens",
            Self::User => "user",
            Self::Unstated => "unstated",
        }
    }

    /// What the operator should hear about a login that is accepted all the same.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::User => Some(
                "the login's auth_mode is `user`, which Codex does not know; the dummy says `chatgpt`",
            ),
            Self::ChatGpt | Self::ChatGptAuthTokens | Self::Unstated => None,
        }
    }
}

/// A text member that is there and not empty.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// The host's account id: it travels in a header, so what is no visible ASCII or absurdly long is none.
pub(super) fn account_id(tokens: &Map<String, Value>) -> Option<&str> {
    text(tokens, "account_id")
        .filter(|id| id.len() <= 256 && id.bytes().all(|byte| byte.is_ascii_graphic()))
}

fn plan(access_token: &str) -> Option<String> {
    let payload = jwt::payload(access_token)?;
    let claims = Document(serde_json::from_slice(&payload).ok()?);
    let plan = claims.0.get(AUTH_CLAIM)?.get(PLAN)?.as_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    ((1..=32).contains(&plan.len()) && plan.chars().all(plain)).then(|| plan.to_owned())
}

/// The name as ours, so that an error never repeats what a file says: any text may stand there, a token too.
fn known_mode(name: Option<&str>) -> Option<&'static str> {
    REFUSED_MODES
        .into_iter()
        .find(|known| name.is_some_and(|name| name == *known))
}

/// The claim under which OpenAI keeps plan, account and user.
pub(super) const AUTH_CLAIM: &str = "https://api.openai.com/auth";

/// The plan within [`AUTH_CLAIM`].
pub(super) const PLAN: &str = "chatgpt_plan_type";

/// Modes that Codex 0.169 knows and that hold no token to forward.
pub(super) const REFUSED_MODES: [&str; 5] = [
    "headers",
    "agentIdentity",
    "personalAccessToken",
    "bedrockApiKey",
    "bedrockAccessKeys",
];
