//! Lending the host's Codex login: which routes of a bottle get it.

use http::header::AUTHORIZATION;

use super::super::fault::{Fault, Span};
use super::super::render::TokenRef;
use super::super::rule::Entry;
use super::super::rule::manifest::{Auth, Item};
use super::super::rule::passing::Passing;
use crate::route::host::HostPattern;
use crate::route::passing::{CookieName, Cookies, Extensions, QueryCredentials, Redact};
use crate::route::path::EncodedSlash;
use crate::route::target::Scheme;
use crate::route::{AuthScheme, Rule, Tls};

/// The hosts that Codex's login is for, in the order in which missing ones are appended.
const HOSTS: [&str; 2] = ["api.openai.com", "chatgpt.com"];

/// Gives the login to each route for Codex's hosts, and appends those that are missing. A route that has another
/// credential is a fault.
pub(super) fn add(items: &mut Vec<Item>, said: Span, faults: &mut Vec<Fault>) {
    for name in HOSTS {
        let Ok(host) = name.parse::<HostPattern>() else {
            continue;
        };
        let mut found = false;
        for item in items.iter_mut() {
            if item.entry.host.as_ref() == Some(&host) {
                found = true;
                upgrade(item, name, said, faults);
            }
        }
        if !found {
            items.push(bare(host, said));
        }
    }
    for item in items {
        let auth = item.auth.as_ref();
        if auth.is_some_and(|auth| auth.reference == TokenRef::CodexHost) {
            let cookies = &mut item.entry.passing.cookies;
            cookies.get_or_insert_with(cloudflare);
            item.entry.settle(true);
        }
    }
}

/// What Cloudflare, which stands before Codex's hosts, knows a client again by. Without them it challenges the more often,
/// and they say nothing of a login.
const CLOUDFLARE: [&str; 3] = ["__cf_bm", "_cfuvid", "cf_clearance"];

fn cloudflare() -> Cookies {
    let names = CLOUDFLARE.iter();
    let names = names.filter_map(|name| name.parse::<CookieName>().ok());
    Cookies::Named(names.collect())
}

fn upgrade(item: &mut Item, host: &str, said: Span, faults: &mut Vec<Fault>) {
    // A route with a fault of its own has been told about.
    let Some(rule) = &item.entry.rule else { return };
    let instead = "or set `forward_host_credentials: false`";
    let fault = |span: Span, problem: String| {
        Fault::new(span, problem).related(said.line, "here the host's Codex login is forwarded")
    };
    match &item.auth {
        Some(auth) if auth.reference == TokenRef::CodexHost => {}
        Some(auth) => faults.push(
            fault(auth.span, format!("the route for {host} has a credential of its own, and is to carry the host's Codex login"))
                .key("auth")
                .hint(format!("remove the `auth` block of the route for {host}, {instead}")),
        ),
        None if rule.tls == Tls::Passthrough => faults.push(
            fault(item.entry.span, format!("the route for {host} is passed through, and is to carry the host's Codex login"))
                .key("tls")
                .hint(format!("remove `tls: passthrough` of the route for {host}, {instead}")),
        ),
        None if rule.scheme == Scheme::Http && !item.insecure_inject => faults.push(
            fault(item.entry.span, format!("the host's Codex login would cross the network in plain text, because the route for {host} has `scheme: http`"))
                .key("scheme")
                .hint(format!("remove `scheme: http` of the route for {host}, {instead}")),
        ),
        None => item.auth = Some(login(said)),
    }
}

/// The login is lent where that was said, and nowhere else.
pub(super) fn refuse(items: &[Item], faults: &mut Vec<Fault>) {
    for item in items {
        let Some(auth) = &item.auth else { continue };
        if auth.reference == TokenRef::CodexHost {
            faults.push(
                Fault::new(
                    auth.span,
                    "`token_ref` names the host's Codex login, which is not forwarded",
                )
                .key("token_ref")
                .hint("write `agent_provider: {template: codex, forward_host_credentials: true}`"),
            );
        }
    }
}

fn login(span: Span) -> Auth {
    Auth {
        header: AUTHORIZATION,
        scheme: AuthScheme::Bearer,
        reference: TokenRef::CodexHost,
        span,
    }
}

fn bare(host: HostPattern, said: Span) -> Item {
    Item {
        entry: Entry {
            line: said.line,
            span: said,
            host: Some(host.clone()),
            slot: None,
            tls: None,
            passing: Passing::default(),
            rule: Some(Rule {
                host,
                scheme: Scheme::Https,
                port: Scheme::Https.default_port(),
                paths: None,
                methods: None,
                query: Vec::new(),
                injection: None,
                tls: Tls::Intercept,
                websocket: true,
                websocket_extensions: Extensions::Pass,
                encoded_slash: EncodedSlash::Refuse,
                ssrf_ip_allowlist: Vec::new(),
                connect_to: None,
                upstream_ca: Vec::new(),
                cookies: Cookies::usual(true),
                query_credentials: QueryCredentials::usual(true),
                redact: Redact::usual(true),
                description: None,
            }),
        },
        auth: Some(login(said)),
        roles: Vec::new(),
        upstream_ca: None,
        insecure_inject: false,
        preset: false,
    }
}
