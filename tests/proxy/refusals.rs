//! Credentials that end while the sidecar runs, and what is said of them (threat model, row 46). What refusals say in
//! general is in `attack::answers`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::harness::agent::Answer;
use crate::harness::rig::Rig;
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], methods: [GET, POST], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, websocket: false, connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
- {host: down.test, connect_to: '127.0.0.1:1'}
- {host: private.test, connect_to: 'localhost:1'}
";

#[tokio::test]
async fn a_credential_that_expires_while_running_is_not_sent_any_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    let seconds = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("a clock").as_secs()
    };
    let long = jwt(seconds() + 3600);
    fs::write(&file, &long).expect("a file");
    let routes = ROUTES.replace("EGRESS_TOKEN_0", "EGRESS_TOKEN_5");
    let path = file.display().to_string();
    let rig = Rig::with(&routes, |builder| builder.env("EGRESS_TOKEN_5_FILE", path)).await;
    rig.agent.get("https://api.test/v1/x").await.assert_served();
    // The sidecar is up: however slow the machine is, only the look at the file may miss the short life.
    let end = seconds() + 4;
    let short = jwt(end);
    fs::write(dir.path().join("next"), &short).expect("a file");
    fs::rename(dir.path().join("next"), &file).expect("a rename");
    let refusal = until(&rig, "refusal", |answer| answer.status != 200).await;
    refusal.assert_refused(400, "credential_expired");
    assert!(seconds() >= end, "not before its time");
    assert!(!format!("{refusal:?}").contains(&short));
    let served = rig.upstream.seen().len();
    rig.agent
        .get("https://api.test/v1/x")
        .await
        .assert_refused(400, "credential_expired");
    assert_eq!(rig.upstream.seen().len(), served);
    assert!(rig.upstream.seen().iter().all(|seen| {
        let sent = seen.all("authorization");
        sent == [format!("Bearer {long}")] || sent == [format!("Bearer {short}")]
    }));
    // Other routes go on, and the status says what is wrong.
    rig.agent.get("https://bare.test/").await.assert_served();
    let status = rig.sidecar.status().await;
    assert_eq!(status["healthy"], false);
    assert!(
        status["slots"][0]["state"]
            .as_str()
            .expect("a state")
            .contains("expired"),
        "{status}"
    );
}

async fn until(rig: &Rig, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    within(what, async {
        loop {
            let answer = rig.agent.get("https://api.test/v1/x").await;
            if wanted(&answer) {
                return answer;
            }
        }
    })
    .await
}

/// An unsigned token with this expiry.
pub(crate) fn jwt(exp: u64) -> String {
    let part = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.c2ln",
        part("{\"alg\":\"none\"}".into()),
        part(format!("{{\"exp\":{exp}}}"))
    )
}
