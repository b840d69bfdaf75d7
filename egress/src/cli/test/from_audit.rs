//! Cases from recorded requests: what was decided about each the last time.

use std::collections::BTreeMap;

use crate::advice::recorded::{Asked, Kind, Recorded, Request};
use crate::config::cases::{self, Written};
use crate::outcome::Verdict;
use crate::route::target::{Scheme, Target};

/// A file of cases. What is no case is counted in its head: tunnels that were opened, for the requests in them are recorded
/// by themselves, and what no routes decided about.
pub(super) fn text(recorded: &[Recorded]) -> String {
    let mut latest: BTreeMap<(String, String), &Recorded> = BTreeMap::new();
    let mut left_out = 0;
    for record in recorded {
        let Some(key) = key(&record.request) else {
            left_out += record.seen.count;
            continue;
        };
        let known = latest.entry(key).or_insert(record);
        if record.seen.last > known.seen.last {
            *known = record;
        }
    }
    let comment = format!(
        "From recorded requests, without their queries; {left_out} of them left out: opened tunnels, and what no route decides."
    );
    let written = latest
        .iter()
        .map(|((url, method), record)| written(url, method, &record.request));
    cases::text(&[comment], written.collect())
}

/// URL and method; `None` for what is no case.
fn key(request: &Request) -> Option<(String, String)> {
    let is_decided = match request.verdict {
        Verdict::Allowed => !request.is_observed(),
        Verdict::Failed => request.route.is_some(),
        Verdict::Denied => {
            cases::is_code(&request.code)
                && request.code != "query_credential"
                && request.code != "query_ambiguous"
        }
    };
    let asked = request.asked().ok().filter(|_| is_decided)?;
    match asked {
        // Denied by host or port: so is each request in it.
        Asked::Tunnel(origin) if request.verdict == Verdict::Denied => Some((
            format!("{}://{}/", origin.scheme.as_str(), origin.authority()),
            "GET".into(),
        )),
        Asked::Tunnel(_) => None,
        Asked::Request(target) => Some((url(&target, request.kind), request.method.clone())),
    }
}

fn url(target: &Target, kind: Kind) -> String {
    let origin = target.origin();
    let scheme = match (kind, origin.scheme) {
        (Kind::WebSocket, Scheme::Https) => "wss",
        (Kind::WebSocket, Scheme::Http) => "ws",
        (_, scheme) => scheme.as_str(),
    };
    format!("{scheme}://{}{}", origin.authority(), target.path())
}

fn written(url: &str, method: &str, request: &Request) -> Written {
    let mut case = vec![("url", url.to_owned())];
    if method != "GET" {
        case.push(("method", method.to_owned()));
    }
    match request.verdict {
        Verdict::Denied => {
            case.extend([("verdict", "deny".into()), ("code", request.code.clone())])
        }
        Verdict::Allowed | Verdict::Failed => {
            let slot = request.slot.clone().unwrap_or_else(|| "none".into());
            case.extend([("verdict", "allow".into()), ("slot", slot)]);
        }
    }
    case
}
