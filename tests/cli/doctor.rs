//! `egress doctor`: a healthy sandbox and a healthy host, and then one break after the other, each of which has its own
//! line and what mends it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::chatgpt::{self, access_token, unix_now};
use crate::harness::clients::{self, Home, system};
use crate::harness::command;
use crate::harness::network::Network;
use crate::harness::pki::Pki;
use crate::harness::refusing;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::EGRESS;
use crate::harness::upstream::{self, Call, Upstream};

const ROUTES: &str =
    "- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}\n";

const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What `egress doctor` found: each line's state, text and hint, by the check's name.
struct Found {
    code: Option<i32>,
    checks: BTreeMap<String, [String; 3]>,
    printed: String,
}

impl Found {
    async fn by(command: &mut Command) -> Self {
        let output = clients::run(command.args(["--format", "json"])).await;
        let json: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:#?}"));
        assert_eq!(json["version"], 1);
        assert_eq!(json["ok"], output.status.success());
        let mut checks = BTreeMap::new();
        for check in json["checks"].as_array().expect("a list") {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            let line = [text("state"), text("text"), text("hint")];
            // Of two lines of one check the worse one counts.
            let is_better = |old: &[String; 3]| old[0] != "fail";
            if checks.get(&text("name")).is_none_or(is_better) {
                checks.insert(text("name"), line);
            }
        }
        Self {
            code: output.status.code(),
            checks,
            printed: output.stdout + &output.stderr,
        }
    }

    /// Fails unless this check failed, saying so much, and with this mend; and with it the command.
    #[track_caller]
    fn assert_failed(&self, name: &str, text: &str, hint: &str) {
        let line = self.checks.get(name);
        let is_so = line.is_some_and(|[state, said, mend]| {
            state == "fail" && said.contains(text) && mend.contains(hint)
        });
        assert!(is_so, "{name}: {text}; {hint}: {}", self.printed);
        assert_eq!(self.code, Some(1), "{}", self.printed);
    }

    /// Fails unless these checks came out well.
    #[track_caller]
    fn assert_well(&self, names: &[&str]) {
        for name in names {
            let state = self.checks.get(*name).map(|line| &*line[0]);
            assert_eq!(state, Some("ok"), "{name}: {}", self.printed);
        }
    }

    /// Fails where a check failed, or another than those of `may_warn` has something to say.
    #[track_caller]
    fn assert_healthy(&self, may_warn: &[&str]) {
        for (name, [state, ..]) in &self.checks {
            let is_well = state == "ok" || (state == "warn" && may_warn.contains(&name.as_str()));
            assert!(is_well, "{name}: {}", self.printed);
        }
        assert_eq!(self.code, Some(0), "{}", self.printed);
    }
}

/// Variables and arguments, and the check that fails with them, what it says and the hint.
type Break<'a> = (Vec<(&'a str, String)>, &'a str, [&'a str; 3]);

/// A sandbox: a sidecar, and a home whose environment leads to it.
struct Sandbox {
    rig: Rig,
    home: Home,
}

impl Sandbox {
    async fn new() -> Self {
        let pki = Pki::new();
        // Codex asks by HEAD, to which there is no body.
        let answering = async |call: Call| match call.seen.method {
            Method::HEAD => upstream::text(200, ""),
            _ => upstream::text(200, "fine"),
        };
        let upstream = Upstream::tls(&pki).start(answering).await;
        let rig = Rig::around(&pki, upstream, ROUTES, |builder| builder).await;
        let home = Home::behind(&rig.sidecar);
        Self { rig, home }
    }

    /// The doctor, where no client is found.
    fn doctor(&self) -> Command {
        let mut doctor = self.doctor_without_host();
        doctor.args(["--host", "api.test"]);
        doctor
    }

    fn doctor_without_host(&self) -> Command {
        let mut doctor = self.home.command(EGRESS);
        doctor.arg("doctor").env("PATH", "/nonexistent");
        doctor
    }

