//! One route of a file: its keys, and whether they fit together.

use http::header;

use super::authority::Authorities;
use super::document::{Node, Value};
use super::fault::{Fault, Span, shown};
use super::fields::{Field, Fields, Keys, Unknown};
use super::{paths, values};
use crate::credential::SlotName;
use crate::route::host::{Host, HostPattern};
use crate::route::path::{EncodedSlash, PathPattern};
use crate::route::target::Scheme;
use crate::route::{AuthScheme, Injection, Line, Rule, Tls};

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
    /// The rule; `None` for a route with a fault.
    pub(super) rule: Option<Rule>,
}

impl Entry {
    pub(super) fn tls_mode(&self) -> Option<Tls> {
        self.rule.as_ref().map(|rule| rule.tls)
    }
}

const KEYS: Keys = Keys {
    of: "a route",
    known: &[
        "host",
        "path_allowlist",
        "auth_scheme",
        "token_env",
        "methods",
        "query",
        "port",
        "auth_header",
        "auth_user",
        "tls",
        "websocket",
        "encoded_slash",
        "scheme",
        "insecure_inject",
        "ssrf_ip_allowlist",
        "connect_to",
        "upstream_ca",
        "description",
    ],
    unknown: unknown_key,
};

fn unknown_key(key: &str) -> Option<Unknown> {
    let meant = match key {
        "websocket_extensions" | "cookies" | "query_credentials" | "redact" => {
            return Some(Unknown::Hint(format!(
                "`{key}` is not supported by this version"
            )));
        }
        "auth" | "role" | "pipelock" => {
            return Some(Unknown::Hint(format!(
                "`{key}` belongs in a manifest; a routes file has `auth_scheme` and `token_env`"
            )));
        }
        "path" | "paths" | "path_prefix" | "allow" | "allowlist" => "path_allowlist",
        "token" | "slot" | "env" | "token_ref" | "credential" => "token_env",
        "header" => "auth_header",
        "user" | "username" => "auth_user",
        "ws" | "upgrade" => "websocket",
        "ca" | "ca_file" | "cacert" => "upstream_ca",
        "domain" | "hostname" => "host",
        "resolve" => "connect_to",
        _ => return None,
    };
    Some(Unknown::Meant(meant))
}

