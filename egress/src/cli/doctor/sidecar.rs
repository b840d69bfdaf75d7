//! What a running sidecar says of itself, beside its slots.

use serde_json::Value;

use super::report::Finding;

/// Whether its routes are the file's, and what of its confinement is in force.
pub(super) fn of_status(status: &Value) -> Vec<Finding> {
    let mut findings = vec![reload(status)];
    findings.extend(status.get("audit").and_then(audit));
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

/// The audit file, where there is one.
fn audit(audit: &Value) -> Option<Finding> {
    const NAME: &str = "sidecar.audit";
    let is_failing = audit.get("failing")?.as_bool()?;
    let lost = audit
        .get("lost")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    Some(match (is_failing, lost) {
        (true, _) => Finding::fail(
            NAME,
            "the audit file cannot be written",
            "the sidecar's log says why: make room on its disk, or see who holds it; with --audit-required requests are \
             refused meanwhile",
        ),
        (false, 0) => Finding::ok(NAME, "the audit file is written"),
        (false, lost) => Finding::warn(
            NAME,
            format!("the audit file is written, and has lost {lost} rows since the start"),
            "the sidecar's log says when; --audit-required refuses requests in place of losing rows",
        ),
    })
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
    fn an_audit_file_that_is_not_written_is_told() {
        for (audit, state) in [
            (json!({"failing": false, "lost": 0}), "ok"),
            (json!({"failing": false, "lost": 3}), "warn"),
            (json!({"failing": true, "lost": 0}), "fail"),
        ] {
            let found = of_status(&json!({"audit": audit}));
            assert!(found[1].is(state, "the audit file"), "{found:?}");
        }
        assert!(of_status(&json!({"audit": null})).len() < 3);
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
