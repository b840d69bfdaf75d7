//! Public testing programs against a tunnel of the real binary. What they find is theirs to say; what is asserted here is
//! what they printed. Those that take longer than a minute are run by hand; docs/threat-model.md has their results.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::agent::Agent;
use crate::harness::clients::{Output, run, sslyze, system};
use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::upstream::{self, Upstream};

/// Hands each connection on into a tunnel of its own, for programs that know of no proxy.
struct Door {
    addr: SocketAddr,
    listener: TcpListener,
}

impl Door {
    async fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr = listener.local_addr().expect("a bound socket");
        Self { addr, listener }
    }

    /// The origin that is behind it.
    fn authority(&self) -> String {
        format!("localhost:{}", self.addr.port())
    }

    fn routes(&self) -> String {
        format!(
            "  - {{host: localhost, port: {}, connect_to: UPSTREAM, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}}\n",
            self.addr.port()
        )
    }

    /// Serves until the test ends.
    fn lead_into(self, agent: Agent) {
        let authority = self.authority();
        let agent = std::sync::Arc::new(agent);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = self.listener.accept().await {
                let (agent, authority) = (agent.clone(), authority.clone());
                tokio::spawn(async move {
                    let tunnel: Result<TcpStream, _> = agent.connect(&authority).await;
                    if let Ok(mut tunnel) = tunnel {
                        _ = copy_bidirectional(&mut client, &mut tunnel).await;
                    }
                });
            }
        });
    }
}

/// A sidecar with a tunnel behind a door, and the URL of the door.
async fn behind_a_door() -> (Rig, String) {
    let door = Door::open().await;
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let rig = Rig::around(&pki, upstream, &door.routes(), |builder| builder).await;
    let url = format!("https://{}/path", door.authority());
    door.lead_into(Agent::of(&rig.sidecar));
    (rig, url)
}

/// That the upstream got so many requests, each with the one credential.
fn assert_arrived(rig: &Rig, count: usize) {
    let seen = rig.upstream.seen();
    assert_eq!(seen.len(), count);
    let real = format!("Bearer {REAL}");
    for request in seen {
        assert_eq!(request.path(), "/path");
        let sent: Vec<_> = request.headers.get_all("authorization").iter().collect();
        assert_eq!(sent, [real.as_str()]);
    }
}

async fn tool(program: &str, package: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(system(program, package));
    command
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    run(&mut command).await
}

#[tokio::test]
async fn h2load_loses_no_request_over_http2_and_none_over_http1() {
    for version in ["--npn-list=h2", "--h1"] {
        let (rig, url) = behind_a_door().await;
        let load = ["-n", "1000", "-c", "10", "-m", "20", version];
        let arguments: Vec<&str> = load
            .into_iter()
            .chain(["-H", "Authorization: Bearer agent's"])
            .chain([url.as_str()])
            .collect();
        let output = tool("h2load", "nghttp2-client", &arguments).await.success();
        let all =
            "1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(output.stdout.contains(all), "{}", output.stdout);
        let statuses = "status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx";
        assert!(output.stdout.contains(statuses), "{}", output.stdout);
        assert_arrived(&rig, 1000);
    }
}

#[tokio::test]
async fn nghttp_meets_no_fault_of_the_protocol() {
    let (rig, url) = behind_a_door().await;
    let body = ["-d", "/etc/hostname"];
    let forms: [(&[&str], &str, usize); 5] = [
        (&[], "200", 1),
        (&["-m", "30"], "200", 30),
        (&["--no-dep", "--window-bits=16"], "200", 1),
        (&["--padding=64", "--trailer=x-trailer: 1"], "200", 1),
        // A header block of more than 64 KiB over several frames.
        (&["--continuation"], "431", 1),
    ];
    let mut expected = 0;
    for (form, status, count) in forms {
        let arguments = [form, &body, &["-v", "--no-verify-peer", url.as_str()]].concat();
        let output = tool("nghttp", "nghttp2-client", &arguments).await.success();
        let answered = format!(":status: {status}");
        assert_eq!(
            output.stdout.matches(&answered).count(),
            count,
            "{form:?}: {output:#?}"
        );
        assert!(
            !output.stdout.contains("PROTOCOL_ERROR"),
            "{form:?}: {output:#?}"
        );
        if status == "200" {
            expected += count;
        }
    }
    assert_arrived(&rig, expected);
}

