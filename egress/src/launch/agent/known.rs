//! Recognises credential files, by their names and by what is in them, so that none is copied into a box. Pure.
//!
//! Only a Codex login is replaced: of that a dummy can be made which Codex accepts. All others are refused, also where they
//! are optional. The sidecar puts credentials on requests, so the agent needs none of them, and one that was listed by
//! mistake should be heard of rather than be missing without a word.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A ChatGPT login of Codex.
    CodexLogin,
    /// A login of Codex with an API key.
    CodexApiKey,
    /// It may not be copied.
    Refused(Refusal),
    /// No credential that anything is known of.
    Other,
}

/// Why a file may not be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What it is or holds.
    pub(super) what: &'static str,
    /// What to do instead.
    pub(super) hint: &'static str,
}

const LEAVE_OUT: &str = "leave it out: the sidecar puts the credential on the agent's requests";
const PLACEHOLDER: &str =
    "list a copy in which each secret reads `placeholder`, and give the secret to a route";

/// What the path of a file says, of which the last parts are looked at. `None` where only its contents can tell.
pub(super) fn by_name(path: &Path) -> Option<Kind> {
    let refused = |what, hint| Some(Kind::Refused(Refusal { what, hint }));
    for (ending, what) in NAMES {
        if path.ends_with(ending) {
            return refused(what, LEAVE_OUT);
        }
    }
    let within = |directory: &str| {
        path.parent()
            .is_some_and(|parent| parent.iter().any(|part| part == directory))
    };
    let name = path.file_name()?.to_str()?;
    let public = name.starts_with("known_hosts") || name == "config" || name.ends_with(".pub");
    if within(".ssh") && !public {
        return refused(
            "is an SSH key, or lies among them",
            "leave it out: use HTTPS remotes, which the sidecar serves",
        );
    }
    for (directory, what) in STORES {
        if within(directory) {
            return refused(what, LEAVE_OUT);
        }
    }
    None
}

/// What the contents of a file say. What is no text cannot be looked through.
pub(super) fn by_contents(bytes: &[u8]) -> Kind {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Kind::Refused(Refusal {
            what: "is no text, and cannot be looked through for secrets",
            hint: "leave it out, or list a text file",
        });
    };
    if let Some(kind) = codex(text) {
        return kind;
    }
    match SECRETS.iter().find(|(shape, _)| holds(shape, text)) {
        Some((_, what)) => Kind::Refused(Refusal {
            what,
            hint: PLACEHOLDER,
        }),
        None => Kind::Other,
    }
}

fn codex(text: &str) -> Option<Kind> {
    let document: Value = serde_json::from_str(text).ok()?;
    let set = |value: Option<&Value>| {
        value
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
    };
    let tokens = document.get("tokens").and_then(Value::as_object);
    let has = |name| tokens.is_some_and(|tokens| set(tokens.get(name)));
    if ["access_token", "refresh_token", "id_token"]
        .into_iter()
        .any(has)
    {
        return Some(Kind::CodexLogin);
    }
    set(document.get("OPENAI_API_KEY")).then_some(Kind::CodexApiKey)
}

/// Whether a secret of this shape is there. One that calls itself a placeholder is none.
fn holds(shape: &Regex, text: &str) -> bool {
    shape
        .find_iter(text)
        .any(|found| !found.as_str().to_ascii_lowercase().contains("placeholder"))
}

