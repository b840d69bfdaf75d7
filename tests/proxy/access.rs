//! Who may use the proxy: loopback, named networks, clients with a password, and whoever can open its Unix socket.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::harness::agent::{exchange, read_head};
use crate::harness::command;
use crate::harness::rig::{REAL, Rig};
use crate::harness::wire;
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn a_listener_that_a_network_reaches_needs_a_guard() {
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.2:0",
        "[::ffff:0.0.0.0]:0",
        "[fd00::2]:0",
    ] {
        let done = command::egress([
            "serve",
            "--routes",
            "none.yaml",
            "--listen",
            "127.0.0.1:0",
            "--listen",
            address,
        ])
        .await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains("not loopback"), "{done:?}");
        assert!(
            done.stderr.contains("hint: ") && done.stderr.contains("--allow-client"),
            "{done:?}"
        );
    }
    for admin in ["0.0.0.0:0", "192.0.2.2:9000", "unix:"] {
        let done = command::egress(["serve", "--routes", "none.yaml", "--admin", admin]).await;
        assert_eq!(done.code, Some(2), "{done:?}");
    }
}

#[tokio::test]
async fn a_client_without_a_password_is_asked_for_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("clients");
    fs::write(&file, "agent:pass-word-one\nother:pass:word:two\n").expect("a file");
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--client-auth-file")
            .arg(file.display().to_string())
    })
    .await;
    let basic = |pair: &str| {
        format!(
            "Proxy-Authorization: Basic {}\r\n",
            BASE64_STANDARD.encode(pair)
        )
    };
    let refused = [
        String::new(),
        basic("agent:wrong"),
        basic("agent:"),
        basic("agent"),
        basic(":pass-word-one"),
        basic("other:pass"),
        basic("agent:pass-word-one\n"),
        basic("agent:pass-word-one").replace("Basic", "Bearer"),
        basic("agent:pass-word-one").replace("Proxy-Authorization", "Authorization"),
        format!("{}{}", basic("agent:pass-word-one"), basic("agent:wrong")),
        "Proxy-Authorization: Basic\r\n".into(),
        "Proxy-Authorization: Basic !!!!\r\n".into(),
    ];
    for field in &refused {
        for head in [
            format!("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n{field}\r\n"),
            // It is not said which hosts there are to one who may not ask.
            format!("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n{field}\r\n"),
            format!(
                "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{field}\r\n"
            ),
            format!("GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{field}\r\n"),
        ] {
            let refusal = rig.outer(&head).await;
            refusal.assert_refused(407, "client_auth_required");
            assert_eq!(
                refusal.headers["proxy-authenticate"], "Basic realm=\"egress\"",
                "{head}"
            );
        }
    }
    assert_eq!(rig.upstream.connections(), 0);
    for pair in ["agent:pass-word-one", "other:pass:word:two"] {
        let field = basic(pair);
        let plain = format!(
            "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{field}\r\n"
        );
        rig.outer(plain)
            .await
            .assert_refused(403, "port_not_allowed");
        let mut stream = rig.agent.raw().await;
        let head = format!("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n{field}\r\n");
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the sidecar reads");
        let answer = within("answer to CONNECT", read_head(&mut stream)).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let name = "api.test".try_into().expect("a server name");
        let mut tunnel = within(
            "handshake",
            rig.agent.connector(&["http/1.1"]).connect(name, stream),
        )
        .await
        .expect("TLS");
        // Inside, the password is not asked for, and never passed on.
        let head = format!("GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{field}\r\n");
        wire::only(&mut tunnel, head.as_bytes())
            .await
            .assert_served();
        let seen = rig.upstream.seen().pop().expect("a request");
        assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
        assert!(seen.all("proxy-authorization").is_empty());
    }
    let (_, log) = rig.sidecar.terminate().await;
    assert!(log.contains("client_auth_required"));
    for secret in [
        "pass-word-one",
        "word:two",
        &BASE64_STANDARD.encode("agent:pass-word-one"),
    ] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn a_file_of_clients_without_a_client_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let routes = dir.path().join("routes.yaml");
    fs::write(&routes, "routes: []\n").expect("a file");
    let file = dir.path().join("clients");
    for content in [
        None,
        Some(""),
        Some("\n\n"),
        Some("no-colon-secret\n"),
        Some("a:b\nno-colon-secret\n"),
    ] {
        if let Some(content) = content {
            fs::write(&file, content).expect("a file");
        }
        let done = command::egress([
            "serve",
            "--ca-ephemeral",
            "--listen",
            "127.0.0.1:0",
            "--routes",
            &routes.display().to_string(),
            "--client-auth-file",
            &file.display().to_string(),
        ])
        .await;
        assert_eq!(done.code, Some(2), "{content:?}: {done:?}");
        assert!(
            done.stderr.contains(&file.display().to_string()),
            "{done:?}"
        );
        assert!(!done.stderr.contains("secret"), "{done:?}");
    }
}

