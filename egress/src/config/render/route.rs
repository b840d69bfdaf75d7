//! One rule as the keys of a routes file, those left out that would say the default.

use http::header::AUTHORIZATION;

use super::super::rule::passing::Passing;
use super::yaml::Value;
use crate::route::passing::{Cookies, Extensions, QueryCredentials, Redact};
use crate::route::path::{EncodedSlash, PathPattern};
use crate::route::target::Scheme;
use crate::route::{AuthScheme, ConnectTo, Injection, Rule, Tls};

/// A rule as a map. `upstream_ca` is the name of the file that its certificates were read from.
pub(super) fn value(rule: &Rule, upstream_ca: Option<&str>) -> Value {
    let mut keys = Map(Vec::new());
    keys.text("host", rule.host.to_string());
    if let Some(text) = &rule.description {
        keys.text("description", text.clone());
    }
    if let Some(paths) = &rule.paths {
        keys.put("path_allowlist", self::paths(paths));
    }
    if let Some(methods) = &rule.methods {
        keys.texts("methods", methods);
    }
    if !rule.query.is_empty() {
        let pairs = rule.query.iter();
        let pairs = pairs.map(|(name, value)| (name.clone(), Value::Text(value.clone())));
        keys.put("query", Value::Map(pairs.collect()));
    }
    if let Some(injection) = &rule.injection {
        keys.credential(injection);
    }
    if rule.scheme == Scheme::Http {
        keys.text("scheme", "http");
        if rule.injection.is_some() {
            keys.put("insecure_inject", Value::Flag(true));
        }
    }
    if rule.port != rule.scheme.default_port() {
        keys.put("port", Value::Number(rule.port));
    }
    if rule.tls == Tls::Passthrough {
        keys.text("tls", "passthrough");
    }
    if !rule.websocket {
        keys.put("websocket", Value::Flag(false));
    }
    if rule.websocket_extensions == Extensions::Drop {
        keys.text("websocket_extensions", "drop");
    }
    if rule.encoded_slash == EncodedSlash::Accept {
        keys.put("encoded_slash", Value::Flag(true));
    }
    if !rule.ssrf_ip_allowlist.is_empty() {
        keys.texts("ssrf_ip_allowlist", &rule.ssrf_ip_allowlist);
    }
    match &rule.connect_to {
        Some(ConnectTo::Address(address)) => keys.text("connect_to", address.to_string()),
        Some(ConnectTo::Name(host, port)) => keys.text("connect_to", format!("{host}:{port}")),
        None => {}
    }
    if let Some(name) = upstream_ca {
        keys.text("upstream_ca", name);
    }
    keys.passing(&Passing::of(rule));
    Value::Map(keys.0)
}

/// Path patterns as a list.
pub(super) fn paths(patterns: &[PathPattern]) -> Value {
    Value::List(patterns.iter().map(path).collect())
}

fn path(pattern: &PathPattern) -> Value {
    match pattern {
        PathPattern::Prefix(prefix) => Value::Text(prefix.to_string()),
        PathPattern::Regex(regex) => Value::Map(vec![(
            "regex".into(),
            Value::Text(regex.source().to_owned()),
        )]),
    }
}

struct Map(Vec<(String, Value)>);

impl Map {
    fn put(&mut self, key: &str, value: Value) {
        self.0.push((key.to_owned(), value));
    }

    fn text(&mut self, key: &str, text: impl Into<String>) {
        self.put(key, Value::Text(text.into()));
    }

    fn texts(&mut self, key: &str, items: &[impl ToString]) {
        let items = items.iter().map(|item| Value::Text(item.to_string()));
        self.put(key, Value::List(items.collect()));
    }

    fn passing(&mut self, said: &Passing) {
        // No list of names says "all", which is never but the default.
        if let Some(Cookies::Named(names)) = &said.cookies {
            self.texts("cookies", names);
        }
        if let Some(choice) = said.query_credentials {
            let word = match choice {
                QueryCredentials::Deny => "deny",
                QueryCredentials::Allow => "allow",
            };
            self.text("query_credentials", word);
        }
        if let Some(choice) = said.redact {
            self.put("redact", Value::Flag(choice == Redact::Mask));
        }
    }

    fn credential(&mut self, injection: &Injection) {
        let (scheme, user) = match &injection.scheme {
            AuthScheme::Bearer => ("Bearer", None),
            AuthScheme::Basic { user } => ("Basic", Some(user)),
            AuthScheme::Token => ("token", None),
            AuthScheme::Raw => ("raw", None),
        };
        self.text("auth_scheme", scheme);
        if let Some(user) = user {
            self.text("auth_user", user.clone());
        }
        if injection.header != AUTHORIZATION {
            self.text("auth_header", injection.header.as_str());
        }
        self.text("token_env", injection.slot.to_string());
    }
}
