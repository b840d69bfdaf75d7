//! The slots: those of a running sidecar, as it tells them, or those that one would have in this environment.

use std::time::SystemTime;

use serde_json::Value;

use super::report::Finding;
use crate::admin::duration;
use crate::credential::{Environment, SlotName, Slots, time_left, unix_seconds};

/// A slot as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    name: String,
    /// Why it cannot be used.
    unusable: Option<String>,
    /// Where its value is known to end.
    seconds_left: Option<u64>,
}

/// Short enough that somebody should look to it before the next long run.
const SOON: u64 = 3600;

/// The slots of a sidecar's status.
pub(super) fn of_status(status: &Value) -> Vec<Finding> {
    let slots = status.get("slots").and_then(Value::as_array);
    let slots = slots.into_iter().flatten().map(|slot| {
        let text = |name| slot.get(name).and_then(Value::as_str).unwrap_or_default();
        Slot {
            name: text("name").into(),
            unusable: (text("state") != "ok").then(|| text("state").into()),
            seconds_left: slot.get("seconds_left").and_then(Value::as_u64),
        }
    });
    judge_all(slots)
}

/// The slots that a sidecar would have, which was started in this environment.
pub(super) fn of_environment(
    names: &[SlotName],
    environment: &Environment,
    now: SystemTime,
) -> Vec<Finding> {
    judge_all(names.iter().map(|name| {
        let opened = Slots::open([name].into_iter(), environment, None, now);
        let mut slot = Slot {
            name: name.to_string(),
            unusable: None,
            seconds_left: None,
        };
        match opened {
            Ok(slots) => {
                let expiry = slots.get(name).and_then(|slot| slot.expiry());
                slot.seconds_left = time_left(expiry, now).map(|left| left.as_secs());
            }
            Err(reasons) => {
                slot.unusable = reasons.first().map(|(_, reason)| reason.to_string());
            }
        }
        slot
    }))
}

fn judge_all(slots: impl Iterator<Item = Slot>) -> Vec<Finding> {
    let findings: Vec<_> = slots.map(|slot| slot.finding()).collect();
    if findings.is_empty() {
        return vec![Finding::ok("slots", "no route injects a credential")];
    }
    findings
}

impl Slot {
    fn finding(&self) -> Finding {
        let name = format!("slot.{}", self.name);
        let renew = format!(
            "renew the credential, and put it into {0} or the file that {0}_FILE names, in the sidecar's environment",
            self.name
        );
        if let Some(reason) = &self.unusable {
            return Finding::fail(name, reason, renew);
        }
        match self.seconds_left {
            None => Finding::ok(name, "usable; it does not say when it ends"),
            Some(left) if left < SOON => {
                Finding::warn(name, format!("ends in {}", duration(left)), renew)
            }
            Some(left) => Finding::ok(name, format!("usable for {}", duration(left))),
        }
    }
}

/// When the CA of a running sidecar ends.
pub(super) fn ca_of_status(status: &Value, now: SystemTime) -> Option<Finding> {
    const NAME: &str = "ca.end";
    const HINT: &str = "make another one with `egress ca init --renew`, restart the sidecar, and give the agents the new bundle";
    const WEEK: u64 = 7 * 86_400;
    let text = status.get("ca_expires")?.as_str()?;
    let format = &time::format_description::well_known::Rfc3339;
    let end = time::OffsetDateTime::parse(text, format).ok()?;
    let left = unix_seconds(end.into()).saturating_sub(unix_seconds(now));
    Some(match left {
        0 => Finding::fail(NAME, format!("the sidecar's CA ended {text}"), HINT),
        1..WEEK => {
            let text = format!("the sidecar's CA ends in {}", duration(left));
            Finding::warn(NAME, text, HINT)
        }
        _ => Finding::ok(
            NAME,
            format!("the sidecar's CA is good for {}", duration(left)),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::{ca_of_status, of_environment, of_status};
    use crate::credential::Environment;

    #[test]
    fn a_slot_is_told_with_the_time_that_it_has_left() {
        let slot = |state: &str, left: Option<u64>| {
            let slots = json!({"slots": [{"name": "ONE", "state": state, "seconds_left": left}]});
            of_status(&slots).remove(0)
        };
        assert!(slot("ok", None).is("ok", "does not say"));
        assert!(slot("ok", Some(7200)).is("ok", "2 h 0 min"));
        assert!(slot("ok", Some(3600)).is("ok", "1 h"));
        assert!(slot("ok", Some(3599)).is("warn", "ends in 59 min 59 s"));
        assert!(slot("has expired (3 s ago or at this moment)", Some(0)).is("fail", "expired"));
        assert!(
            of_status(&json!({"slots": []}))
                .remove(0)
                .is("ok", "no route")
        );
    }

    #[test]
    fn a_slot_that_is_not_set_fails() {
        let names = ["ONE", "TWO"].map(|name| name.parse().unwrap());
        let environment = Environment::from_pairs([("ONE", "value-of-one-0123456789")]);
        let found = of_environment(&names, &environment, SystemTime::now());
        assert!(found[0].is("ok", "usable"), "{found:?}");
        assert!(found[1].is("fail", "is not set"), "{found:?}");
        assert!(!format!("{found:?}").contains("value-of-one"));
    }

    #[test]
    fn a_ca_near_its_end_is_told() {
        let now = SystemTime::now();
        let of = |end: &str| ca_of_status(&json!({ "ca_expires": end }), now).unwrap();
        assert!(of("2020-01-01T00:00:00Z").is("fail", "ended"));
        assert!(of("9999-01-01T00:00:00Z").is("ok", "good for"));
        let soon = now + std::time::Duration::from_secs(86_400);
        assert!(of(&crate::audit::object::rfc3339(soon)).is("warn", "ends in"));
    }
}
