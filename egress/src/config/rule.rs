//! One route of a file: its keys, and whether they fit together.

mod credential;
pub(super) mod keys;
pub(super) mod manifest;
pub(super) mod passing;

use self::keys::{EXTENSIONS, KEYS, SCHEMES, TLS_MODES};
use self::passing::Passing;
use super::authority::Authorities;
use super::document::{self, Node, Value};
use super::fault::{Fault, Span, shown};
use super::fields::{Field, Fields};
use super::{paths, values};
use crate::credential::SlotName;
use crate::route::host::{Host, HostPattern};
use crate::route::passing::{Cookies, Extensions, QueryCredentials, Redact};
use crate::route::path::{EncodedSlash, PathPattern};
use crate::route::query::QueryHazard;
use crate::route::target::Scheme;
use crate::route::{Line, Rule, Tls};

/// A route of a file, as far as it could be read.
#[derive(Debug)]
pub(super) struct Entry {
    /// The line of its first key.
    pub(super) line: Line,
    /// Where its host stands, or else where it begins.
    pub(super) span: Span,
    /// Its host, where that much is right.
    pub(super) host: Option<HostPattern>,
    /// Its slot, where that much is right, and where it is named.
    pub(super) slot: Option<(SlotName, Span)>,
    /// Where `tls` stands, if it does.
    pub(super) tls: Option<Span>,
    /// What it says about that for which the default hangs on its credential.
    pub(super) passing: Passing,
    /// The rule; `None` for a route with a fault.
    pub(super) rule: Option<Rule>,
}

impl Entry {
    /// Puts into the rule what hangs on whether a credential is injected.
    pub(super) fn settle(&mut self, injects: bool) {
        if let Some(rule) = &mut self.rule {
            self.passing.settle(rule, injects);
        }
    }

    pub(super) fn tls_mode(&self) -> Option<Tls> {
        self.rule.as_ref().map(|rule| rule.tls)
    }
}

/// Reads a route of a routes file.
pub(super) fn read(
    node: &Node<'_>,
    authorities: &mut Authorities,
    faults: &mut Vec<Fault>,
) -> Option<Entry> {
    let before = faults.len();
    let fields = Fields::read(map_of(node, faults)?, &KEYS, faults);
    let (injection, slot) = credential::injection(&fields, faults);
    let mut entry = read_rest(&fields, node.span, authorities, faults);
    entry.slot = slot;
    entry.rule = entry.rule.filter(|_| faults.len() == before);
    entry.settle(injection.is_some());
    if let Some(rule) = &mut entry.rule {
        rule.injection = injection;
        check_query(&fields, rule, faults);
    }
    Some(entry)
}

/// A condition that only requests meet which the same route refuses.
fn check_query(fields: &Fields<'_>, rule: &Rule, faults: &mut Vec<Fault>) {
    let refused = rule.condition_hazard() == Some(QueryHazard::Credential);
    if let Some(field) = fields.find("query").filter(|_| refused) {
        let problem = "no request meets `query`: a parameter of it carries a credential, which the route refuses";
        let hint =
            "add `query_credentials: allow` where it is no credential, or remove the condition";
        faults.push(Fault::new(field.key, problem).key(field.name).hint(hint));
    }
}

/// The keys of a route.
pub(super) fn map_of<'d>(
    node: &'d Node<'d>,
    faults: &mut Vec<Fault>,
) -> Option<&'d [document::Entry<'d>]> {
    match &node.value {
        Value::Map(map) => Some(map),
        Value::Refused => None,
        _ => {
            faults.push(
                Fault::new(node.span, "a route must be a map with a `host`")
                    .key("routes")
                    .hint("write `- host: api.example.com`"),
            );
            None
        }
    }
}

