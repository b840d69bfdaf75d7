//! One item of a manifest's `routes`: a route that says where the host has its credential, or a preset in place of
//! several.

use http::header::HeaderName;

use super::super::authority::Authorities;
use super::super::document::{Node, ScalarKind, Value};
use super::super::fault::{Fault, Span, shown};
use super::super::fields::{Field, Fields, listed};
use super::super::presets::{self, Preset};
use super::super::render::{InvalidTokenRef, TokenRef};
use super::super::values;
use super::credential::{Credential, MANIFEST};
use super::keys::{AUTH_KEYS, MANIFEST_KEYS, PIPELOCK_KEYS};
use super::passing::Passing;
use super::{Entry, check_query, map_of, read_rest};
use crate::route::{AuthScheme, Rule};

/// A route of a manifest, as far as it could be read. Its rule has no injection: slots are given out at rendering.
#[derive(Debug)]
pub(in crate::config) struct Item {
    /// What a route of either kind of file has.
    pub(in crate::config) entry: Entry,
    /// Its credential.
    pub(in crate::config) auth: Option<Auth>,
    /// What it is marked with.
    pub(in crate::config) roles: Vec<String>,
    /// The absolute path of its PEM file.
    pub(in crate::config) upstream_ca: Option<String>,
    /// Whether its credential may cross the network in plain text.
    pub(in crate::config) insecure_inject: bool,
    /// Whether a preset brought it.
    pub(in crate::config) preset: bool,
}

/// The credential of a route in a manifest.
#[derive(Clone, Debug)]
pub(in crate::config) struct Auth {
    /// The header that carries it.
    pub(in crate::config) header: HeaderName,
    /// Its form.
    pub(in crate::config) scheme: AuthScheme,
    /// Where the host has it.
    pub(in crate::config) reference: TokenRef,
    /// Where that is said.
    pub(in crate::config) span: Span,
}

/// Reads an item.
pub(in crate::config) fn read(
    node: &Node<'_>,
    authorities: &mut Authorities,
    faults: &mut Vec<Fault>,
) -> Vec<Item> {
    let Some(map) = map_of(node, faults) else {
        return Vec::new();
    };
    let before = faults.len();
    let fields = Fields::read(map, &MANIFEST_KEYS, faults);
    let given = Given::read(&fields, authorities, faults);
    if let Some(field) = fields.find("preset") {
        return expand(field, &fields, &given, node.span, faults);
    }
    vec![given.route(&fields, node.span, before, authorities, faults)]
}

/// What both kinds of item have.
struct Given<'d> {
    field: Option<Field<'d>>,
    scheme: Option<Field<'d>>,
    scheme_missing: bool,
    reference: Option<(TokenRef, Span)>,
    roles: Vec<String>,
}

impl<'d> Given<'d> {
    fn read(fields: &Fields<'d>, authorities: &Authorities, faults: &mut Vec<Fault>) -> Self {
        let field = fields.find("auth");
        let roles = fields.find("role").map(|field| texts(field, faults));
        let mut given = Self {
            field,
            scheme: None,
            scheme_missing: false,
            reference: None,
            roles: roles.unwrap_or_default(),
        };
        let Some(field) = field else { return given };
        let Some(map) = map(field, "write `{scheme: Bearer, token_ref: NAME}`", faults) else {
            return given;
        };
        let keys = Fields::read(map, &AUTH_KEYS, faults);
        given.scheme = keys.find("scheme");
        given.scheme_missing = keys.lacks("scheme");
        if keys.lacks("token_ref") {
            faults.push(
                Fault::new(field.key, "`auth` without `token_ref`")
                    .key("auth")
                    .hint("name the host's variable that holds the credential, such as `token_ref: GH_PAT`"),
            );
        }
        given.reference = keys.find("token_ref").and_then(|field| {
            let reference = token_ref(field, authorities, faults)?;
            Some((reference, field.node.span))
        });
        given
    }

