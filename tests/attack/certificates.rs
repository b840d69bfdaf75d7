//! Row 47: upstreams whose certificate, or whose TLS, is wrong in one way each. None of them gets a byte of a request.

mod old;
mod wrong;

use rcgen::KeyPair;

use self::old::{of_openssl, sign};
use self::wrong::{Case, of_rcgen, params, with_intermediate};
use crate::harness::agent::{Agent, exchange};
use crate::harness::openssl::OpenSsl;
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Upstream, text};

const REAL: &str = "real-token-of-the-host-c3d8";

#[tokio::test]
async fn row_47_a_certificate_that_is_wrong_in_any_way_gets_nothing_and_the_log_says_why() {
    let pki = Pki::new();
    let openssl = OpenSsl::new();
    let mut cases = of_rcgen(&pki);
    cases.extend(of_openssl(&openssl).await);
    assert!(cases.len() >= 30, "{}", cases.len());
    let mut upstreams = Vec::new();
    for case in &cases {
        let upstream = Upstream::with_tls(case.server.clone());
        upstreams.push(upstream.start(async |_call| text(200, "never")).await);
    }
    let good = with_intermediate(&pki, "good.test", |_| {}, |_| {});
    let good = Upstream::with_tls(good)
        .start(async |_call| text(200, "fine"))
        .await;
    let mut routes = routes_to("good.test", &good.addr().to_string());
    for (case, upstream) in cases.iter().zip(&upstreams) {
        routes.push_str(&routes_to(&case.host, &upstream.addr().to_string()));
    }
    let mut builder = Sidecar::with_routes(&pki, format!("routes:\n{routes}"));
    for root in ["rsa.pem", "weak.pem"] {
        let file = openssl.path(root).display().to_string();
        builder = builder.arg("--upstream-ca").arg(file);
    }
    let sidecar = builder.slot("EGRESS_TOKEN_0", REAL).start().await;
    let agent = Agent::of(&sidecar);

    let mut wrong = Vec::new();
    for (case, upstream) in cases.iter().zip(&upstreams) {
        let Case {
            what, host, reason, ..
        } = case;
        let refusal = agent.get(&format!("https://{host}/")).await;
        refusal.assert_refused(502, "upstream_tls");
        // A WebSocket has a way of its own to the upstream.
        let refusal = websocket(&agent, host).await;
        assert!(refusal.starts_with("HTTP/1.1 502 "), "{what}: {refusal}");
        assert!(upstream.connections() > 0, "{what}: nobody asked");
        let seen = upstream.seen();
        assert!(seen.is_empty(), "{what}: {seen:?}");
        let needle = format!("\"host\":\"{host}:443\",\"path\":\"/\"");
        let lines = sidecar.logged_times(&needle, 2).await;
        let is_told =
            |line: &String| line.contains("\"code\":\"upstream_tls\"") && line.contains(reason);
        if !lines.iter().all(is_told) {
            wrong.push(format!("{what}: {reason}: {lines:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And the chain is a good one where nothing is wrong with it.
    agent.get("https://good.test/").await.assert_served();
    let seen = good.only();
    assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
    assert!(!sidecar.log().contains(REAL));
}

#[tokio::test]
async fn row_47_tls_that_is_old_or_weak_is_not_spoken() {
    let pki = Pki::new();
    let openssl = OpenSsl::new();
    let host = "old.test";
    let key = KeyPair::generate().expect("a key pair");
    let leaf = params(host)
        .signed_by(&key, pki.issuer())
        .expect("a signed leaf");
    openssl.write("key.pem", key.serialize_pem());
    openssl.write("leaf.pem", leaf.pem());
    openssl.run("genrsa -out rsa-key.pem 2048").await;
    sign(&openssl, "rsa-key.pem", "rsa-leaf", &pki).await;
    openssl.run("genrsa -out weak-key.pem 1024").await;
    sign(&openssl, "weak-key.pem", "weak-leaf", &pki).await;
    let ecdsa = "-cert leaf.pem -key key.pem";
    let rsa = "-cert rsa-leaf.pem -key rsa-key.pem";
    let weak = "-cert weak-leaf.pem -key weak-key.pem -cipher DEFAULT@SECLEVEL=0";
    let (version, handshake) = (
        "fatal alert: ProtocolVersion",
        "fatal alert: HandshakeFailure",
    );
    let signature = "invalid peer certificate: BadSignature";
    let cases = [
        (format!("{ecdsa} -tls1 -cipher DEFAULT@SECLEVEL=0"), version),
        (
            format!("{ecdsa} -tls1_1 -cipher DEFAULT@SECLEVEL=0"),
            version,
        ),
        // Without forward secrecy, with a MAC before the cipher, without encryption, without a certificate.
        (
            format!("{rsa} -tls1_2 -cipher AES128-GCM-SHA256"),
            handshake,
        ),
        (
            format!("{ecdsa} -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA"),
            handshake,
        ),
        (
            format!("{ecdsa} -tls1_2 -cipher ECDHE-ECDSA-NULL-SHA@SECLEVEL=0"),
            handshake,
        ),
        (format!("{ecdsa} -tls1_2 -cipher ADH@SECLEVEL=0"), handshake),
        (format!("{weak} -tls1_2"), signature),
        (format!("{weak} -tls1_3"), signature),
    ];
    let sidecar = Sidecar::with_routes(&pki, "routes: []\n")
        .slot("EGRESS_TOKEN_0", REAL)
        .arg("--no-name-constraints")
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    for (turn, (line, reason)) in cases.iter().enumerate() {
        let server = openssl.serve(line).await;
        let routes = routes_to(host, &server.addr().to_string());
        sidecar.write_routes(&format!("routes:\n{routes}"));
        sidecar.sighup();
        sidecar.logged_times("\"added\":", turn + 1).await;
        let refusal = agent.get(&format!("https://{host}/")).await;
        refusal.assert_refused(502, "upstream_tls");
        let lines = sidecar
            .logged_times("\"code\":\"upstream_tls\"", turn + 1)
            .await;
        assert!(lines[turn].contains(reason), "{line}: {}", lines[turn]);
        let said = server.said("ERROR").await;
        for sent in ["GET /", "authorization", REAL] {
            assert!(!said.contains(sent), "{line}: {said}");
        }
    }
}

fn routes_to(host: &str, addr: &str) -> String {
    format!(
        "- {{host: {host}, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{addr}'}}\n"
    )
}

async fn websocket(agent: &Agent, host: &str) -> String {
    let tunnel = agent
        .tunnel(&format!("{host}:443"), host, &["http/1.1"])
        .await;
    let handshake = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = exchange(&mut tunnel.expect("a TLS tunnel"), handshake.as_bytes()).await;
    String::from_utf8_lossy(&answer).into_owned()
}
