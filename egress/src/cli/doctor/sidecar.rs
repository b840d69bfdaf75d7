//! What a running sidecar says of itself, beside its slots.

use serde_json::Value;

use super::report::Finding;

/// Whether its routes are the file's, and what of its confinement is in force.
pub(super) fn of_status(status: &Value) -> Vec<Finding> {
    let mut findings = vec![reload(status)];
    findings.extend(confinement(status));
    findings
}

fn reload(status: &Value) -> Finding {
    const NAME: &str = "sidecar.routes";
    match status.get("last_reload_fault").and_then(Value::as_str) {
        Some(_) => Finding::fail(
            NAME,
            "the last reload failed, and the routes before it are in force",
            "`egress check` says what is wrong with the file; then `egress reload`",
        ),
        None => {
            let count = status
                .get("routes")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            Finding::ok(NAME, format!("routes in force: {count}"))
        }
    }
}

/// Measures that are off have a line each, those that are on share one.
fn confinement(status: &Value) -> Vec<Finding> {
    const NAME: &str = "sidecar.confinement";
    let measures = status.get("confinement").and_then(Value::as_array);
    let (mut on, mut findings) = (0_usize, Vec::new());
    for measure in measures.into_iter().flatten() {
        let text = |name| {
            measure
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        match text("state") {
            "on" => on += 1,
            state => findings.push(Finding::warn(
                NAME,
                format!("{}: {state}", text("name")),
                "docs/operations.md, under Confinement, says what each measure takes; --require-confinement insists on \
                 all of them",
            )),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(NAME, format!("measures in force: all {on}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::of_status;

    #[test]
    fn a_measure_that_is_off_is_told() {
        let status = json!({"routes": 2, "last_reload_fault": null, "confinement": [
            {"name": "not dumpable", "state": "on"},
            {"name": "own ports only", "state": "off (no Landlock)"},
        ]});
        let found = of_status(&status);
        assert!(found[0].is("ok", "in force: 2"), "{found:?}");
        assert!(
            found[1].is("warn", "own ports only: off (no Landlock)"),
            "{found:?}"
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_failed_reload_is_told() {
        let found = of_status(&json!({"last_reload_fault": "x", "confinement": [
            {"name": "not dumpable", "state": "on"},
        ]}));
        assert!(found[0].is("fail", "the last reload failed"), "{found:?}");
        assert!(found[1].is("ok", "all 1"), "{found:?}");
    }
}