    /// A route that is written out.
    fn route(
        self,
        fields: &Fields<'d>,
        span: Span,
        before: usize,
        authorities: &mut Authorities,
        faults: &mut Vec<Fault>,
    ) -> Item {
        let networks = read_pipelock(fields, faults);
        let shape = Credential {
            named: fields.find("auth").is_some(),
            scheme: self.scheme,
            words: &MANIFEST,
        }
        .shape(fields, faults);
        if let Some(field) = self.field.filter(|_| self.scheme_missing) {
            faults.push(
                Fault::new(field.key, "`auth` without `scheme`")
                    .key("auth")
                    .hint("add `scheme: Bearer` (or Basic, token, raw)"),
            );
        }
        let mut entry = read_rest(fields, span, authorities, faults);
        let upstream_ca = fields
            .find("upstream_ca")
            .and_then(|field| absolute(field, authorities, faults));
        entry.rule = entry.rule.filter(|_| faults.len() == before);
        if let (Some(rule), Some(networks)) = (&mut entry.rule, networks) {
            rule.ssrf_ip_allowlist = networks;
        }
        let insecure = fields.find("insecure_inject");
        let auth = shape
            .zip(self.reference)
            .map(|((header, scheme), (reference, span))| Auth {
                header,
                scheme,
                reference,
                span,
            });
        entry.settle(auth.is_some());
        if let Some(rule) = &entry.rule {
            check_query(fields, rule, faults);
        }
        Item {
            entry,
            auth,
            roles: self.roles,
            upstream_ca,
            insecure_inject: insecure
                .is_some_and(|field| field.flag(&mut Vec::new()) == Some(true)),
            preset: false,
        }
    }
}

/// The routes of a preset.
fn expand(
    field: Field<'_>,
    fields: &Fields<'_>,
    given: &Given<'_>,
    route: Span,
    faults: &mut Vec<Fault>,
) -> Vec<Item> {
    let words: Vec<_> = presets::ALL
        .iter()
        .map(|preset| (preset.name, preset))
        .collect();
    let preset: Option<&Preset> = values::word(field, &words, faults);
    for other in fields.iter() {
        if !["preset", "auth", "role"].contains(&other.name) {
            let problem = format!("{} beside `preset`", shown(other.name));
            let fault = Fault::new(other.key, problem).key(other.name);
            let name = preset.map_or("NAME", |preset| preset.name);
            faults.push(fault.hint(format!(
                "a preset stands for whole routes; `egress presets {name}` prints them, to be changed at will"
            )));
        }
    }
    let Some(preset) = preset else {
        return Vec::new();
    };
    let Some(form) = form_of(preset, given, faults) else {
        return Vec::new();
    };
    let items = form.rules().into_iter().map(|mut rule: Rule| {
        let passing = Passing::of(&rule);
        let auth = rule.injection.take().zip(given.reference.clone()).map(
            |(injection, (reference, span))| Auth {
                header: injection.header,
                scheme: injection.scheme,
                reference,
                span,
            },
        );
        let mut entry = Entry {
            line: route.line,
            span: field.node.span,
            host: Some(rule.host.clone()),
            slot: None,
            tls: None,
            passing,
            rule: Some(rule),
        };
        entry.settle(auth.is_some());
        Item {
            entry,
            auth,
            roles: given.roles.clone(),
            upstream_ca: None,
            insecure_inject: false,
            preset: true,
        }
    });
    items.collect()
}

