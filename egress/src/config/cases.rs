//! A file of cases: requests, and what the routes are to decide about each. It is read as the routes file is, with every
//! fault at once.

use std::path::Path;
use std::sync::Arc;

use http::Method;

use super::document::{self, Node, ScalarKind, Value};
use super::fault::{Fault, Faults, shown};
use super::fields::{Field, Fields};
use super::keys::{Form, Key, Keys, Unknown};
use super::render::yaml;
use super::source::Source;
use super::values;
use crate::credential::SlotName;
use crate::route::Line;
use crate::route::host::HostPattern;
use crate::route::target::{Kind, Target};
use crate::route::url::Url;

/// A file of cases without a fault.
#[derive(Debug)]
pub struct CasesFile {
    /// Its name, as it was given.
    pub name: Arc<str>,
    /// Its cases, in the order of the file.
    pub cases: Vec<Case>,
}

/// One request, and what is expected of the routes.
#[derive(Debug)]
pub struct Case {
    /// The line of its first key.
    pub line: Line,
    /// What it is called; the request in words, where it has no name.
    pub name: String,
    /// The request.
    pub target: Target,
    /// What is expected.
    pub expected: Expected,
}

/// What is expected of the routes.
#[derive(Debug)]
pub enum Expected {
    /// A route admits the request.
    Allow {
        /// Which one; `None` is any.
        route: Option<RouteIs>,
        /// What it injects; `None` is anything or nothing.
        slot: Option<SlotIs>,
    },
    /// None does, for the reason of this code; `None` is any.
    Deny(Option<&'static str>),
}

/// A route, as a case names it.
#[derive(Debug)]
pub enum RouteIs {
    /// By its line in the routes file.
    In(Line),
    /// By its host.
    For(HostPattern),
}

/// An injection, as a case names it.
#[derive(Debug)]
pub enum SlotIs {
    /// Nothing is injected.
    None,
    /// The value of this slot is.
    Named(SlotName),
}

/// Reads a file of cases; `-` is standard input.
///
/// # Errors
///
/// All [`Faults`] that it has.
pub fn load(path: &Path) -> Result<CasesFile, Faults> {
    match Source::read(path, "file of cases") {
        Ok(source) => parse(&source.name, &source.text),
        Err(fault) => Err(Faults::new(path.display().to_string(), "", vec![*fault])),
    }
}

/// Reads the text of a file of cases.
///
/// # Errors
///
/// As [`load`].
pub fn parse(name: &str, text: &str) -> Result<CasesFile, Faults> {
    let mut faults = Vec::new();
    let root = document::parse(text, &mut faults);
    let nodes = nodes_of(root.as_ref(), &mut faults);
    let cases = nodes
        .iter()
        .filter_map(|node| case(node, &mut faults))
        .collect();
    match faults.is_empty() {
        true => Ok(CasesFile {
            name: name.into(),
            cases,
        }),
        false => Err(Faults::new(name, text, faults)),
    }
}

/// One case to be written: its keys with their values, in their order.
pub type Written = Vec<(&'static str, String)>;

/// The text of a file of cases, under lines of comment.
pub fn text(comment: &[String], cases: Vec<Written>) -> String {
    let maps = cases.into_iter().map(|case| {
        let pairs = case
            .into_iter()
            .map(|(key, value)| (key.to_owned(), yaml::Value::Text(value)));
        yaml::Value::Map(pairs.collect())
    });
    let body = yaml::list("cases", &maps.collect::<Vec<_>>());
    format!("{}{body}", super::render::comments(comment))
}

static KEYS: Keys = Keys {
    unknown: |key| {
        (key == "routes").then(|| Unknown::Hint("this is a routes file; name it with -r".into()))
    },
    ..Keys::new(
        "a file of cases",
        &[&[key(
            "cases",
            Form::Maps(&CASE_KEYS),
            "Requests, and what is expected of the routes",
        )]],
    )
};

static CASE_KEYS: Keys = Keys {
    unknown: |key| {
        Some(Unknown::Meant(match key {
            "expect" | "expected" | "result" => "verdict",
            "uri" | "host" | "path" => "url",
            "token_env" | "inject" => "slot",
            "reason" | "error" => "code",
            "description" | "title" => "name",
            _ => return None,
        }))
    },
    ..Keys::new(
        "a case",
        &[&[
            key(
                "name",
                Form::Written,
                "What the case is called; left out: the request in words",
            ),
            key("method", Form::Text, "The request's method; left out: GET"),
            key("url", Form::Text, "The request's URL, taken byte for byte"),
            key(
                "kind",
                Form::Word(|| KINDS.map(|(word, _)| word).to_vec()),
                "http, or websocket as with wss://",
            ),
            key(
                "verdict",
                Form::Word(|| VERDICTS.map(|(word, _)| word).to_vec()),
                "What is to be decided",
            ),
            key(
                "route",
                Form::Written,
                "The route that is to admit it, by its host or by its line",
            ),
            key(
                "slot",
                Form::Text,
                "The slot that is to be injected, or none",
            ),
            key(
                "code",
                Form::Word(|| CODES.map(|(word, _)| word).to_vec()),
                "Why it is to be denied",
            ),
        ]],
    )
};

const fn key(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, about }
}

const KINDS: [(&str, Kind); 2] = [("http", Kind::Exchange), ("websocket", Kind::WebSocket)];
const VERDICTS: [(&str, bool); 2] = [("allow", true), ("deny", false)];

/// The codes of what the routes deny, each beside itself.
const CODES: [(&str, &str); 9] = {
    const fn twice(code: &str) -> (&str, &str) {
        (code, code)
    }
    [
        twice("host_not_allowed"),
        twice("port_not_allowed"),
        twice("path_ambiguous"),
        twice("path_not_allowed"),
        twice("method_not_allowed"),
        twice("query_not_allowed"),
        twice("query_credential"),
        twice("query_ambiguous"),
        twice("websocket_not_allowed"),
    ]
};

/// Whether a case can expect this code.
pub fn is_code(code: &str) -> bool {
    CODES.iter().any(|(known, _)| *known == code)
}

fn nodes_of<'d>(root: Option<&'d Node<'d>>, faults: &mut Vec<Fault>) -> &'d [Node<'d>] {
    const BEGIN: &str = "begin it with `cases:`, and each case with `- url:`";
    let broken = !faults.is_empty();
    let map = match root.map(|root| &root.value) {
        Some(Value::Map(map)) => map,
        Some(Value::Refused) => return &[],
        _ if broken => return &[],
        _ => {
            faults.push(
                Fault::of_file("the file has no `cases`")
                    .key("cases")
                    .hint(BEGIN),
            );
            return &[];
        }
    };
    let fields = Fields::read(map, &KEYS, faults);
    let Some(field) = fields.find("cases") else {
        if !broken && fields.lacks("cases") {
            let fault = Fault::of_file("the file has no `cases`").key("cases");
            faults.push(fault.hint(BEGIN));
        }
        return &[];
    };
    let fault = match &field.node.value {
        // A file that expects nothing would pass whatever the routes say.
        Value::Seq(items) if items.is_empty() => field.fault("the file has no case"),
        Value::Seq(items) => return items,
        Value::Refused => return &[],
        _ => field.wrong_type(field.node, "a list"),
    };
    faults.push(fault.hint("begin each case with `- url:`"));
    &[]
}

fn case(node: &Node<'_>, faults: &mut Vec<Fault>) -> Option<Case> {
    let map = match &node.value {
        Value::Map(map) => map,
        Value::Refused => return None,
        _ => {
            let fault = Fault::new(
                node.span,
                "a case must be a map with a `url` and a `verdict`",
            );
            faults.push(
                fault
                    .key("cases")
                    .hint("write `- {url: https://api.example.com/v1, verdict: allow}`"),
            );
            return None;
        }
    };
    let fields = Fields::read(map, &CASE_KEYS, faults);
    for (name, hint) in [
        ("url", "write `url: https://api.example.com/v1`"),
        ("verdict", "write `verdict: allow` or `verdict: deny`"),
    ] {
        if fields.lacks(name) {
            let fault = Fault::new(node.span, format!("the case has no `{name}`"));
            faults.push(fault.key(name).hint(hint));
        }
    }
    let target = target(&fields, faults);
    let expected = expected(&fields, faults);
    let name = fields
        .find("name")
        .and_then(|field| field.written(field.node, faults));
    let target = target?;
    Some(Case {
        line: node.span.line,
        name: name.map_or_else(|| in_words(&target), str::to_owned),
        expected: expected?,
        target,
    })
}

fn in_words(target: &Target) -> String {
    let origin = target.origin();
    let (method, scheme, path) = (
        target.method(),
        origin.scheme.as_str(),
        target.path_and_query(),
    );
    let kind = match target.kind() {
        Kind::Exchange => "",
        Kind::WebSocket => " (WebSocket)",
    };
    format!("{method} {scheme}://{}{path}{kind}", origin.authority())
}

fn target(fields: &Fields<'_>, faults: &mut Vec<Fault>) -> Option<Target> {
    let before = faults.len();
    let method = match fields.find("method") {
        Some(field) => method(field, faults),
        None => Some(Method::GET),
    };
    let kind = fields
        .find("kind")
        .and_then(|field| values::word(field, &KINDS, faults));
    let field = fields.find("url")?;
    let text = field.text(faults)?;
    let unusable = |problem: String| field.fault(format!("the URL {} {problem}", shown(text)));
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            faults.push(unusable(format!("cannot be used: {error}")));
            return None;
        }
    };
    let method = method.filter(|_| faults.len() == before)?;
    let kind = kind.unwrap_or(url.kind);
    if kind == Kind::WebSocket && method != Method::GET {
        let at = fields.find("method").unwrap_or(field);
        let fault = at.fault("a WebSocket handshake is a GET (RFC 6455, section 4.1)");
        faults.push(fault.hint("leave `method` out"));
        return None;
    }
    let target = Target::new(url.origin, method, &url.path_and_query, kind);
    if target.is_err() {
        faults.push(unusable("holds a byte that no request can".into()).hint("encode it with `%`"));
    }
    target.ok()
}

