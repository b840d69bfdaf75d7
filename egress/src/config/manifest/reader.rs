//! From a text to a [`Manifest`]: every bottle is read, and everything that is wrong with any of them is told.

use std::path::Path;

use super::super::authority::Authorities;
use super::super::conflicts;
use super::super::document::{self, Node, ScalarKind, Value};
use super::super::fault::{Fault, Faults, Span, shown};
use super::super::fields::{Field, Fields, closest, duplicate, listed};
use super::super::keys::Keys;
use super::super::rule::manifest::{self as item, Item};
use super::super::source::Source;
use super::super::values;
use super::front_matter::yaml_of;
use super::keys::{AGENT_KEYS, BOTTLE_KEYS, EGRESS_KEYS, KEYS, PROVIDER_KEYS};
use super::{Bottle, Manifest, Provider, Route, TEMPLATES, Template, forwarding};

/// The largest manifest, in bytes. What one renders to is at most some ten times as large, which a routes file may be.
const MAX_BYTES: usize = 1024 * 1024;

/// Reads a manifest.
pub(super) fn read(source: &Source) -> Result<Manifest, Faults> {
    let mut faults = Vec::new();
    let manifest = read_text(source, &mut faults);
    if faults.is_empty() {
        Ok(manifest)
    } else {
        Err(Faults::new(source.name.clone(), &source.text, faults))
    }
}

fn read_text(source: &Source, faults: &mut Vec<Fault>) -> Manifest {
    let mut manifest = Manifest {
        name: source.name.clone(),
        bottles: Vec::new(),
        agents: Vec::new(),
    };
    if source.text.len() > MAX_BYTES {
        let problem = format!("the manifest is larger than {MAX_BYTES} bytes");
        faults.push(Fault::of_file(problem));
        return manifest;
    }
    let Some(text) = yaml_of(source, faults) else {
        return manifest;
    };
    let root = document::parse(text, faults);
    let Some(fields) = fields_of(root.as_ref(), faults) else {
        return manifest;
    };
    let mut reader = Reader {
        file: file_name(&source.name),
        authorities: Authorities::new(&source.directory),
        faults,
    };
    let Some(bottles) = fields.find("bottles") else {
        return manifest;
    };
    let named = names(bottles, "bottle", reader.faults);
    for (name, field) in &named {
        let bottle = reader.bottle(name, *field);
        manifest.bottles.push(bottle);
    }
    for (name, field) in fields
        .find("agents")
        .map_or(Vec::new(), |field| names(field, "agent", reader.faults))
    {
        if let Some(bottle) = reader.agent(name, field, &manifest.bottles) {
            manifest.agents.push((name.to_owned(), bottle));
        }
    }
    manifest
}

fn fields_of<'d>(root: Option<&'d Node<'d>>, faults: &mut Vec<Fault>) -> Option<Fields<'d>> {
    const HINT: &str = "write `bottles: {dev: {egress: {routes: [...]}}}`";
    let broken = !faults.is_empty();
    let nothing = |node: &&Node<'_>| matches!(&node.value, Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null);
    let Some(root) = root.filter(|node| !nothing(node)) else {
        if !broken {
            faults.push(Fault::of_file("the manifest is empty").hint(HINT));
        }
        return None;
    };
    let map = match &root.value {
        Value::Map(map) => map,
        Value::Refused => return None,
        Value::Seq(_) | Value::Scalar(_) => {
            let fault = Fault::new(root.span, "the manifest must be a map");
            faults.push(fault.key("bottles").hint(HINT));
            return None;
        }
    };
    let fields = Fields::read(map, &KEYS, faults);
    // After a syntax error the key may have been still to come.
    if !broken && fields.lacks("bottles") {
        let fault = Fault::new(root.span, "the manifest has no `bottles`");
        faults.push(fault.key("bottles").hint(HINT));
    }
    Some(fields)
}

struct Reader<'f> {
    file: String,
    authorities: Authorities,
    faults: &'f mut Vec<Fault>,
}