/// Everything about a route but its credential, of which both kinds of file speak in their own way. What hangs on that is
/// left to be settled.
pub(super) fn read_rest(
    fields: &Fields<'_>,
    route: Span,
    authorities: &mut Authorities,
    faults: &mut Vec<Fault>,
) -> Entry {
    let before = faults.len();
    let host = read_host(fields, route, faults);
    let parts = Parts::read(fields, faults);
    check_scheme(fields, host.as_ref(), &parts, faults);
    check_passthrough(fields, &parts, faults);
    let (paths, query) = read_conditions(fields, &parts, faults);
    let methods = read_optional(fields, "methods", values::methods, faults);
    let ssrf_ip_allowlist = read_optional(fields, "ssrf_ip_allowlist", values::networks, faults);
    let connect_to = read_optional(fields, "connect_to", values::connect_to, faults);
    let upstream_ca = fields
        .find("upstream_ca")
        .and_then(|field| read_authorities(field, authorities, faults));
    let extensions = read_optional(
        fields,
        "websocket_extensions",
        |field, faults| values::word(field, &EXTENSIONS, faults),
        faults,
    );
    let passing = Passing::read(fields, faults);
    let description = read_optional(
        fields,
        "description",
        |field, faults| field.written(field.node, faults).map(str::to_owned),
        faults,
    );
    let clean = faults.len() == before;
    let rule = host.clone().zip(parts.whole()).filter(|_| clean).map(
        |(host, (scheme, port, tls, websocket, encoded_slash))| Rule {
            host,
            scheme,
            port,
            paths,
            methods,
            query: query.unwrap_or_default(),
            injection: None,
            tls,
            websocket,
            websocket_extensions: extensions.unwrap_or(Extensions::Pass),
            encoded_slash,
            ssrf_ip_allowlist: ssrf_ip_allowlist.unwrap_or_default(),
            connect_to,
            upstream_ca: upstream_ca.unwrap_or_default(),
            cookies: Cookies::usual(false),
            query_credentials: QueryCredentials::usual(false),
            redact: Redact::usual(false),
            description,
        },
    );
    Entry {
        line: route.line,
        span: fields.find("host").map_or(route, |field| field.node.span),
        host,
        slot: None,
        tls: fields.find("tls").map(|field| field.node.span),
        passing,
        rule,
    }
}

/// The keys with a default. `None` is a value with a fault, which no other check is held against.
struct Parts {
    scheme: Option<Scheme>,
    port: Option<u16>,
    tls: Option<Tls>,
    websocket: Option<bool>,
    encoded_slash: Option<EncodedSlash>,
    insecure_inject: Option<bool>,
}

impl Parts {
    fn read(fields: &Fields<'_>, faults: &mut Vec<Fault>) -> Self {
        let scheme = match fields.find("scheme") {
            Some(field) => values::word(field, &SCHEMES, faults),
            None => Some(Scheme::Https),
        };
        let port = match fields.find("port") {
            Some(field) => values::port(field, faults),
            None => scheme.map(Scheme::default_port),
        };
        let tls = match fields.find("tls") {
            Some(field) => values::word(field, &TLS_MODES, faults),
            None => Some(Tls::Intercept),
        };
        let mut flag = |name: &str, default: bool| match fields.find(name) {
            Some(field) => field.flag(faults),
            None => Some(default),
        };
        Self {
            scheme,
            port,
            tls,
            websocket: flag("websocket", true),
            encoded_slash: flag("encoded_slash", false).map(|accept| match accept {
                true => EncodedSlash::Accept,
                false => EncodedSlash::Refuse,
            }),
            insecure_inject: flag("insecure_inject", false),
        }
    }

    fn whole(&self) -> Option<(Scheme, u16, Tls, bool, EncodedSlash)> {
        Some((
            self.scheme?,
            self.port?,
            self.tls?,
            self.websocket?,
            self.encoded_slash?,
        ))
    }
}

fn read_optional<'d, T>(
    fields: &Fields<'d>,
    name: &str,
    read: impl FnOnce(Field<'d>, &mut Vec<Fault>) -> Option<T>,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    read(fields.find(name)?, faults)
}

fn read_host(fields: &Fields<'_>, route: Span, faults: &mut Vec<Fault>) -> Option<HostPattern> {
    if fields.lacks("host") {
        faults.push(
            Fault::new(route, "the route has no `host`")
                .key("host")
                .hint("write `host: api.example.com`, or `*.example.com` for one label below it"),
        );
    }
    values::host(fields.find("host")?, faults)
}

