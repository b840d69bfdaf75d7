//! What a good manifest says: each bottle, with the routes that it renders to.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Report, Summary};
use crate::cli::render_routes;
use crate::config::manifest::{Bottle, Manifest};
use crate::config::{self, Faults};

/// The bottles of a manifest.
pub(super) struct Bottles(Vec<Rendered>);

struct Rendered {
    bottle: Bottle,
    agents: Vec<String>,
    summary: Summary,
    /// Slots with their references.
    slots: Value,
}

impl Bottles {
    /// Renders each of them.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, Faults> {
        let bottles = manifest.bottles().iter().map(|bottle| {
            let rendered = bottle.render()?;
            let rules = config::parse(&bottle.name, &rendered.routes, Path::new("/"))?;
            let agents = manifest.agents().filter(|(_, name)| *name == bottle.name);
            Ok(Rendered {
                bottle: bottle.clone(),
                agents: agents.map(|(agent, _)| agent.to_owned()).collect(),
                summary: Summary::of(rules.iter().map(|(rule, _)| rule), None),
                slots: render_routes::slots(&rendered),
            })
        });
        bottles.collect::<Result<_, _>>().map(Self)
    }
}

impl Report for Bottles {
    fn to_text(&self, name: &str) -> String {
        let count = self.0.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut text = format!("{name}: ok, a manifest with {count} bottle{plural}\n");
        for rendered in &self.0 {
            text.push_str(&rendered.to_text());
        }
        text
    }

    fn to_json(&self, name: &str) -> Value {
        let bottles: Vec<Value> = self.0.iter().map(Rendered::to_json).collect();
        json!({
            "version": 1,
            "ok": true,
            "file": name,
            "kind": "manifest",
            "bottles": bottles,
            "faults": [],
        })
    }
}

impl Rendered {
    fn to_text(&self) -> String {
        let provider = &self.bottle.provider;
        let mut text = format!("{} ({}", self.bottle.name, provider.template.name());
        if provider.forward_host_credentials {
            text.push_str(", lent the host's login");
        }
        text.push_str(")\n");
        if !self.agents.is_empty() {
            text.push_str(&format!("  agents  {}\n", self.agents.join(", ")));
        }
        text.push_str(&self.summary.lines());
        text
    }

    fn to_json(&self) -> Value {
        let provider = &self.bottle.provider;
        let mut json: Map<String, Value> = self.summary.counts();
        for (key, value) in [
            ("name", json!(self.bottle.name)),
            ("template", json!(provider.template.name())),
            (
                "forward_host_credentials",
                json!(provider.forward_host_credentials),
            ),
            ("agents", json!(self.agents)),
            ("slots", self.slots.clone()),
        ] {
            json.insert(key.into(), value);
        }
        Value::Object(json)
    }
}