/// Reads a route.
pub(super) fn read(
    node: &Node<'_>,
    authorities: &mut Authorities,
    faults: &mut Vec<Fault>,
) -> Option<Entry> {
    let map = match &node.value {
        Value::Map(map) => map,
        Value::Refused => return None,
        _ => {
            faults.push(
                Fault::new(node.span, "a route must be a map with a `host`")
                    .key("routes")
                    .hint("write `- host: api.example.com`"),
            );
            return None;
        }
    };
    let before = faults.len();
    let fields = Fields::read(map, &KEYS, faults);
    let host = read_host(&fields, node.span, faults);
    let parts = Parts::read(&fields, faults);
    let (injection, slot) = read_injection(&fields, faults);
    check_scheme(&fields, host.as_ref(), &parts, faults);
    check_passthrough(&fields, &parts, faults);
    let (paths, query) = read_conditions(&fields, &parts, faults);
    let methods = read_optional(&fields, "methods", values::methods, faults);
    let ssrf_ip_allowlist = read_optional(&fields, "ssrf_ip_allowlist", values::networks, faults);
    let connect_to = read_optional(&fields, "connect_to", values::connect_to, faults);
    let upstream_ca = fields
        .find("upstream_ca")
        .and_then(|field| read_authorities(field, authorities, faults));
    let description = read_optional(
        &fields,
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
            injection,
            tls,
            websocket,
            encoded_slash,
            ssrf_ip_allowlist: ssrf_ip_allowlist.unwrap_or_default(),
            connect_to,
            upstream_ca: upstream_ca.unwrap_or_default(),
            description,
        },
    );
    Some(Entry {
        line: node.span.line,
        span: fields
            .find("host")
            .map_or(node.span, |field| field.node.span),
        host,
        slot,
        tls: fields.find("tls").map(|field| field.node.span),
        rule,
    })
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
        let schemes = [("https", Scheme::Https), ("http", Scheme::Http)];
        let modes = [
            ("intercept", Tls::Intercept),
            ("passthrough", Tls::Passthrough),
        ];
        let scheme = match fields.find("scheme") {
            Some(field) => values::word(field, &schemes, faults),
            None => Some(Scheme::Https),
        };
        let port = match fields.find("port") {
            Some(field) => values::port(field, faults),
            None => scheme.map(Scheme::default_port),
        };
        let tls = match fields.find("tls") {
            Some(field) => values::word(field, &modes, faults),
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

/// The credential of a route, and its slot also where something else about it is wrong.
fn read_injection(
    fields: &Fields<'_>,
    faults: &mut Vec<Fault>,
) -> (Option<Injection>, Option<(SlotName, Span)>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Form {
        Bearer,
        Basic,
        Token,
        Raw,
    }
    let forms = [
        ("Bearer", Form::Bearer),
        ("Basic", Form::Basic),
        ("token", Form::Token),
        ("raw", Form::Raw),
    ];
    let (scheme_field, slot_field) = (fields.find("auth_scheme"), fields.find("token_env"));
    match (scheme_field, slot_field) {
        (Some(scheme), None) if fields.lacks("token_env") => faults.push(
            Fault::new(scheme.key, "`auth_scheme` without `token_env`")
                .key("auth_scheme")
                .hint(
                    "name the slot that holds the credential, such as `token_env: EGRESS_TOKEN_0`",
                ),
        ),
        (None, Some(slot)) if fields.lacks("auth_scheme") => faults.push(
            Fault::new(slot.key, "`token_env` without `auth_scheme`")
                .key("token_env")
                .hint("add `auth_scheme: Bearer` (or Basic, token, raw)"),
        ),
        _ => {}
    }
    let form = scheme_field.and_then(|field| values::word(field, &forms, faults));
    let slot = slot_field.and_then(|field| Some((values::slot(field, faults)?, field.node.span)));
    let header_field = fields.find("auth_header");
    let header = match header_field {
        Some(field) => values::auth_header(field, faults),
        None => Some(header::AUTHORIZATION),
    };
    if let Some(field) = header_field.filter(|_| scheme_field.is_none() && slot_field.is_none()) {
        faults.push(
            Fault::new(field.key, "`auth_header` without a credential")
                .key("auth_header")
                .hint("add `auth_scheme` and `token_env`, or remove it"),
        );
    }
    let user_field = fields.find("auth_user");
    let user = user_field.and_then(|field| values::auth_user(field, faults));
    match (form, user_field) {
        (Some(Form::Basic), None) if fields.lacks("auth_user") => {
            if let Some(field) = scheme_field {
                faults.push(field.fault("`auth_scheme: Basic` without `auth_user`").hint(
                    "add `auth_user`, such as `x-access-token` for git over HTTPS on GitHub",
                ));
            }
        }
        (Some(Form::Bearer | Form::Token | Form::Raw), Some(field)) => {
            faults.push(user_without_basic(field));
        }
        (None, Some(field)) if scheme_field.is_none() => faults.push(user_without_basic(field)),
        _ => {}
    }
    let scheme = form.and_then(|form| {
        Some(match form {
            Form::Bearer => AuthScheme::Bearer,
            Form::Basic => AuthScheme::Basic { user: user? },
            Form::Token => AuthScheme::Token,
            Form::Raw => AuthScheme::Raw,
        })
    });
    let injection = header
        .zip(scheme)
        .zip(slot.clone())
        .map(|((header, scheme), (slot, _))| Injection {
            header,
            scheme,
            slot,
        });
    (injection, slot)
}

fn user_without_basic(field: Field<'_>) -> Fault {
    Fault::new(field.key, "`auth_user` without `auth_scheme: Basic`")
        .key("auth_user")
        .hint("only Basic has a user part; remove it")
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
            let credential = fields.find("token_env").or(fields.find("auth_scheme"));
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
        "auth_header",
        "auth_user",
        "upstream_ca",
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
                "name a PEM file of certificates; a relative name starts at the routes file's directory",
            ));
            None
        }
    }
}
