//! What `egress explain` says of a request is what a running sidecar does with it: one corpus, both of them.

use std::process::Command;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::harness::command;
use crate::harness::rig::Rig;
use crate::harness::sidecar::EGRESS;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/, {regex: '/v2/[a-z]+'}], methods: [GET, POST], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: api.test, path_allowlist: [/v1/open/], connect_to: 'UPSTREAM'}
- {host: api.test, path_allowlist: [/fetch], query: {service: pull}, connect_to: 'UPSTREAM'}
- {host: '*.wild.test', path_allowlist: [/a%2fb, /plain], encoded_slash: true, connect_to: 'UPSTREAM'}
- {host: sub.wild.test, methods: [DELETE], connect_to: 'UPSTREAM'}
- {host: bare.test, connect_to: 'UPSTREAM'}
";

const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "PURGE"];
const HOSTS: [&str; 6] = [
    "api.test",
    "API.test",
    "x.wild.test",
    "sub.wild.test",
    "bare.test",
    "bare.test.evil.test",
];
const PATHS: [&str; 19] = [
    "/",
    "/v1",
    "/v1/",
    "/v1/a",
    "/v1/open/door",
    "/v1x",
    "/V1/a",
    "/v1/../v2/abc",
    "/v1/%2e%2e/x",
    "/v1//a",
    "/v1/a;b",
    "/v2/abc",
    "/v2/abc/d",
    "/v2/ABC?key=secret",
    "/v1/a?access_token=x",
    "/fetch?service=pull",
    "/fetch?service=push",
    "/a%2fb",
    "/plain?%zz",
];

#[tokio::test]
async fn explain_says_of_each_request_what_the_sidecar_does_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db");
    let file = audit.display().to_string();
    let rig = Rig::with(ROUTES, |builder| builder.arg("--audit").arg(&file)).await;
    let routes = rig.sidecar.routes_file();
    let mut expected = Vec::new();
    for method in METHODS {
        for host in HOSTS {
            for path in PATHS {
                let url = format!("https://{host}{path}");
                let explained = Command::new(EGRESS)
                    .args(["explain", "--json", "-r"])
                    .arg(&routes)
                    .args([method, &url])
                    .output()
                    .expect("the command runs");
                let explained: Value =
                    serde_json::from_slice(&explained.stdout).expect("an explanation");
                expected.push((format!("{method} {url}"), outcome_told(&explained)));
            }
        }
    }
    let mut done = Vec::new();
    for method in METHODS {
        for host in HOSTS {
            let tunnel = rig.agent.connect(&format!("{host}:443")).await;
            let refused = tunnel.err().and_then(|refusal| refusal.error_code());
            for path in PATHS {
                let url = format!("https://{host}{path}");
                let code = match &refused {
                    Some(code) => Some(code.clone()),
                    None => {
                        let request = Request::builder().method(method).uri(&url);
                        let request = request.body(Bytes::new()).expect("a request");
                        rig.agent.send(request).await.error_code()
                    }
                };
                done.push((format!("{method} {url}"), code));
            }
        }
    }
    rig.sidecar.terminate().await;
    let rows = command::egress(["audit", &file, "--json", "--latest", "0"]).await;
    let rows: Vec<Value> = rows
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    let mut rows = rows.iter().filter(|row| row["method"] != "CONNECT");
    let seen: Vec<(String, Outcome)> = done
        .into_iter()
        .map(|(request, code)| {
            let outcome = match code {
                Some(code) if code == "host_not_allowed" => Outcome::Denied(code),
                code => {
                    let row = rows.next().expect("a row for each that came to a tunnel");
                    match code {
                        Some(code) => Outcome::Denied(code),
                        None => Outcome::Admitted {
                            line: row["route"].as_u64(),
                            slot: row["slot"].as_str().map(str::to_owned),
                        },
                    }
                }
            };
            (request, outcome)
        })
        .collect();
    let admitted = seen
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Admitted { .. }));
    assert!(admitted.count() > 50, "the corpus has both");
    assert_eq!(seen, expected);
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Admitted {
        line: Option<u64>,
        slot: Option<String>,
    },
    Denied(String),
}

fn outcome_told(explained: &Value) -> Outcome {
    match explained["verdict"].as_str() {
        Some("allowed") => Outcome::Admitted {
            line: explained["route"]["line"].as_u64(),
            slot: explained["injected"]["slot"].as_str().map(str::to_owned),
        },
        _ => Outcome::Denied(explained["code"].as_str().expect("a code").to_owned()),
    }
}
