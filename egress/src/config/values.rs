//! What the values of a route's keys must look like, one function for each; `paths` has the patterns. Whether they fit
//! together is `rule`'s business.

use std::net::{IpAddr, SocketAddr};

use http::Method;
use http::header::{self, HeaderName};
use ipnet::IpNet;

use super::document::{ScalarKind, Value};
use super::fault::{Fault, Span, shown};
use super::fields::{Field, closest, duplicate, listed};
use super::pasted;
use crate::credential::SlotName;
use crate::route::ConnectTo;
use crate::route::host::{Host, HostPattern, InvalidHost};
use crate::route::passing::{CookieName, Cookies};
use crate::route::target::{Origin, Scheme};

/// One of a few words, spelt exactly.
pub(super) fn word<T: Copy>(
    field: Field<'_>,
    words: &[(&'static str, T)],
    faults: &mut Vec<Fault>,
) -> Option<T> {
    // What YAML reads as a boolean is no better in quotes.
    let text = field.written(field.node, faults)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*meaning);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = match closest(text, &names) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("one of {}", listed(&names)),
    };
    let problem = format!("unknown {} {}", shown(field.name), shown(text));
    faults.push(field.fault(problem).hint(hint));
    None
}

/// A host, or `*.` before one.
pub(super) fn host(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<HostPattern> {
    let text = field.text(faults)?;
    match text.parse() {
        Ok(pattern) => Some(pattern),
        Err(_) if text.contains('@') => {
            faults.push(user_part(field));
            None
        }
        Err(error) => {
            let problem = format!("{} is not a host: {error}", shown(text));
            let fault = field.fault(match error {
                InvalidHost::Empty => error.to_string(),
                _ => problem,
            });
            faults.push(match host_hint(text, error) {
                Some(hint) => fault.hint(hint),
                None => fault,
            });
            None
        }
    }
}

/// A user part may well have a password in it, so the text is not repeated.
fn user_part(field: Field<'_>) -> Fault {
    field
        .fault(format!("{} has a user part", shown(field.name)))
        .hint("give the host alone; a credential belongs into the slot that `token_env` names")
        .quiet()
}

fn host_hint(text: &str, error: InvalidHost) -> Option<String> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return Some(format!(
            "give the host alone, {}; its path goes under `path_allowlist`, `http` under `scheme`",
            shown(host)
        ));
    }
    if let Some((host, _)) = text.split_once('/') {
        return Some(format!(
            "give the host alone, {}; its path goes under `path_allowlist`",
            shown(host)
        ));
    }
    if let Some((host, port)) = text.rsplit_once(':').filter(|(host, port)| {
        !host.contains(':') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    }) {
        return Some(format!("write `host: {host}` and `port: {port}`"));
    }
    if let Some(suffix) = text.strip_prefix('.').filter(|suffix| !suffix.is_empty()) {
        return Some(format!(
            "a wildcard over one label is written {}",
            shown(&format!("*.{suffix}"))
        ));
    }
    if text.contains('*') {
        return Some("a wildcard stands first and for one whole label: `*.example.com`".into());
    }
    if !text.is_ascii() {
        return Some("write the international name in its `xn--` form".into());
    }
    match error {
        InvalidHost::TrailingDot => Some(format!("write {}", shown(text.trim_end_matches('.')))),
        InvalidHost::Address => Some("write an IPv4 address as four decimal numbers".into()),
        _ => None,
    }
}

