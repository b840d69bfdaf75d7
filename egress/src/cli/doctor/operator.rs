//! The operator's side: a running sidecar, its slots, and its routes' hosts.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::anyhow;
use http::Method;
use serde_json::Value;

use super::report::Finding;
use super::{hosts, sidecar, slots};
use crate::admin::{AdminAddress, client};
use crate::config;
use crate::credential::{Environment, SlotName};
use crate::route::Rule;

/// What is known before anything is examined.
pub(super) struct Operator {
    findings: Vec<Finding>,
    status: Option<Value>,
    rules: Option<Vec<Rule>>,
    /// What became of a routes file's slots, where no running sidecar tells them.
    slots: Vec<Finding>,
}

impl Operator {
    /// Asks the sidecar and reads the file, as far as they are named. Blocking.
    pub(super) fn of(routes: Option<&Path>, admin: Option<&AdminAddress>) -> Self {
        let mut this = Self {
            findings: Vec::new(),
            status: None,
            rules: None,
            slots: Vec::new(),
        };
        if let Some(address) = admin {
            this.ask(address);
        }
        match routes {
            Some(path) => {
                let names = this.read(path);
                if admin.is_none() {
                    // While there is one thread, since it blots them out of the environment; so clients do not get them.
                    let environment = Environment::take(names.iter());
                    this.slots = match this.rules {
                        // What could not be read may name some.
                        None if names.is_empty() => {
                            vec![Finding::skip("slots", "the routes file has faults")]
                        }
                        _ => slots::of_environment(&names, &environment, SystemTime::now()),
                    };
                }
            }
            None => this.read_from_status(),
        }
        this
    }

    /// The rules of the routes file; none where there is no file, or no good one.
    pub(super) fn rules(&self) -> &[Rule] {
        self.rules.as_deref().unwrap_or_default()
    }

    fn ask(&mut self, address: &AdminAddress) {
        const NAME: &str = "sidecar.admin";
        let answer = client::ask(address, Method::GET, "/status");
        let (_, body) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let hint = error.hint();
                let text = format!("{:#}", anyhow!(error));
                return self.findings.push(Finding::fail(NAME, text, hint));
            }
        };
        let status: Option<Value> = serde_json::from_str(&body).ok();
        self.status = status.filter(|status| status.get("version").is_some());
        self.findings.push(match self.status {
            Some(_) => Finding::ok(NAME, format!("a sidecar answers on {address}")),
            None => Finding::fail(
                NAME,
                format!("what listens on {address} is no sidecar's admin socket"),
                "name the address that the sidecar has as its --admin",
            ),
        });
    }

    /// The routes file that a running sidecar names, where it can be read here.
    fn read_from_status(&mut self) {
        let file = self
            .status
            .as_ref()
            .and_then(|status| status.get("routes_file")?.as_str());
        let Some(file) = file.map(PathBuf::from) else {
            return;
        };
        // A relative name, as older sidecars give it, may be that of another file here.
        if file.is_absolute() && std::fs::File::open(&file).is_ok() {
            self.read(&file);
        } else {
            let text = format!(
                "{} cannot be read here; name the routes file with --routes",
                file.display()
            );
            self.findings.push(Finding::skip("hosts", text));
        }
    }

    /// Reads a routes file, and returns the slots that it names.
    fn read(&mut self, path: &Path) -> Vec<SlotName> {
        let draft = config::read(path);
        let slots = draft.slots().cloned().collect();
        match draft.finish() {
            Ok(file) => self.rules = Some(file.rules.into_iter().map(|(rule, _)| rule).collect()),
            Err(faults) => {
                let first = faults.iter().next().map(|fault| fault.problem.to_string());
                let (file, count) = (path.display(), faults.len());
                self.findings.push(Finding::fail(
                    "routes",
                    format!(
                        "{file}: faults: {count}, first: {}",
                        first.unwrap_or_default()
                    ),
                    format!("`egress check {file}` shows where"),
                ));
            }
        }
        slots
    }

    /// What was found on the way, and what the sidecar and the resolver say.
    pub(super) async fn examine(self) -> Vec<Finding> {
        let mut findings = self.findings;
        let now = SystemTime::now();
        if let Some(status) = &self.status {
            findings.extend(sidecar::of_status(status));
            findings.extend(slots::ca_of_status(status, now));
            findings.extend(slots::of_status(status));
        }
        findings.extend(self.slots);
        if let Some(rules) = &self.rules {
            findings.extend(hosts::examine(rules.iter()).await);
        }
        findings
    }
}