    /// The doctor, where each client is found.
    async fn doctor_with_clients(&self) -> Command {
        let python = clients::python().await;
        let mut path = vec![python.parent().expect("a directory").to_owned()];
        for (program, package) in [("curl", "curl"), ("git", "git"), ("node", "nodejs")] {
            let program = system(program, package);
            path.push(program.parent().expect("a directory").to_owned());
        }
        let codex = clients::node_program("codex").await;
        path.push(codex.parent().expect("a directory").to_owned());
        // What git and the interpreters start in turn.
        path.extend(["/usr/bin", "/bin"].map(PathBuf::from));
        let mut doctor = self.doctor();
        doctor.env("PATH", std::env::join_paths(path).expect("a path"));
        doctor
    }
}

#[tokio::test]
async fn a_healthy_sandbox_has_nothing_to_mend_and_each_client_trusts_it() {
    let sandbox = Sandbox::new().await;
    let found = Found::by(&mut sandbox.doctor_with_clients().await).await;
    // The machine's Node may be too old to know a proxy, and the test's sandbox has the machine's network.
    found.assert_healthy(&["proxy.node", "box.route"]);
    found.assert_well(&[
        "proxy.variables",
        "proxy.bypass",
        "proxy.answer",
        "tunnel",
        "ca.bundle",
        "client.curl",
        "client.git",
        "client.node",
        "client.python",
        "client.requests",
        "client.codex",
        "clock",
        "clock.upstream",
        "box.credentials",
        "box.codex",
        "box.ca_key",
        "box.admin",
    ]);
    // The clients were there for real, and a refusal is as good an answer.
    let seen = sandbox.rig.upstream.seen();
    let agents: String = seen
        .iter()
        .flat_map(|seen| seen.all("user-agent"))
        .collect();
    for client in ["curl/", "git/", "Python-urllib", "python-requests"] {
        assert!(agents.contains(client), "{client}: {agents}");
    }
    assert!(seen.iter().any(|seen| seen.path() == "/responses"), "Codex");
}

#[tokio::test]
async fn a_client_that_trusts_another_ca_is_named() {
    let sandbox = Sandbox::new().await;
    let other = Pki::new().ca_file();
    for (variables, client) in [
        (&["CURL_CA_BUNDLE"][..], "client.curl"),
        (&["GIT_SSL_CAINFO"], "client.git"),
        (&["NODE_EXTRA_CA_CERTS"], "client.node"),
        (&["SSL_CERT_FILE"], "client.python"),
        (&["REQUESTS_CA_BUNDLE"], "client.requests"),
        // Codex trusts both.
        (&["CODEX_CA_CERTIFICATE", "SSL_CERT_FILE"], "client.codex"),
    ] {
        let mut doctor = sandbox.doctor_with_clients().await;
        doctor.envs(variables.iter().map(|name| (name, other.path())));
        let found = Found::by(&mut doctor).await;
        let untrusting = "does not trust what it is shown for api.test";
        found.assert_failed(client, untrusting, variables[0]);
        for name in variables {
            let text = "does not hold the root of what the proxy shows";
            found.assert_failed(&format!("ca.{name}"), text, "egress ca bundle");
        }
    }
}