/// Files that are credentials whatever is in them.
const NAMES: [(&str, &str); 22] = [
    (".aws/credentials", "holds keys of AWS"),
    (".cargo/credentials", "is cargo's login"),
    (".cargo/credentials.toml", "is cargo's login"),
    (
        ".claude.json",
        "holds the login and the MCP tokens of Claude Code",
    ),
    (".credentials.json", "is the login of Claude Code"),
    (".gemini/oauth_creds.json", "is the login of gemini-cli"),
    (
        ".gemini/mcp-oauth-tokens.json",
        "holds tokens of gemini-cli",
    ),
    (".git-credentials", "holds git's passwords"),
    (".kube/config", "is a login of Kubernetes"),
    (
        ".local/share/opencode/auth.json",
        "holds the keys of opencode",
    ),
    (
        ".local/share/opencode/mcp-auth.json",
        "holds the keys of opencode",
    ),
    (".netrc", "holds passwords"),
    (".pgpass", "holds passwords"),
    (
        ".terraform.d/credentials.tfrc.json",
        "is a login of Terraform",
    ),
    (".vault-token", "is a login of Vault"),
    ("_netrc", "holds passwords"),
    ("gh/hosts.yml", "is the login of gh"),
    ("git/credentials", "holds git's passwords"),
    ("glab-cli/config.yml", "is the login of glab"),
    (".config/hub", "is the login of hub"),
    ("opencode/auth.json", "holds the keys of opencode"),
    ("huggingface/token", "is the login of Hugging Face"),
];

/// Directories in which everything is, or leads to, a credential.
const STORES: [(&str, &str); 5] = [
    (".azure", "lies in the Azure login's directory"),
    (".gnupg", "lies in GnuPG's directory"),
    (".password-store", "lies in a password store"),
    ("gcloud", "lies in the Google Cloud login's directory"),
    ("keyrings", "lies in a key ring's directory"),
];

/// What secrets look like, wherever they stand: first by themselves, then behind a name that says so.
static SECRETS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    const KEYS: &str = r"(?:access|refresh|id|auth|oauth|bearer|session|private|personal|bot|deploy)[_-]?tokens?|client[_-]?secret|private[_-]?key|secret[_-]?key|secret[_-]?access[_-]?key|access[_-]?key|signing[_-]?key|api[_-]?key|passw(?:or)?d|passphrase|cookie|\b(?:token|secret|pat|pwd)\b";
    [
        (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----".into(),
            "holds a private key",
        ),
        (
            r"\bgh[pousr]_[A-Za-z0-9]{20,}".into(),
            "holds a token of GitHub",
        ),
        (
            r"\bgithub_pat_[A-Za-z0-9_]{20,}".into(),
            "holds a token of GitHub",
        ),
        (
            r"\bglpat-[A-Za-z0-9_-]{16,}".into(),
            "holds a token of GitLab",
        ),
        (r"\bsk-[A-Za-z0-9_-]{16,}".into(), "holds an API key"),
        (r"\bAIza[A-Za-z0-9_-]{30,}".into(), "holds a key of Google"),
        (
            r"\bya29\.[A-Za-z0-9_.-]{16,}".into(),
            "holds a token of Google",
        ),
        (
            r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b".into(),
            "holds a key of AWS",
        ),
        (
            r"\bxox[abeprs]-[A-Za-z0-9-]{10,}".into(),
            "holds a token of Slack",
        ),
        (
            r"\b(?:npm|hf)_[A-Za-z0-9]{30,}".into(),
            "holds a registry's token",
        ),
        (
            r"\beyJ[A-Za-z0-9_=-]{8,}\.[A-Za-z0-9_=-]{8,}\.[A-Za-z0-9_=-]*".into(),
            "holds a JWT",
        ),
        (
            r"://[^/\s:@]+:[^/\s@]+@".into(),
            "holds a URL with a password",
        ),
        (
            r#"(?i)\b(?:bearer|basic) +[A-Za-z0-9._~+/=-]{8,}"#.into(),
            "holds an authorization header",
        ),
        (
            format!(r#"(?i)(?:{KEYS})["']?[ \t]*[:=][ \t]*["']?[^\s"',{{}}\[\]]{{6,}}"#),
            "holds a field whose name says that it is a secret",
        ),
        (
            r#"(?i)_auth(?:token)?[ \t]*=[ \t]*["']?[^\s"']{6,}"#.into(),
            "holds npm's login",
        ),
        (
            r#"(?i)"auth"[ \t]*:[ \t]*"[^"]{6,}"#.into(),
            "holds a registry's login",
        ),
    ]
    .into_iter()
    .map(|(shape, what): (String, _)| {
        let shape = Regex::new(&shape).expect("a shape is a valid pattern, as the tests see");
        (shape, what)
    })
    .collect()
});

#[cfg(test)]
mod tests;