/// What `http` and `https` ask of the rest.
fn check_scheme(
    fields: &Fields<'_>,
    host: Option<&HostPattern>,
    parts: &Parts,
    faults: &mut Vec<Fault>,
) {
    match parts.scheme {
        Some(Scheme::Https) => {
            let address = matches!(host, Some(HostPattern::Exact(Host::Address(_))));
            if let Some(field) = fields.find("host").filter(|_| address) {
                faults.push(
                    field
                        .fault("an address cannot be a host over https: TLS clients send no server name for one")
                        .hint("give the name that its certificate has, with `connect_to: address:port`; or `scheme: http`"),
                );
            }
        }
        Some(Scheme::Http) => {
            let credential = ["token_env", "auth_scheme", "auth"]
                .iter()
                .find_map(|name| fields.find(name));
            if let Some(field) = credential.filter(|_| parts.insecure_inject == Some(false)) {
                faults.push(
                    Fault::new(field.key, "the credential would cross the network in plain text, because of `scheme: http`")
                        .key(field.name)
                        .hint("add `insecure_inject: true` if nobody can listen on the way"),
                );
            }
            if let Some(field) = fields.find("upstream_ca") {
                faults.push(no_effect(field, "with `scheme: http`"));
            }
            if let Some(field) = fields
                .find("tls")
                .filter(|_| parts.tls == Some(Tls::Passthrough))
            {
                faults.push(
                    field
                        .fault("`tls: passthrough` with `scheme: http`")
                        .hint("plain http has no TLS to pass through; remove one of the two"),
                );
            }
        }
        None => {}
    }
}

/// A passthrough route sees no request, so nothing may pretend that it decides on one.
fn check_passthrough(fields: &Fields<'_>, parts: &Parts, faults: &mut Vec<Fault>) {
    if parts.tls != Some(Tls::Passthrough) {
        return;
    }
    let always = [
        "path_allowlist",
        "methods",
        "query",
        "auth_scheme",
        "token_env",
        "auth",
        "auth_header",
        "auth_user",
        "upstream_ca",
        "websocket_extensions",
        "cookies",
        "query_credentials",
        "redact",
    ];
    let named = always.iter().filter_map(|name| fields.find(name));
    let websocket = fields
        .find("websocket")
        .filter(|_| parts.websocket == Some(false));
    let slash = fields
        .find("encoded_slash")
        .filter(|_| parts.encoded_slash == Some(EncodedSlash::Accept));
    for field in named.chain(websocket).chain(slash) {
        faults.push(no_effect(
            field,
            "with `tls: passthrough`, where no request is seen",
        ));
    }
}

fn no_effect(field: Field<'_>, why: &str) -> Fault {
    let problem = format!("{} has no effect {why}", shown(field.name));
    let fault = Fault::new(field.key, problem).key(field.name);
    fault.hint("remove one of the two")
}

/// Paths and query conditions.
#[expect(
    clippy::type_complexity,
    reason = "two optional lists, taken apart at once"
)]
fn read_conditions(
    fields: &Fields<'_>,
    parts: &Parts,
    faults: &mut Vec<Fault>,
) -> (Option<Vec<PathPattern>>, Option<Vec<(String, String)>>) {
    let query = read_optional(fields, "query", values::query, faults);
    let Some(field) = fields.find("path_allowlist") else {
        return (None, query);
    };
    let paths = paths::read(field, faults).unwrap_or_default();
    for (pattern, span) in &paths {
        let PathPattern::Prefix(prefix) = pattern else {
            continue;
        };
        let slash = prefix.to_ascii_lowercase().contains("%2f");
        if slash && parts.encoded_slash == Some(EncodedSlash::Refuse) {
            faults.push(
                field
                    .fault_in(
                        *span,
                        format!(
                            "no request can match {}, because an encoded slash is refused",
                            shown(prefix)
                        ),
                    )
                    .hint("add `encoded_slash: true`"),
            );
        }
    }
    let patterns = paths.into_iter().map(|(pattern, _)| pattern).collect();
    (Some(patterns), query)
}

fn read_authorities(
    field: Field<'_>,
    authorities: &mut Authorities,
    faults: &mut Vec<Fault>,
) -> Option<Vec<rustls::pki_types::CertificateDer<'static>>> {
    let name = field.text(faults)?;
    match authorities.load(name) {
        Ok(certificates) => Some(certificates),
        Err(error) => {
            let problem = format!("{} {error}", shown(name));
            faults.push(field.fault(problem).hint(
                "name a PEM file of certificates; a relative name starts at this file's directory",
            ));
            None
        }
    }
}