impl Reader<'_> {
    fn bottle(&mut self, name: &str, field: Field<'_>) -> Bottle {
        let mut bottle = Bottle {
            name: name.to_owned(),
            provider: Provider::default(),
            file: self.file.clone(),
            routes: Vec::new(),
        };
        let Some(fields) = self.fields(field, &BOTTLE_KEYS) else {
            return bottle;
        };
        let provider = fields.find("agent_provider");
        let forwarded = provider.and_then(|field| self.provider(field, &mut bottle.provider));
        let routes = fields
            .find("egress")
            .and_then(|field| self.fields(field, &EGRESS_KEYS))
            .and_then(|fields| fields.find("routes"));
        let mut items = routes.map_or(Vec::new(), |field| self.items(field));
        match forwarded {
            Some(span) => forwarding::add(&mut items, span, self.faults),
            None => forwarding::refuse(&items, self.faults),
        }
        let entries: Vec<_> = items.iter().map(|item| &item.entry).collect();
        conflicts::check(&entries, self.faults);
        bottle.routes = items.into_iter().filter_map(route_of).collect();
        bottle
    }

    /// Reads `agent_provider`. Where the host's login is forwarded, returns where that is said.
    fn provider(&mut self, field: Field<'_>, provider: &mut Provider) -> Option<Span> {
        let fields = self.fields(field, &PROVIDER_KEYS)?;
        let template = match fields.find("template") {
            Some(field) => values::word(field, &TEMPLATES, self.faults),
            None => Some(Template::default()),
        };
        let dockerfile = fields.find("dockerfile");
        provider.dockerfile = dockerfile
            .and_then(|field| field.text(self.faults))
            .filter(|path| !path.is_empty())
            .map(str::to_owned);
        provider.template = template.unwrap_or_default();
        let field = fields.find("forward_host_credentials")?;
        provider.forward_host_credentials = field.flag(self.faults)?;
        match (provider.forward_host_credentials, template) {
            (false, _) => None,
            (true, Some(Template::Codex)) => Some(field.key),
            // An unknown template has its fault already.
            (true, None) => Some(field.key),
            (true, Some(template)) => {
                let problem = format!(
                    "`forward_host_credentials` is for the template codex, and this is {}",
                    template.name()
                );
                self.faults.push(field.fault(problem).hint(
                    "write `template: codex`, or leave `forward_host_credentials` out and give the route an `auth` block",
                ));
                Some(field.key)
            }
        }
    }

    fn items(&mut self, field: Field<'_>) -> Vec<Item> {
        let fault = match &field.node.value {
            Value::Seq(nodes) => {
                let mut items: Vec<Item> = Vec::with_capacity(nodes.len());
                for node in nodes {
                    for new in item::read(node, &mut self.authorities, self.faults) {
                        // Presets may bring the same route twice, which is no tie.
                        if !(new.preset && items.iter().any(|old| same(old, &new))) {
                            items.push(new);
                        }
                    }
                }
                return items;
            }
            Value::Refused => return Vec::new(),
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => field
                .empty(field.node)
                .hint("write `routes: []` to deny everything"),
            _ => field
                .wrong_type(field.node, "a list")
                .hint("begin each route with `- host:`"),
        };
        self.faults.push(fault);
        Vec::new()
    }

    /// The bottle of an agent.
    fn agent(&mut self, name: &str, field: Field<'_>, bottles: &[Bottle]) -> Option<usize> {
        let names: Vec<&str> = bottles.iter().map(|bottle| bottle.name.as_str()).collect();
        let fields = self.fields(field, &AGENT_KEYS)?;
        let Some(bottle) = fields.find("bottle") else {
            if fields.lacks("bottle") {
                self.faults.push(
                    Fault::new(
                        field.key,
                        format!("the agent {} has no `bottle`", shown(name)),
                    )
                    .key("bottle")
                    .hint(format!("name one of {}", listed(&names))),
                );
            }
            return None;
        };
        let wanted = bottle.written(bottle.node, self.faults)?;
        let found = names.iter().position(|name| *name == wanted);
        if found.is_none() {
            let problem = format!("there is no bottle {}", shown(wanted));
            self.faults
                .push(bottle.fault(problem).hint(match closest(wanted, &names) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are {}", listed(&names)),
                }));
        }
        found
    }

    fn fields<'d>(&mut self, field: Field<'d>, keys: &Keys) -> Option<Fields<'d>> {
        let hint = match keys.names().next() {
            Some(key) => format!("write `{{{key}: ...}}`, or `{{}}`"),
            None => "write `{}`".to_owned(),
        };
        let map = item::map(field, &hint, self.faults)?;
        Some(Fields::read(map, keys, self.faults))
    }
}

/// Whether two routes are one. What they say about themselves does not matter.
fn same(old: &Item, new: &Item) -> bool {
    let (Some(a), Some(b)) = (&old.entry.rule, &new.entry.rule) else {
        return false;
    };
    let (mut a, mut b) = (a.clone(), b.clone());
    (a.description, b.description) = (None, None);
    let credential = |item: &Item| {
        let auth = item.auth.as_ref()?;
        Some((
            auth.header.clone(),
            auth.scheme.clone(),
            auth.reference.clone(),
        ))
    };
    a == b && credential(old) == credential(new)
}

fn route_of(item: Item) -> Option<Route> {
    Some(Route {
        rule: item.entry.rule?,
        auth: item.auth,
        roles: item.roles,
        upstream_ca: item.upstream_ca,
    })
}

/// A map of names that the operator chose, each for one of what `each` says.
fn names<'d>(
    field: Field<'d>,
    each: &'static str,
    faults: &mut Vec<Fault>,
) -> Vec<(&'d str, Field<'d>)> {
    let Some(map) = item::map(field, "write `{name: {...}}`", faults) else {
        return Vec::new();
    };
    let mut named: Vec<(&str, Field<'_>)> = Vec::with_capacity(map.len());
    for entry in map {
        let span = entry.key.span;
        let Some(name) = field.written(&entry.key, faults) else {
            continue;
        };
        let first = named.iter().find(|(known, _)| *known == name);
        if let Some((_, first)) = first {
            faults.push(duplicate(span, name, first.key));
        } else if name.is_empty() || name.chars().any(char::is_control) {
            let problem = format!("{} cannot be a name", shown(name));
            faults.push(field.fault_in(span, problem));
        } else {
            let field = Field {
                name: each,
                key: span,
                node: &entry.value,
            };
            named.push((name, field));
        }
    }
    named
}

/// A file's name without its directory, which would tell about the machine.
fn file_name(name: &str) -> String {
    let last = Path::new(name).file_name();
    last.map_or_else(
        || name.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
