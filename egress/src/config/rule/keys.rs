//! The keys of a route, in a routes file and in a manifest, and the words that some of them take.

use super::super::keys::{Form as Value, Key, Keys, Unknown};
use super::super::{paths, presets};
use crate::route::Tls;
use crate::route::passing::{Extensions, QueryCredentials};
use crate::route::target::Scheme;

/// The keys of a route in a routes file.
pub(in crate::config) static KEYS: Keys = Keys {
    one_of: &["host"],
    pairs: &[
        ("auth_scheme", "token_env"),
        ("token_env", "auth_scheme"),
        ("auth_header", "token_env"),
        ("auth_user", "token_env"),
    ],
    unknown: |key| {
        Some(match key {
            "auth" | "role" | "pipelock" | "preset" => Unknown::Hint(format!(
                "`{key}` belongs in a manifest; a routes file has `auth_scheme` and `token_env`"
            )),
            "token" | "slot" | "env" | "token_ref" | "credential" => Unknown::Meant("token_env"),
            _ => return common_unknown(key),
        })
    },
    ..Keys::new("a route", &[FIRST, SLOT, REST])
};

/// The keys of a route in a manifest.
pub(in crate::config) static MANIFEST_KEYS: Keys = Keys {
    one_of: &["host", "preset"],
    pairs: &[("auth_header", "auth"), ("auth_user", "auth")],
    unknown: |key| {
        Some(match key {
            "auth_scheme" | "token_env" => Unknown::Hint(
                "a manifest has `auth: {scheme: Bearer, token_ref: NAME}` in its place".into(),
            ),
            "token" | "slot" | "env" | "token_ref" | "credential" => Unknown::Hint(
                "a credential is written `auth: {scheme: Bearer, token_ref: NAME}`".into(),
            ),
            _ => return common_unknown(key),
        })
    },
    ..Keys::new("a route", &[FIRST, AUTH, REST, MANIFEST_ONLY])
};

fn common_unknown(key: &str) -> Option<Unknown> {
    let meant = match key {
        "path" | "paths" | "path_prefix" | "allow" | "allowlist" => "path_allowlist",
        "header" => "auth_header",
        "user" | "username" => "auth_user",
        "ws" | "upgrade" => "websocket",
        "ca" | "ca_file" | "cacert" => "upstream_ca",
        "domain" | "hostname" => "host",
        "resolve" => "connect_to",
        "cookie" | "cookie_names" | "set_cookie" => "cookies",
        "mask" | "redaction" => "redact",
        "extensions" => "websocket_extensions",
        _ => return None,
    };
    Some(Unknown::Meant(meant))
}

const fn key(name: &'static str, form: Value, about: &'static str) -> Key {
    Key { name, form, about }
}

const FIRST: &[Key] = &[
    key(
        "host",
        Value::Host,
        "The host, or `*.example.com` for exactly one label below it",
    ),
    key(
        "path_allowlist",
        Value::Paths(&paths::PATTERN_KEYS),
        "Path prefixes at segment borders, or {regex: '...'}; left out: every path",
    ),
];

const SLOT: &[Key] = &[
    key(
        "auth_scheme",
        Value::Word(|| names(&AUTH_SCHEMES)),
        "The form of the credential in its header",
    ),
    key(
        "token_env",
        Value::Slot,
        "The slot: the name of the sidecar's variable that holds the credential",
    ),
];

const AUTH: &[Key] = &[key(
    "auth",
    Value::Map(&AUTH_KEYS),
    "The credential that is injected",
)];

/// The keys of `auth`.
pub(super) static AUTH_KEYS: Keys = Keys {
    one_of: &["token_ref"],
    unknown: |key| {
        Some(Unknown::Meant(match key {
            "auth_scheme" | "type" => "scheme",
            "token" | "token_env" | "env" | "ref" | "slot" => "token_ref",
            _ => return None,
        }))
    },
    ..Keys::new(
        "`auth`",
        &[&[
            key(
                "scheme",
                Value::Word(|| names(&AUTH_SCHEMES)),
                "The form of the credential in its header; a preset knows it by itself",
            ),
            key(
                "token_ref",
                Value::TokenRef,
                "Where the host has the credential: VARIABLE, `file:PATH` or `cmd:PROGRAM ARGUMENT...`",
            ),
        ]],
    )
};

