//! Faults in SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), in which forges show them beside the lines of
//! a change.

use serde_json::{Value, json};

use super::fault::{Fault, Faults};

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
        let file = json!({ "uri": uri(file) });
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

/// A path as a reference (RFC 3986, section 4.2). One without a colon in its first segment is no scheme.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_path_is_a_reference_whatever_is_in_it() {
        assert_eq!(uri("a/routes.yaml"), "a/routes.yaml");
        assert_eq!(uri("b:c d%.yaml"), "b%3Ac%20d%25.yaml");
    }
}
