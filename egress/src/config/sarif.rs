//! Faults in SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), in which forges show them beside the lines of
//! a change.

use std::path::Path;

use serde_json::{Value, json};

use super::fault::{Fault, Faults};
use crate::file::uri_path;

/// The report of a file without faults.
pub fn clean() -> Value {
    log(Vec::new())
}

impl Faults {
    /// All faults as one SARIF log.
    pub fn to_sarif(&self) -> Value {
        log(self
            .iter()
            .map(|fault| result(self.file(), fault))
            .collect())
    }
}

fn log(results: Vec<Value>) -> Value {
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "egress", "version": env!("CARGO_PKG_VERSION"), "rules": [{ "id": RULE }] } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

/// Faults have words and no codes: all are of one rule.
const RULE: &str = "check";

fn result(file: &str, fault: &Fault) -> Value {
    let text = match &fault.hint {
        Some(hint) => format!("{}\nhint: {hint}", fault.problem),
        None => fault.problem.clone(),
    };
    let place = |line: Option<u32>, column: Option<u32>| {
        let file = json!({ "uri": uri_path(Path::new(file)) });
        match line {
            None => json!({ "artifactLocation": file }),
            Some(line) => json!({
                "artifactLocation": file,
                "region": { "startLine": line, "startColumn": column.unwrap_or(1) },
            }),
        }
    };
    let related: Vec<Value> = fault
        .related
        .iter()
        .map(|related| {
            json!({
                "message": { "text": related.what },
                "physicalLocation": place(Some(related.line), None),
            })
        })
        .collect();
    json!({
        "ruleId": RULE,
        "level": "error",
        "message": { "text": text },
        "locations": [{ "physicalLocation": place(fault.line(), fault.column()) }],
        "relatedLocations": related,
    })
}