/// Any method at all, but for one that is another in capitals: that it is never admitted can be what the case is about.
fn method(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Method> {
    let text = field.text(faults)?;
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let fault = field.fault(format!("the method {} is not in upper case", shown(text)));
        faults.push(fault.hint(format!("write {}", text.to_ascii_uppercase())));
        return None;
    }
    let method = Method::from_bytes(text.as_bytes());
    if method.is_err() {
        faults.push(
            field
                .fault(format!("{} is not a method", shown(text)))
                .hint("such as GET"),
        );
    }
    method.ok()
}

fn expected(fields: &Fields<'_>, faults: &mut Vec<Fault>) -> Option<Expected> {
    let before = faults.len();
    let route = fields.find("route").and_then(|field| route(field, faults));
    let slot = fields.find("slot").and_then(|field| slot(field, faults));
    let code = fields
        .find("code")
        .and_then(|field| values::word(field, &CODES, faults));
    let verdict = fields.find("verdict")?;
    let allows = values::word(verdict, &VERDICTS, faults)?;
    let senseless: &[&str] = if allows {
        &["code"]
    } else {
        &["route", "slot"]
    };
    for field in senseless.iter().filter_map(|name| fields.find(name)) {
        let verdict = if allows { "allow" } else { "deny" };
        let problem = format!(
            "{} says nothing with `verdict: {verdict}`",
            shown(field.name)
        );
        faults.push(
            Fault::new(field.key, problem)
                .key(field.name)
                .hint("remove one of the two"),
        );
    }
    (faults.len() == before).then_some(match allows {
        true => Expected::Allow { route, slot },
        false => Expected::Deny(code),
    })
}