/// A port in plain decimal.
pub(super) fn port(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<u16> {
    let Value::Scalar(scalar) = &field.node.value else {
        if !matches!(field.node.value, Value::Refused) {
            faults.push(field.wrong_type(field.node, "a number from 1 to 65535"));
        }
        return None;
    };
    let text = field.written(field.node, faults)?;
    let number = match text.as_bytes() {
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => text.parse().ok(),
        _ => None,
    };
    match number {
        Some(number) if scalar.plain => Some(number),
        Some(_) => {
            let problem = format!("{} must be a number, and is a text", shown(field.name));
            faults.push(field.fault(problem).hint("remove the quotes"));
            None
        }
        None => {
            let problem = format!("{} is not a port", shown(text));
            faults.push(
                field
                    .fault(problem)
                    .hint("a port is a decimal number from 1 to 65535, without leading zeros"),
            );
            None
        }
    }
}

/// The slot that a route names.
pub(super) fn slot(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<SlotName> {
    let text = field.text(faults)?;
    // What is no variable's name may be a token that was put here by mistake: it is not repeated.
    let name = text.parse::<SlotName>().ok();
    let Some(name) = name.filter(|_| !pasted::is_token(text)) else {
        faults.push(
            field
                .fault("`token_env` is not the name of an environment variable")
                .hint("name a variable of the sidecar, such as EGRESS_TOKEN_0; the token itself is its value and never stands in this file")
                .quiet(),
        );
        return None;
    };
    if let Some(slot) = text.strip_suffix("_FILE") {
        let problem = format!("the slot name {} ends in `_FILE`", shown(text));
        faults.push(field.fault(problem).hint(format!(
            "name the slot {}; where {text} is set in its place, the file is read",
            shown(slot)
        )));
        return None;
    }
    Some(name)
}

/// Headers that carry something else than a credential, or that belong to one connection.
const RESERVED: [HeaderName; 22] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VIA,
];

/// The header that carries a credential.
pub(super) fn auth_header(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<HeaderName> {
    let text = field.text(faults)?;
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let problem = format!("{} is not a header's name", shown(text));
        faults.push(field.fault(problem).hint("such as `x-api-key`"));
        return None;
    };
    let per_hop = ["keep-alive", "proxy-connection", "http2-settings"];
    if RESERVED.contains(&name)
        || per_hop.contains(&name.as_str())
        || name.as_str().starts_with("x-forwarded-")
    {
        let problem = format!("the header {} cannot carry a credential", shown(text));
        faults.push(
            field
                .fault(problem)
                .hint("such as `authorization`, `x-api-key`, `private-token`"),
        );
        return None;
    }
    Some(name)
}

/// The user part of `Basic`.
pub(super) fn auth_user(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<String> {
    let text = field.text(faults)?;
    if text.contains(':') {
        faults.push(
            field
                .fault("`auth_user` must not hold a colon")
                .hint("give the user alone; the password is the slot's value")
                .quiet(),
        );
        return None;
    }
    if text.chars().any(char::is_control) {
        faults.push(field.fault("`auth_user` must not hold control characters"));
        return None;
    }
    Some(text.into())
}

/// Method names.
pub(super) fn methods(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Vec<Method>> {
    let items = field.list("to allow every method but TRACE and CONNECT", faults)?;
    let mut methods: Vec<(Method, Span)> = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = field.text_of(item, faults) else {
            continue;
        };
        let fault = match Method::from_bytes(text.as_bytes()) {
            Err(_) => field.fault_in(item.span, format!("{} is not a method", shown(text))),
            Ok(_) if text.bytes().any(|byte| byte.is_ascii_lowercase()) => field
                .fault_in(
                    item.span,
                    format!("the method {} is not in upper case", shown(text)),
                )
                .hint(format!("write {}", text.to_ascii_uppercase())),
            Ok(Method::TRACE | Method::CONNECT) => field
                .fault_in(
                    item.span,
                    format!("the method {} is never allowed", shown(text)),
                )
                .hint("remove it"),
            Ok(method) => match methods.iter().find(|(known, _)| *known == method) {
                Some((_, first)) => repeated(field, item.span, &shown(text), *first),
                None => {
                    methods.push((method, item.span));
                    continue;
                }
            },
        };
        faults.push(fault);
    }
    Some(methods.into_iter().map(|(method, _)| method).collect())
}

/// Query conditions. Names and values are taken as they are written, whether YAML would call them numbers or not.
pub(super) fn query(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Vec<(String, String)>> {
    let map = match &field.node.value {
        Value::Map(map) => map,
        Value::Refused => return None,
        _ => {
            let hint = "write {name: value}";
            faults.push(field.wrong_type(field.node, "a map").hint(hint));
            return None;
        }
    };
    if map.is_empty() {
        let fault = field.fault("`query` is an empty map");
        faults.push(fault.hint("leave the key out to set no condition"));
    }
    let mut conditions: Vec<(&str, &str, Span)> = Vec::with_capacity(map.len());
    for entry in map {
        let Some(name) = field.written(&entry.key, faults) else {
            continue;
        };
        if name.is_empty() {
            faults.push(field.fault_in(entry.key.span, "a query parameter's name is empty"));
            continue;
        }
        if let Some((_, _, first)) = conditions.iter().find(|(known, ..)| *known == name) {
            let mut fault = duplicate(entry.key.span, name, *first);
            fault.hint =
                Some("one parameter has one value; for another value add a second route".into());
            faults.push(fault);
            continue;
        }
        let empty = matches!(&entry.value.value, Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null);
        if empty {
            let problem = format!("the query parameter {} has no value", shown(name));
            let fault = field.fault_in(entry.key.span, problem);
            faults.push(fault.hint("write '' for a value that must be empty"));
            continue;
        }
        if let Some(value) = field.written(&entry.value, faults) {
            conditions.push((name, value, entry.key.span));
        }
    }
    let owned = conditions
        .into_iter()
        .map(|(name, value, _)| (name.to_owned(), value.to_owned()));
    Some(owned.collect())
}

/// Networks in CIDR form; an address alone is the network of that one address.
pub(super) fn networks(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Vec<IpNet>> {
    let items = field.list("to allow public addresses only", faults)?;
    let mut networks: Vec<(IpNet, Span)> = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = field.text_of(item, faults) else {
            continue;
        };
        match network(text) {
            Ok(network) => match networks.iter().find(|(known, _)| *known == network) {
                Some((_, first)) => {
                    faults.push(repeated(field, item.span, &shown(text), *first));
                }
                None => networks.push((network, item.span)),
            },
            Err((problem, hint)) => {
                faults.push(field.fault_in(item.span, problem).hint(hint));
            }
        }
    }
    Some(networks.into_iter().map(|(network, _)| network).collect())
}

fn network(text: &str) -> Result<IpNet, (String, String)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(network) = text.parse::<IpNet>() else {
        return Err((
            format!("{} is not a network", shown(text)),
            "write a network as 10.0.0.0/8 or fd00::/8".into(),
        ));
    };
    let canonical = network.trunc();
    if network != canonical {
        return Err((
            format!("{} has bits set behind its prefix", shown(text)),
            format!("the network is {canonical}"),
        ));
    }
    if !canonical.to_string().eq_ignore_ascii_case(text) {
        return Err((
            format!("{} is not in its canonical form", shown(text)),
            format!("write {canonical}"),
        ));
    }
    Ok(canonical)
}

/// Names of cookies. An empty list says that none goes through.
pub(super) fn cookies(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Cookies> {
    let Value::Seq(items) = &field.node.value else {
        // It has the faults of everything that is no list.
        field.list("for the default", faults)?;
        return None;
    };
    let mut names: Vec<(CookieName, Span)> = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = field.text_of(item, faults) else {
            continue;
        };
        match text.parse::<CookieName>() {
            // It may stand in a name, and means itself there; nobody who writes it means that.
            Ok(_) if text.contains('*') => faults.push(
                field
                    .fault_in(
                        item.span,
                        format!("the cookie {} is a pattern", shown(text)),
                    )
                    .hint("list the names one by one; `cookies` knows names alone"),
            ),
            Ok(name) => match names.iter().find(|(known, _)| *known == name) {
                Some((_, first)) => faults.push(repeated(field, item.span, &shown(text), *first)),
                None => names.push((name, item.span)),
            },
            // What stands behind a `=` is a value, which may well be a secret.
            Err(_) if text.contains('=') => faults.push(
                field
                    .fault_in(item.span, "a cookie's name cannot hold `=`")
                    .hint("give the name alone")
                    .quiet(),
            ),
            Err(error) => {
                let problem = format!("{} is not a cookie's name: {error}", shown(text));
                faults.push(field.fault_in(item.span, problem).hint("such as `__cf_bm`"));
            }
        }
    }
    let names = names.into_iter().map(|(name, _)| name).collect();
    Some(Cookies::Named(names))
}

/// `host:port` or `address:port`.
pub(super) fn connect_to(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<ConnectTo> {
    let text = field.text(faults)?;
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    // The scheme matters for the default port only, and a port has to be there.
    let problem = match Origin::parse(Scheme::Https, text) {
        Ok(origin) if has_port => {
            return Some(match origin.host {
                Host::Address(address) => ConnectTo::Address(SocketAddr::new(address, origin.port)),
                name @ Host::Name(_) => ConnectTo::Name(name, origin.port),
            });
        }
        Ok(_) => format!("{} has no port", shown(text)),
        Err(_) if text.contains('@') => {
            faults.push(user_part(field));
            return None;
        }
        Err(error) => format!("{} cannot be dialled: {error}", shown(text)),
    };
    faults.push(
        field
            .fault(problem)
            .hint("write `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`"),
    );
    None
}

/// An item that a list has already.
pub(super) fn repeated(field: Field<'_>, span: Span, shown: &str, first: Span) -> Fault {
    field
        .fault_in(span, format!("{shown} stands twice in `{}`", field.name))
        .hint("remove one of the two")
        .related(first.line, "the first one")
}