#[tokio::test]
async fn sslyze_finds_mozillas_intermediate_configuration_and_no_known_weakness() {
    let rig = Rig::new("  - {host: api.test, connect_to: UPSTREAM}\n").await;
    let report = rig.sidecar.dir().join("sslyze.json");
    let mut command = tokio::process::Command::new(sslyze().await);
    // Without `--certinfo`, which also connects without a server name, and is refused for it.
    command
        .args([
            "--sslv2",
            "--sslv3",
            "--tlsv1",
            "--tlsv1_1",
            "--tlsv1_2",
            "--tlsv1_3",
        ])
        .args([
            "--compression",
            "--early_data",
            "--fallback",
            "--heartbleed",
            "--openssl_ccs",
        ])
        .args(["--reneg", "--robot", "--elliptic_curves", "--ems"])
        .args([
            "--mozilla_config=disable",
            "--https_tunnel",
            &rig.sidecar.url(),
        ])
        .arg(format!("--json_out={}", report.display()))
        .arg("api.test:443")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    run(&mut command).await.success();
    let report = std::fs::read(report).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let results = &report["server_scan_results"][0]["scan_result"];
    let result = |check: &str| {
        let check = &results[check];
        assert_eq!(check["status"], "COMPLETED", "{check}");
        check["result"].clone()
    };
    let suites = |version: &str| {
        names(
            &result(version)["accepted_cipher_suites"],
            "/cipher_suite/name",
        )
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(
            suites(&format!("{old}_cipher_suites")),
            BTreeSet::new(),
            "{old}"
        );
    }
    // Version 5.7 of <https://ssl-config.mozilla.org/guidelines/5.7.json>, as far as a certificate on P-256 goes.
    let modern = [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ];
    assert_eq!(
        suites("tls_1_3_cipher_suites"),
        modern.map(str::to_owned).into()
    );
    let older = [
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ];
    assert_eq!(
        suites("tls_1_2_cipher_suites"),
        older.map(str::to_owned).into()
    );
    let curves = names(&result("elliptic_curves")["supported_curves"], "/name");
    assert_eq!(
        curves,
        ["X25519", "secp256r1", "secp384r1"]
            .map(str::to_owned)
            .into()
    );
    for (check, field, good) in [
        (
            "tls_compression",
            "supports_compression",
            Value::Bool(false),
        ),
        (
            "tls_1_3_early_data",
            "supports_early_data",
            Value::Bool(false),
        ),
        (
            "tls_fallback_scsv",
            "supports_fallback_scsv",
            Value::Bool(true),
        ),
        (
            "tls_extended_master_secret",
            "supports_ems_extension",
            Value::Bool(true),
        ),
        (
            "heartbleed",
            "is_vulnerable_to_heartbleed",
            Value::Bool(false),
        ),
        (
            "openssl_ccs_injection",
            "is_vulnerable_to_ccs_injection",
            Value::Bool(false),
        ),
        (
            "session_renegotiation",
            "supports_secure_renegotiation",
            Value::Bool(true),
        ),
        (
            "session_renegotiation",
            "is_vulnerable_to_client_renegotiation_dos",
            Value::Bool(false),
        ),
        (
            "robot",
            "robot_result",
            "NOT_VULNERABLE_RSA_NOT_SUPPORTED".into(),
        ),
    ] {
        assert_eq!(result(check)[field], good, "{check}: {field}");
    }
}

#[tokio::test]
async fn testssl_finds_forward_secrecy_and_none_of_the_named_attacks() {
    let (rig, url) = behind_a_door().await;
    let report = rig.sidecar.dir().join("testssl.json");
    let file = report.display().to_string();
    // Through a door: it ends the lines of its own CONNECT in LF alone, which is refused (row 21).
    let checks = ["-p", "-s", "-f", "-U", "--warnings", "batch", "--jsonfile"];
    let arguments = [&checks[..], &[&file, &url]].concat();
    tool("testssl", "testssl.sh", &arguments).await.success();
    let report = std::fs::read(report).expect("a report");
    let findings: Vec<Value> = serde_json::from_slice(&report).expect("JSON");
    let severity = |id: &str| -> Vec<&str> {
        let named = findings.iter().filter(|finding| finding["id"] == id);
        named
            .map(|finding| finding["severity"].as_str().expect("a text"))
            .collect()
    };
    for finding in &findings {
        // It cannot see for itself whether renegotiation is secure with OpenSSL 3, nor needs the engine that it looks for.
        let unseen = ["engine_problem", "secure_renego"].map(Value::from);
        let fine = ["OK", "INFO"].map(Value::from);
        assert!(
            fine.contains(&finding["severity"]) || unseen.contains(&finding["id"]),
            "{finding}"
        );
    }
    for id in [
        "SSLv2",
        "SSLv3",
        "TLS1_2",
        "TLS1_3",
        "cipherlist_NULL",
        "cipherlist_aNULL",
        "cipherlist_EXPORT",
        "cipherlist_LOW",
        "cipherlist_STRONG",
        "PFS",
        "heartbleed",
        "CCS",
        "ticketbleed",
        "ROBOT",
        "secure_client_renego",
        "CRIME_TLS",
        "POODLE_SSL",
        "SWEET32",
        "FREAK",
        "DROWN",
        "LOGJAM",
        "BEAST",
        "LUCKY13",
        "RC4",
    ] {
        assert_eq!(severity(id), ["OK"], "{id}: {findings:#?}");
    }
}

fn names(list: &Value, pointer: &str) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|item| {
            item.pointer(pointer)
                .and_then(Value::as_str)
                .expect("a name")
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn slowhttptest_does_not_keep_others_out() {
    let rig = Rig::new("  - {host: api.test, connect_to: UPSTREAM}\n").await;
    let url = rig.sidecar.url();
    // Slow heads, slow bodies, and answers that are read slowly, from 150 clients for five seconds.
    for attack in [["-H", "-i", "1"], ["-B", "-i", "1"], ["-X", "-n", "1"]] {
        let arguments = [
            &attack[..],
            &["-c", "150", "-r", "150", "-l", "5", "-p", "3", "-u", &url],
        ]
        .concat();
        let (output, served) =
            tokio::join!(tool("slowhttptest", "slowhttptest", &arguments), async {
                let mut served = 0;
                while served < 20 {
                    assert_eq!(rig.agent.get("https://api.test/").await.status, 200);
                    served += 1;
                }
                served
            });
        assert_eq!(served, 20);
        let printed = output.success().stdout;
        assert!(printed.contains("service available:"), "{printed}");
    }
    assert_eq!(
        rig.upstream.seen().len(),
        60,
        "nothing of the attacks went on"
    );
}