/// The preset's form for the credential that is given.
fn form_of(
    preset: &'static Preset,
    given: &Given<'_>,
    faults: &mut Vec<Fault>,
) -> Option<&'static presets::Form> {
    let Some(auth) = given.field else {
        return preset.form(None);
    };
    let schemes: Vec<&str> = preset.schemes().collect();
    if schemes.is_empty() {
        let problem = format!("the preset `{}` takes no credential", preset.name);
        let fault = Fault::new(auth.key, problem).key("auth");
        faults.push(match preset.name {
            "codex" => fault.hint(
                "the host's login is lent by `agent_provider: {template: codex, forward_host_credentials: true}`",
            ),
            _ => fault.hint("remove `auth`"),
        });
        return None;
    }
    let Some(field) = given.scheme else {
        return preset.form(None);
    };
    let text = field.text(faults)?;
    let form = preset.form(Some(text));
    if form.is_none() {
        let problem = format!(
            "the preset `{}` has no form for {}",
            preset.name,
            shown(text)
        );
        faults.push(field.fault(problem).hint(format!(
            "one of {}, or leave `scheme` out",
            listed(&schemes)
        )));
    }
    form
}

/// Where the host has a credential.
fn token_ref(
    field: Field<'_>,
    authorities: &Authorities,
    faults: &mut Vec<Fault>,
) -> Option<TokenRef> {
    let text = field.text(faults)?;
    match TokenRef::parse(text, |name| authorities.path_of(name)) {
        Ok(reference) => Some(reference),
        Err(error) => {
            let fault = field.fault(error.to_string()).hint(error.hint());
            // What is no name may be the token itself, put here by mistake.
            faults.push(match error {
                InvalidTokenRef::NoVariable | InvalidTokenRef::Token => fault.quiet(),
                _ => fault,
            });
            None
        }
    }
}

/// The networks under `pipelock`, where there are some.
fn read_pipelock(fields: &Fields<'_>, faults: &mut Vec<Fault>) -> Option<Vec<ipnet::IpNet>> {
    let field = fields.find("pipelock")?;
    let map = map(field, "write `{ssrf_ip_allowlist: [10.0.0.0/8]}`", faults)?;
    let keys = Fields::read(map, &PIPELOCK_KEYS, faults);
    let networks = keys.find("ssrf_ip_allowlist")?;
    if matches!(&networks.node.value, Value::Seq(items) if items.is_empty()) {
        return None;
    }
    if let Some(own) = fields.find("ssrf_ip_allowlist") {
        faults.push(
            Fault::new(
                networks.key,
                "`ssrf_ip_allowlist` stands here and in the route itself",
            )
            .key("ssrf_ip_allowlist")
            .hint("keep one of the two")
            .related(own.key.line, "the route's own"),
        );
    }
    values::networks(networks, faults)
}

/// A text, or several.
fn texts(field: Field<'_>, faults: &mut Vec<Fault>) -> Vec<String> {
    let items = match &field.node.value {
        Value::Seq(items) => items.as_slice(),
        _ => std::slice::from_ref(field.node),
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        match field.text_of(item, faults) {
            Some("") => faults.push(field.fault_in(item.span, "a role is empty")),
            Some(text) => texts.push(text.to_owned()),
            None => {}
        }
    }
    texts
}

/// The keys of a value that has to be a map.
pub(in crate::config) fn map<'d>(
    field: Field<'d>,
    hint: &str,
    faults: &mut Vec<Fault>,
) -> Option<&'d [super::document::Entry<'d>]> {
    let fault = match &field.node.value {
        Value::Map(map) => return Some(map),
        Value::Refused => return None,
        Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => field.empty(field.node),
        // Someone who writes `auth: ...` may well have put the token itself behind it.
        _ => field.wrong_type(field.node, "a map").quiet(),
    };
    faults.push(fault.hint(hint));
    None
}

/// The file's name as the sidecar finds it wherever the routes file is put.
fn absolute(
    field: Field<'_>,
    authorities: &Authorities,
    faults: &mut Vec<Fault>,
) -> Option<String> {
    let name = field.text(&mut Vec::new())?;
    let path = std::path::absolute(authorities.path_of(name)).ok();
    let text = path.as_deref().and_then(std::path::Path::to_str);
    if text.is_none() {
        faults.push(field.fault(format!("the absolute path of {} is not UTF-8", shown(name))));
    }
    text.map(str::to_owned)
}