fn route(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<RouteIs> {
    if let Value::Scalar(scalar) = &field.node.value
        && scalar.kind() == ScalarKind::Number
    {
        let line = scalar.text.parse().ok().filter(|line| *line > 0);
        if line.is_none() {
            let problem = format!("{} is not a line", shown(&scalar.text));
            faults.push(
                field
                    .fault(problem)
                    .hint("name the line of the route's first key, counted from 1"),
            );
        }
        return line.map(RouteIs::In);
    }
    values::host(field, faults).map(RouteIs::For)
}

fn slot(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<SlotIs> {
    let text = field.text(faults)?;
    if text == "none" {
        return Some(SlotIs::None);
    }
    match text.parse() {
        Ok(name) => Some(SlotIs::Named(name)),
        Err(_) => {
            let fault = field
                .fault("`slot` is not the name of an environment variable")
                .quiet();
            faults.push(fault.hint("name the slot, such as EGRESS_TOKEN_0, or write `none`"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CODES, is_code};
    use crate::route::denial::Reason;
    use crate::route::path::Hazard;
    use crate::route::query::QueryHazard;

    #[test]
    fn a_case_can_expect_each_code_that_the_routes_deny_with() {
        let reasons = [
            Reason::Host,
            Reason::Port,
            Reason::Hazard(Hazard::DotSegment),
            Reason::Path,
            Reason::Method,
            Reason::Query,
            Reason::QueryHazard(QueryHazard::Credential),
            Reason::QueryHazard(QueryHazard::NotUtf8),
            Reason::WebSocket,
        ];
        let codes: BTreeSet<&str> = reasons.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), CODES.len());
        assert!(codes.iter().all(|code| is_code(code)), "{codes:?}");
    }
}