#[tokio::test]
async fn a_unix_socket_takes_clients_and_goes_with_the_sidecar() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("proxy.sock");
    // Left behind by a sidecar that was killed.
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--listen")
            .arg(format!("unix:{}", path.display()))
    })
    .await;
    let mut stream = UnixStream::connect(&path).await.expect("a listener");
    let refusal = wire::only(
        &mut stream,
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
    )
    .await;
    refusal.assert_refused(403, "host_not_allowed");
    let logged = rig.sidecar.logged("evil.test:443").await;
    assert!(logged.contains("\"client\":\"unix\""), "{logged}");
    let mut stream = UnixStream::connect(&path).await.expect("a listener");
    stream
        .write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
        .await
        .expect("the sidecar reads");
    assert!(
        within("answer", read_head(&mut stream))
            .await
            .starts_with(b"HTTP/1.1 200 ")
    );
    let name = "api.test".try_into().expect("a server name");
    let mut tunnel = within(
        "handshake",
        rig.agent.connector(&["http/1.1"]).connect(name, stream),
    )
    .await
    .expect("TLS");
    let answer = wire::only(
        &mut tunnel,
        b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    answer.assert_served();
    assert_eq!(
        rig.upstream.only().all("authorization"),
        [format!("Bearer {REAL}")]
    );
    drop(tunnel);
    rig.sidecar.terminate().await;
    assert!(!path.exists());
}

/// A listener on every address is one that a network reaches, also by loopback. One on loopback alone is not guarded.
#[tokio::test]
async fn a_client_outside_the_named_networks_is_turned_away() {
    for (network, admitted) in [("198.51.100.0/24", false), ("127.0.0.0/8", true)] {
        let rig = Rig::with(ROUTES, |builder| {
            builder
                .arg("--listen")
                .arg("0.0.0.0:0")
                .arg("--allow-client")
                .arg(network)
        })
        .await;
        let line = rig.sidecar.logged("\"address\":\"0.0.0.0:").await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
        let address: SocketAddr = line["address"]
            .as_str()
            .expect("a text")
            .parse()
            .expect("an address");
        let address = (Ipv4Addr::LOCALHOST, address.port());
        let mut stream = TcpStream::connect(address).await.expect("a listener");
        let head = b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n";
        if admitted {
            wire::only(&mut stream, head)
                .await
                .assert_refused(403, "host_not_allowed");
        } else {
            assert!(exchange(&mut stream, head).await.is_empty());
            for _ in 0..60 {
                let mut again = TcpStream::connect(address).await.expect("a listener");
                assert!(exchange(&mut again, head).await.is_empty());
            }
            let lines = rig.sidecar.logged_times("turned away", 20).await;
            // 20 at once, and one for each second that the test took.
            assert!(lines.len() < 50, "{}", lines.len());
        }
        // The listener on loopback asks nobody.
        rig.agent.get("https://api.test/").await.assert_served();
    }
}
