//! A bottle of a manifest as a routes file, and the references that its slots stand for.
//!
//! The same bottle gives the same bytes. What is written is read back before it is handed out, so that nothing in a manifest
//! can come to say something else on the way.

mod reference;
mod route;
pub(super) mod yaml;

use std::path::{Path, PathBuf};

use super::fault::{Fault, Faults, shown};
use super::manifest::{Bottle, Route};
use super::routes_file;
use crate::credential::SlotName;
use crate::route::path::PathPattern;
use crate::route::{Injection, Rule};

pub(super) use reference::InvalidTokenRef;

/// A bottle, as the sidecar and its launcher take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text of the routes file.
    pub routes: String,
    /// Its slots, in the order of their first use.
    pub slots: Vec<RenderedSlot>,
    /// What routes were marked with, each once: `claude_code_oauth` and the like.
    pub roles: Vec<String>,
}

/// One slot of a rendered routes file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedSlot {
    /// The slot.
    pub name: SlotName,
    /// Where its value is had at launch.
    pub reference: TokenRef,
    /// The hosts of the routes that name it.
    pub hosts: Vec<String>,
}

/// Where a credential is had at launch, on the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenRef {
    /// A variable of the host's environment.
    Variable(String),
    /// A file of the host. A path that begins with `~/` is left as it was written.
    File(PathBuf),
    /// The output of a program: its name and arguments.
    Command(Vec<String>),
    /// The access token of the host's Codex login.
    CodexHost,
}

impl Bottle {
    /// The routes file of the bottle, and what its slots stand for: one slot for each distinct reference, in the order of
    /// first use.
    ///
    /// # Errors
    ///
    /// A routes file that does not say what the manifest says. The one way to this that is known is a PEM file that
    /// changed since the manifest was read.
    pub fn render(&self) -> Result<Rendered, Faults> {
        let mut slots: Vec<RenderedSlot> = Vec::new();
        let mut roles: Vec<String> = Vec::new();
        let mut rules = Vec::with_capacity(self.routes.len());
        let mut routes = Vec::with_capacity(self.routes.len());
        for route in &self.routes {
            let rule = Rule {
                injection: injection(route, &mut slots),
                ..route.rule.clone()
            };
            routes.push(route::value(&rule, route.upstream_ca.as_deref()));
            rules.push(rule);
            for role in &route.roles {
                if !roles.contains(role) {
                    roles.push(role.clone());
                }
            }
        }
        let body = yaml::routes(&routes);
        let rendered = Rendered {
            routes: format!("{}{body}", self.head()),
            slots,
            roles,
        };
        self.read_back(&rendered, &rules)?;
        Ok(rendered)
    }

    /// What the file was made from, without a path that would tell about the machine.
    fn head(&self) -> String {
        format!(
            "# Rendered from the bottle {} of {} by `egress render-routes`. Changes belong there.\n",
            shown(&self.name),
            shown(&self.file)
        )
    }

    fn read_back(&self, rendered: &Rendered, rules: &[Rule]) -> Result<(), Faults> {
        let name = "the rendered routes";
        let read = routes_file::parse(name, &rendered.routes, Path::new("/"))?;
        if read.iter().map(|(rule, _)| rule).eq(rules) {
            return Ok(());
        }
        let problem = format!(
            "the bottle {} cannot be rendered faithfully",
            shown(&self.name)
        );
        let fault = Fault::of_file(problem)
            .hint("a PEM file may have changed meanwhile; else report this as a bug");
        Err(Faults::new(self.file.as_str(), "", vec![fault]))
    }
}

/// Rules as the text of a routes file, each under its lines of comment. No rule has an `upstream_ca`.
pub fn commented(rules: &[(Vec<String>, Rule)]) -> String {
    let routes = rules.iter();
    let routes = routes.map(|(comment, rule)| (comment.clone(), route::value(rule, None)));
    yaml::commented(&routes.collect::<Vec<_>>())
}

/// Lines of comment for the end of a routes file.
pub fn comments(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| match line.as_str() {
        "" => "#\n".to_owned(),
        line => format!("# {}\n", yaml::comment_of(line)),
    });
    lines.collect()
}

/// Path patterns as the value of `path_allowlist`, on one line.
pub fn paths(patterns: &[PathPattern]) -> String {
    route::paths(patterns).in_line()
}

/// A rule as JSON: the keys that a routes file would have. The name of its `upstream_ca` is not known here and left out.
pub fn json(rule: &Rule) -> serde_json::Value {
    (&route::value(rule, None)).into()
}

/// The route's injection, from the slot of its reference.
fn injection(route: &Route, slots: &mut Vec<RenderedSlot>) -> Option<Injection> {
    let auth = route.auth.as_ref()?;
    let host = route.rule.host.to_string();
    let known = slots
        .iter_mut()
        .find(|slot| slot.reference == auth.reference);
    let name = match known {
        Some(slot) => {
            if !slot.hosts.contains(&host) {
                slot.hosts.push(host);
            }
            slot.name.clone()
        }
        None => {
            let name = format!("EGRESS_TOKEN_{}", slots.len());
            let name: SlotName = name.parse().expect("letters, `_` and digits");
            slots.push(RenderedSlot {
                name: name.clone(),
                reference: auth.reference.clone(),
                hosts: vec![host],
            });
            name
        }
    };
    Some(Injection {
        header: auth.header.clone(),
        scheme: auth.scheme.clone(),
        slot: name,
    })
}
