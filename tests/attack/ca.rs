//! The bottle's CA: who can read its key, and what a stolen one is good for (rows 37 to 39).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::process::Command;

use crate::harness::agent::Agent;
use crate::harness::clients::{files_under, system};
use crate::harness::command::{self, Done};
use crate::harness::openssl::OpenSsl;
use crate::harness::pki::{Pki, showing};
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::{EGRESS, Sidecar};
use crate::harness::upstream::{Upstream, text};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
- {host: '*.wild.test', connect_to: 'UPSTREAM'}
";

/// Somebody else on the machine.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn row_37_with_no_umask_at_all_nothing_of_the_ca_is_open_to_others() {
    let rig = Rig::with(ROUTES, |builder| builder.after("umask 0")).await;
    rig.agent.get("https://api.test/").await.assert_served();
    let ca = rig.sidecar.ca_cert();
    let ca = ca.parent().expect("a directory");
    assert_eq!(mode_of(ca), 0o700);
    assert_eq!(mode_of(&ca.join("ca-key.pem")), 0o600);
    assert_eq!(mode_of(&ca.join("ca-cert.pem")), 0o644);
    assert_eq!(files_under(ca).len(), 2, "{:?}", files_under(ca));
    assert_eq!(mode_of(&rig.sidecar.admin_socket()), 0o600);
}

/// The directory is the operator's and open to all, so that nothing but the key's own mode keeps others out, and that from
/// its first moment on: somebody else tries without a pause while keys are made.
#[tokio::test]
async fn row_37_no_other_user_can_open_a_key_at_any_moment_of_its_life() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca");
    fs::create_dir(&ca).expect("a directory");
    for open in [dir.path(), &ca] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let outcome = dir.path().join("outcome");
    fs::write(&outcome, "").expect("a file");
    chown(&outcome, Some(NOBODY), None).expect("root");
    // It ends by itself with the first key that it could read.
    let script = "cat \"$1/ca-cert.pem\" >/dev/null 2>&1; echo ready; \
                  while :; do for key in \"$1\"/ca-key.pem \"$1\"/.ca-key.pem.new; do \
                  { read -r line <\"$key\"; } 2>/dev/null && echo \"$key\" >\"$2\" && exit 1; done; done";
    let mut thief = Command::new("setpriv");
    thief
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/bin/sh",
            "-c",
            script,
            "sh",
        ])
        .arg(&ca)
        .arg(&outcome)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut thief = thief.spawn().expect("setpriv runs");
    let mut ready = [0; 6];
    let mut stdout = thief.stdout.take().expect("a pipe");
    let reading = tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut ready);
    within("the thief", reading)
        .await
        .expect("it says that it is ready");
    for _ in 0..20 {
        let line = format!(
            "umask 0 && exec {EGRESS} ca init --renew --no-name-constraints --ca-dir \"$1\""
        );
        let mut init = Command::new("/bin/sh");
        let done = command::finish(init.args(["-c", &line, "sh"]).arg(&ca)).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(mode_of(&ca.join("ca-key.pem")), 0o600);
    }
    let ended = thief.try_wait().expect("a child");
    assert!(
        ended.is_none(),
        "{:?} {ended:?}",
        fs::read_to_string(&outcome)
    );
    // And it would have been seen: with the mode gone, it is.
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(ca.join("ca-key.pem"), open).expect("a mode");
    let ended = within("the thief's success", thief.wait()).await;
    assert_eq!(ended.expect("a child").code(), Some(1));
}