const REST: &[Key] = &[
    key(
        "methods",
        Value::Methods,
        "Methods in upper case; left out: all but TRACE and CONNECT",
    ),
    key(
        "query",
        Value::Query,
        "Query parameters and the exact values that must be present",
    ),
    key("port", Value::Port, "The upstream's port"),
    key(
        "auth_header",
        Value::Header,
        "The header that carries the credential; left out: authorization",
    ),
    key("auth_user", Value::User, "The user part of Basic"),
    key(
        "tls",
        Value::Word(|| names(&TLS_MODES)),
        "Whether the agent's TLS ends at the sidecar or is passed through unseen",
    ),
    key(
        "websocket",
        Value::Flag,
        "Whether WebSocket handshakes are admitted; left out: true",
    ),
    key(
        "websocket_extensions",
        Value::Word(|| names(&EXTENSIONS)),
        "Whether a WebSocket's offer of extensions goes upstream; left out: pass",
    ),
    key(
        "encoded_slash",
        Value::Flag,
        "Whether `%2F` is accepted in a path, as data inside a segment; left out: false",
    ),
    key(
        "scheme",
        Value::Word(|| names(&SCHEMES)),
        "https, or http for a plain-text upstream",
    ),
    key(
        "insecure_inject",
        Value::Flag,
        "Permits a credential with `scheme: http`; left out: false",
    ),
    key(
        "ssrf_ip_allowlist",
        Value::Networks,
        "Networks that the host may resolve into although they are not public",
    ),
    key(
        "connect_to",
        Value::Dial,
        "host:port or address:port to dial instead of resolving the host",
    ),
    key(
        "upstream_ca",
        Value::Text,
        "A PEM file of certificates trusted for this route besides the roots",
    ),
    key(
        "cookies",
        Value::Cookies,
        "Names of the cookies that go through, both ways; left out: none with a credential, else all",
    ),
    key(
        "query_credentials",
        Value::Word(|| names(&QUERY_CREDENTIALS)),
        "Whether a query may carry credentials; left out: deny with a credential, else allow",
    ),
    key(
        "redact",
        Value::Flag,
        "Whether the injected credential is masked where an answer says it back; left out: true with a credential",
    ),
    key(
        "description",
        Value::Written,
        "Free text, shown by `egress explain` and the log",
    ),
];

const MANIFEST_ONLY: &[Key] = &[
    key(
        "role",
        Value::Texts,
        "Marks the route that carries an agent's own login, such as claude_code_oauth",
    ),
    key(
        "pipelock",
        Value::Map(&PIPELOCK_KEYS),
        "Settings of a scanner that once stood behind the proxy",
    ),
    key(
        "preset",
        Value::Word(presets::names),
        "Stands for the routes that a client or registry needs; `egress presets` lists them",
    ),
];

/// The keys of `pipelock`.
pub(super) static PIPELOCK_KEYS: Keys = Keys::new(
    "`pipelock`",
    &[&[
        key("tls_passthrough", Value::Anything, "Read over"),
        key(
            "ssrf_ip_allowlist",
            Value::NetworksIfAny,
            "As the route's own `ssrf_ip_allowlist`",
        ),
    ]],
);

/// What `auth_scheme` and `scheme` of `auth` take.
pub(in crate::config) const AUTH_SCHEMES: [(&str, Form); 4] = [
    ("Bearer", Form::Bearer),
    ("Basic", Form::Basic),
    ("token", Form::Token),
    ("raw", Form::Raw),
];

/// The form of a credential, without its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Form {
    /// `Bearer TOKEN`.
    Bearer,
    /// `Basic base64(USER:TOKEN)`.
    Basic,
    /// `token TOKEN`.
    Token,
    /// The token alone.
    Raw,
}

/// What `scheme` of a route takes.
pub(super) const SCHEMES: [(&str, Scheme); 2] = [("https", Scheme::Https), ("http", Scheme::Http)];

/// What `tls` takes.
pub(super) const TLS_MODES: [(&str, Tls); 2] = [
    ("intercept", Tls::Intercept),
    ("passthrough", Tls::Passthrough),
];

/// What `websocket_extensions` takes.
pub(super) const EXTENSIONS: [(&str, Extensions); 2] =
    [("pass", Extensions::Pass), ("drop", Extensions::Drop)];

/// What `query_credentials` takes.
pub(super) const QUERY_CREDENTIALS: [(&str, QueryCredentials); 2] = [
    ("deny", QueryCredentials::Deny),
    ("allow", QueryCredentials::Allow),
];

fn names<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}