#[tokio::test]
async fn each_break_of_a_sandbox_has_its_own_line_and_mend() {
    let sandbox = Sandbox::new().await;
    let (_held, refusing) = refusing();
    let foreign = foreign_server().await;
    let listening = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let probe = listening.local_addr().expect("a bound socket");
    let probe = format!("--probe-direct {probe}");
    let files = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    };
    file("keys/ca-key.pem", "a key");
    file(
        "login/auth.json",
        &chatgpt::login(&access_token(unix_now() + 3600)).to_string(),
    );
    file("broken.pem", "no PEM");
    let path = |name: &str| files.path().join(name).display().to_string();
    let admin = format!("unix:{}", sandbox.rig.sidecar.admin_socket().display());
    let all = |url: String| PROXY_VARIABLES.map(|name| (name, url.clone())).to_vec();
    let one = |name: &'static str, value: &str| vec![(name, value.to_owned())];

    let breaks: Vec<Break<'_>> = vec![
        (
            all(format!("http://{refusing}")),
            "",
            ["proxy.answer", "nothing answers at", "egress serve"],
        ),
        (
            all(format!("http://{foreign}")),
            "",
            [
                "proxy.answer",
                "something else than a sidecar",
                "look what listens there",
            ],
        ),
        (
            all("127.0.0.1:8080".into()),
            "",
            [
                "proxy.variables",
                "does not begin with http://",
                "write http://HOST:PORT",
            ],
        ),
        (
            one("https_proxy", "http://127.0.0.1:1"),
            "",
            [
                "proxy.variables",
                "http://127.0.0.1:1 in https_proxy",
                "egress env",
            ],
        ),
        (
            one("no_proxy", "localhost,.test"),
            "",
            [
                "proxy.bypass",
                "around the proxy for api.test",
                "egress env",
            ],
        ),
        (
            one("CURL_CA_BUNDLE", "/nonexistent/bundle.pem"),
            "",
            [
                "ca.CURL_CA_BUNDLE",
                "/nonexistent/bundle.pem: no such file",
                "egress ca bundle",
            ],
        ),
        (
            one("PIP_CERT", &path("broken.pem")),
            "",
            ["ca.PIP_CERT", "is no bundle", "egress ca bundle"],
        ),
        (
            vec![],
            "--host other.test",
            ["tunnel", "403 host_not_allowed", "--host"],
        ),
        (
            vec![],
            &probe,
            [
                "box.direct",
                "leaves without the sidecar",
                "no route but the one",
            ],
        ),
        (
            one("MY_TOKEN", "ghp_geheim0123456789"),
            "",
            ["box.credentials", "no placeholder: MY_TOKEN", "as a slot"],
        ),
        (
            one("CODEX_HOME", &path("login")),
            "",
            ["box.codex", "holds a real login", "egress codex dummy-auth"],
        ),
        (
            one("EGRESS_CA_DIR", &path("keys")),
            "",
            ["box.ca_key", "keys/ca-key.pem", "the bundle alone"],
        ),
        (
            one("EGRESS_ADMIN", &admin),
            "",
            ["box.admin", "admin socket answers", "out of the sandbox"],
        ),
    ];
    for (variables, arguments, [name, text, hint]) in breaks {
        let mut doctor = match arguments.contains("--host") {
            true => sandbox.doctor_without_host(),
            false => sandbox.doctor(),
        };
        doctor.args(arguments.split_whitespace());
        let found = Found::by(doctor.envs(variables)).await;
        found.assert_failed(name, text, hint);
        assert!(!found.printed.contains("geheim"), "{}", found.printed);
        let failed = found.checks.iter().filter(|(_, line)| line[0] == "fail");
        assert_eq!(failed.count(), 1, "{name} alone: {}", found.printed);
    }
}

#[tokio::test]
async fn a_clock_that_is_off_has_its_own_line_and_mend() {
    let sandbox = Sandbox::new().await;
    let mut faketime = sandbox.home.command(system("faketime", "faketime"));
    faketime.args(["-f", "-10m", EGRESS, "doctor", "--host", "api.test"]);
    let found = Found::by(faketime.env("PATH", "/usr/bin:/bin:/nonexistent")).await;
    found.assert_failed("clock", "behind the sidecar's", "timedatectl");
}

#[tokio::test]
async fn a_sidecar_that_asks_for_a_password_is_told_from_one_that_does_not_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let passwords = dir.path().join("passwords");
    std::fs::write(&passwords, "agent:word-of-the-agent\n").expect("a file");
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--client-auth-file")
            .arg(passwords.display().to_string())
    })
    .await;
    let sandbox = Sandbox {
        home: Home::behind(&rig.sidecar),
        rig,
    };
    let found = Found::by(&mut sandbox.doctor()).await;
    found.assert_failed(
        "proxy.answer",
        "asks for a user and a password",
        "USER:PASSWORD",
    );
    let url = format!(
        "http://agent:word-of-the-agent@{}",
        sandbox.rig.sidecar.addr()
    );
    let variables = PROXY_VARIABLES.map(|name| (name, &url));
    let found = Found::by(sandbox.doctor().envs(variables)).await;
    found.assert_well(&["proxy.answer", "tunnel", "ca.bundle"]);
    assert!(
        !found.printed.contains("word-of-the-agent"),
        "{}",
        found.printed
    );
}