#[tokio::test]
async fn row_37_an_ephemeral_key_is_never_in_a_file() {
    let home = tempfile::tempdir().expect("a directory");
    let place = home.path().display().to_string();
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let routes = crate::harness::rig::file(ROUTES, &upstream);
    let builder = ["HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"]
        .into_iter()
        .fold(
            Sidecar::with_routes(&pki, routes).slot("EGRESS_TOKEN_0", REAL),
            |builder, name| builder.env(name, &place),
        );
    let sidecar = builder.arg("--ca-ephemeral").start().await;
    let told = sidecar.told("CA")[0].to_owned();
    let certificate = BASE64_STANDARD.decode(told).expect("base64");
    let agent = Agent::trusting(&sidecar, certificate.into());
    agent.get("https://api.test/").await.assert_served();
    assert!(
        files_under(home.path()).is_empty(),
        "{:?}",
        files_under(home.path())
    );
    assert!(
        !sidecar.ca_cert().exists() && !sidecar.ca_cert().parent().expect("a directory").exists()
    );
    let mut names: Vec<_> = files_under(sidecar.dir())
        .iter()
        .map(|file| {
            file.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(names, ["routes.yaml"]);
    // Nothing is open that has no name either: pipes, sockets, and what the runtime polls with.
    let proc = format!("/proc/{}/fd", sidecar.pid().as_raw_nonzero());
    for entry in fs::read_dir(proc).expect("a running process") {
        let path = entry.expect("an entry").path();
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        let target = target.display().to_string();
        let is_known = ["pipe:", "socket:", "anon_inode:[event", "/dev/null"]
            .iter()
            .any(|known| target.starts_with(known));
        assert!(is_known, "{target}");
    }
    let (status, _) = sidecar.terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(files_under(home.path()).is_empty());
}

#[tokio::test]
async fn row_38_every_client_refuses_what_a_stolen_key_signs_for_another_host() {
    let rig = Rig::new(ROUTES).await;
    let root = rig.sidecar.ca_cert();
    let key = root.with_file_name("ca-key.pem");
    let key = KeyPair::from_pem(&fs::read_to_string(key).expect("the stolen key")).expect("a key");
    let pem = fs::read_to_string(&root).expect("a certificate");
    let stolen = Issuer::from_ca_cert_pem(&pem, key).expect("an issuer");
    let serving = async |name: &str| {
        let key = KeyPair::generate().expect("a key pair");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let leaf = params.signed_by(&key, &stolen).expect("a leaf");
        let chain = vec![
            leaf.der().clone(),
            CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate"),
        ];
        Upstream::with_tls(showing(chain, &key))
            .start(async |_call| text(200, "fine"))
            .await
    };
    let own = serving("api.test").await;
    let foreign = [
        ("foreign.test", serving("foreign.test").await),
        ("evilapi.test", serving("evilapi.test").await),
        ("127.0.0.1", serving("127.0.0.1").await),
    ];
    for client in CLIENTS {
        let done = client.connect(&root, "api.test", own.addr()).await;
        assert_eq!(done.code, Some(0), "{}: {done:?}", client.name);
        for (host, server) in &foreign {
            let done = client.connect(&root, host, server.addr()).await;
            assert_ne!(done.code, Some(0), "{}: {host}: {done:?}", client.name);
            let said = format!("{}{}", done.stdout, done.stderr).to_lowercase();
            assert!(
                said.contains(client.complaint),
                "{}: {host}: {said}",
                client.name
            );
            assert!(server.seen().is_empty(), "{}: {host}", client.name);
            assert!(
                server.connections() > 0,
                "{}: {host}: it did not even try",
                client.name
            );
        }
    }
}

/// A client with a library of its own, and what it says of a name that its issuer may not certify.
struct Client {
    name: &'static str,
    package: &'static str,
    script: &'static str,
    complaint: &'static str,
}

/// `$1` is the root's file, `$2` the host, `$3` the port, `$4` the program.
const CLIENTS: [Client; 5] = [
    Client {
        name: "openssl",
        package: "openssl",
        script: "case $2 in *[a-z]*) check=-verify_hostname;; *) check=-verify_ip;; esac; \
                 \"$4\" s_client -connect 127.0.0.1:$3 -servername host.test $check \"$2\" -verify_return_error -CAfile \"$1\" </dev/null",
        complaint: "subtree violation",
    },
    Client {
        name: "curl",
        package: "curl",
        script: "exec \"$4\" -sS --noproxy '*' --cacert \"$1\" --resolve \"$2:$3:127.0.0.1\" \"https://$2:$3/\"",
        complaint: "subtree violation",
    },
    Client {
        name: "git",
        package: "git",
        script: "exec \"$4\" -c http.proxy= -c http.sslCAInfo=\"$1\" -c http.curloptResolve=\"$2:$3:127.0.0.1\" ls-remote \"https://$2:$3/x\"",
        complaint: "certificate",
    },
    Client {
        name: "python3",
        package: "python3",
        script: "exec \"$4\" -c 'import socket, ssl, sys\n\
                 c = ssl.create_default_context(cafile=sys.argv[1])\n\
                 s = c.wrap_socket(socket.create_connection((\"127.0.0.1\", int(sys.argv[3]))), server_hostname=sys.argv[2])\n\
                 s.sendall(b\"GET / HTTP/1.0\\r\\n\\r\\n\"); assert s.recv(12).startswith(b\"HTTP/1.\")' \"$1\" \"$2\" \"$3\"",
        complaint: "subtree violation",
    },
    Client {
        name: "node",
        package: "nodejs",
        script: "exec \"$4\" -e 'const [ca, host, port] = process.argv.slice(1);\n\
                 const s = require(\"tls\").connect({ca: require(\"fs\").readFileSync(ca), host: \"127.0.0.1\", port, \
                 servername: /[a-z]/.test(host) ? host : \"\", checkServerIdentity: (_, c) => require(\"tls\").checkServerIdentity(host, c)}, \
                 () => { s.end(\"GET / HTTP/1.0\\r\\n\\r\\n\"); process.exit(0); });\n\
                 s.on(\"error\", e => { console.error(e); process.exit(1); });' \"$1\" \"$2\" \"$3\"",
        complaint: "subtree violation",
    },
];

impl Client {
    async fn connect(&self, root: &Path, host: &str, server: SocketAddr) -> Done {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", self.script, "sh"])
            // The machine's own settings may name other roots, or a proxy.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
            .env("HOME", "/nonexistent")
            .arg(root)
            .args([host, &server.port().to_string()])
            .arg(system(self.name, self.package));
        command::finish(&mut shell).await
    }
}

#[tokio::test]
async fn row_39_a_leaf_is_for_its_name_a_server_and_a_week_and_openssl_believes_it() {
    let rig = Rig::new(ROUTES).await;
    let root = rig.sidecar.ca_cert();
    let openssl = OpenSsl::new();
    let shown = openssl
        .run(&format!("x509 -noout -text -in {}", root.display()))
        .await;
    for part in [
        "X509v3 Name Constraints: critical",
        "DNS:api.test",
        "DNS:wild.test",
        "IP:0.0.0.0/0.0.0.0",
        "CA:TRUE",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let before = std::time::SystemTime::now();
    let mut serials = Vec::new();
    let mut keys = Vec::new();
    for host in ["api.test", "x.wild.test", "y.wild.test"] {
        let tunnel = rig
            .agent
            .tunnel(&format!("{host}:443"), host, &["http/1.1"])
            .await
            .expect("a tunnel");
        let chain = tunnel.get_ref().1.peer_certificates();
        let leaf = &chain.expect("a certificate")[0];
        openssl.write("leaf.der", leaf);
        openssl
            .run(&format!(
                "verify -x509_strict -purpose sslserver -verify_hostname {host} -CAfile {} leaf.der",
                root.display()
            ))
            .await;
        let text = openssl
            .run("x509 -noout -text -inform DER -in leaf.der")
            .await;
        for part in [
            &format!("DNS:{host}\n"),
            "Version: 3 (0x2)",
            "Signature Algorithm: ecdsa-with-SHA256",
            "NIST CURVE: P-256",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n",
            "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("DNS:").count(), 1, "{text}");
        let facts = openssl
            .run("x509 -noout -serial -dates -dateopt iso_8601 -inform DER -in leaf.der")
            .await;
        let fact = |name: &str| {
            let line = facts.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {facts}")).to_owned()
        };
        let (begin, end) = (seconds(&fact("notBefore=")), seconds(&fact("notAfter=")));
        let now = before
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock")
            .as_secs();
        let now = i64::try_from(now).expect("a time");
        assert!(end - begin <= 7 * 86_400, "{facts}");
        assert!(
            (now - 3600 - 60..=now - 3600 + 60).contains(&begin),
            "{facts}"
        );
        let serial = fact("serial=");
        assert!((28..=32).contains(&serial.len()), "{serial}");
        serials.push(serial);
        keys.push(
            openssl
                .run("x509 -noout -pubkey -inform DER -in leaf.der")
                .await,
        );
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 3, "{serials:?}");
    // The leaves' key is not the root's.
    let of_root = openssl
        .run(&format!("x509 -noout -pubkey -in {}", root.display()))
        .await;
    assert!(!keys.contains(&of_root));
}

/// Seconds since the epoch of `2026-11-22 14:00:00Z`.
fn seconds(time: &str) -> i64 {
    let format = time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(&time.replace(' ', "T"), &format);
    time.expect("a time").unix_timestamp()
}

fn mode_of(path: &Path) -> u32 {
    let metadata =
        fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o7777
}