#[tokio::test]
async fn a_healthy_host_has_nothing_to_mend_and_each_break_its_own_line_and_mend() {
    let network = Network::new(|name, _| match name {
        "here.test" => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        _ => vec![],
    })
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    let expired = access_token(unix_now() - 60);
    let good = "- {host: here.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}\n- {host: '*.cdn.test'}\n";
    let found = on_host(&network, dir.path(), good, Some(REAL)).await;
    found.assert_healthy(&[]);
    found.assert_well(&["slot.EGRESS_TOKEN_0", "hosts"]);
    assert!(!found.printed.contains(REAL), "{}", found.printed);

    let elsewhere = "- {host: here.test}\n- {host: nowhere.test}\n";
    for (routes, slot, [name, text, hint]) in [
        (
            good,
            None,
            ["slot.EGRESS_TOKEN_0", "is not set", "EGRESS_TOKEN_0_FILE"],
        ),
        (
            good,
            Some(&*expired),
            ["slot.EGRESS_TOKEN_0", "has expired", "renew the credential"],
        ),
        (
            elsewhere,
            None,
            ["hosts", "nowhere.test does not resolve", "connect_to"],
        ),
        (
            "- {hots: here.test}\n",
            None,
            ["routes", "faults: 1", "egress check"],
        ),
    ] {
        let found = on_host(&network, dir.path(), routes, slot).await;
        found.assert_failed(name, text, hint);
        // Of a file that cannot be read nothing is known, least of all that it injects nothing.
        let slots = found.checks.get("slots").map(|line| &*line[0]);
        assert_ne!(
            slots.filter(|_| name == "routes"),
            Some("ok"),
            "{}",
            found.printed
        );
    }
}

#[tokio::test]
async fn a_running_sidecar_tells_its_slots_its_routes_and_its_confinement() {
    let rig = Rig::new(ROUTES).await;
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let of = |arguments: &[&str]| {
        let mut doctor = Command::new(EGRESS);
        doctor.arg("doctor").args(arguments).env_clear();
        doctor
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        doctor
    };
    let doctor = |address: &str| of(&["--admin", address]);
    let found = Found::by(&mut doctor(&admin)).await;
    // What the kernel of the machine has is not this test's business.
    found.assert_healthy(&["sidecar.confinement"]);
    found.assert_well(&[
        "sidecar.admin",
        "sidecar.routes",
        "ca.end",
        "slot.EGRESS_TOKEN_0",
        "hosts",
    ]);
    let named = Found::by(of(&[]).env("EGRESS_ADMIN", &admin)).await;
    named.assert_well(&["sidecar.admin", "slot.EGRESS_TOKEN_0"]);
    let wrong = command::finish(of(&[]).env("EGRESS_ADMIN", "nowhere")).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("EGRESS_ADMIN"), "{wrong:?}");

    rig.sidecar.write_routes("routes: [{hots: api.test}]\n");
    rig.sidecar.sighup();
    rig.sidecar.logged("not reloaded").await;
    let found = Found::by(&mut doctor(&admin)).await;
    found.assert_failed("sidecar.routes", "the last reload failed", "egress reload");

    let found = Found::by(&mut doctor("unix:/nonexistent/admin.sock")).await;
    found.assert_failed("sidecar.admin", "cannot ask the sidecar", "is it running");
}

#[tokio::test]
async fn with_nothing_to_examine_it_says_what_it_needs() {
    let done = command::egress(["doctor"]).await;
    assert_eq!((done.code, &*done.stdout), (Some(2), ""), "{done:?}");
    for part in ["error: there is nothing to examine", "hint: ", "--admin"] {
        assert!(done.stderr.contains(part), "{done:?}");
    }
}

/// Examines a routes file of these items, in a network of its own.
async fn on_host(network: &Network, dir: &Path, routes: &str, slot: Option<&str>) -> Found {
    let file = dir.join("routes.yaml");
    std::fs::write(&file, format!("routes:\n{routes}")).expect("a file");
    let enter = network.enter();
    let mut doctor = Command::new(&enter[0]);
    doctor
        .args(&enter[1..])
        .arg("/usr/bin/env")
        .arg("-i")
        .args(slot.map(|value| format!("EGRESS_TOKEN_0={value}")))
        .args([EGRESS, "doctor", "-r"])
        .arg(file)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Found::by(&mut doctor).await
}

/// A server that speaks HTTP and is no sidecar.
async fn foreign_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            _ = stream.read(&mut request).await;
            _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    });
    address
}
