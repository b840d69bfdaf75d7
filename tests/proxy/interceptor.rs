//! smolvm's network in front of the sidecar: connections of the guest come with a token and the address that they were for.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::pki::Pki;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::{Builder, Sidecar};
use crate::harness::upstream::{Upstream, text};
use crate::harness::{command, wire, within};

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";
const NAME: &str = "SMOLVM_INTERCEPTOR_TOKEN";
const TOKEN: [u8; 32] = [0xa7; 32];

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let rig = Rig::with(ROUTES, intercepted).await;
    let good = preamble(&TOKEN, "192.0.2.1:443");
    let mut version = good.clone();
    version[8] = 2;
    let mut family = good.clone();
    family[41] = 5;
    let mut near = TOKEN;
    near[31] ^= 1;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no byte", Vec::new()),
        ("half of it", good[..20].to_vec()),
        ("no address", good[..44].to_vec()),
        ("another token", preamble(&[0; 32], "192.0.2.1:443")),
        ("a token but for a bit", preamble(&near, "192.0.2.1:443")),
        ("another version", version),
        ("another family", family),
        ("a request", b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nX-Padding: to-be-longer-than-any-preamble\r\n\r\n".to_vec()),
    ];
    let count = cases.len();
    for (what, bytes) in cases {
        let mut stream = connect(&rig).await;
        _ = stream.write_all(&bytes).await;
        _ = stream.shutdown().await;
        let mut answer = Vec::new();
        _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{what}: {answer:?}");
    }
    rig.sidecar
        .logged_times("\"code\":\"bad_preamble\"", count)
        .await;
    assert_eq!(rig.upstream.connections(), 0);
    assert!(!rig.sidecar.log().contains(&hex(&TOKEN)));
}

#[tokio::test]
async fn a_preamble_has_its_time() {
    let rig = Rig::with(ROUTES, |builder| {
        intercepted(builder).arg("--head-timeout=1")
    })
    .await;
    let mut stream = connect(&rig).await;
    let preamble = preamble(&TOKEN, "192.0.2.1:443");
    stream.write_all(&preamble[..43]).await.expect("a reader");
    let mut nothing = Vec::new();
    _ = within("the end", stream.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    rig.sidecar.logged("\"code\":\"bad_preamble\"").await;
}

#[tokio::test]
async fn another_port_is_refused_with_an_error_that_the_guest_sees() {
    let rig = Rig::with(ROUTES, intercepted).await;
    for port in [0, 1, 22, 25, 53, 81, 442, 8080, 8443, 65535] {
        let address = SocketAddr::new("192.0.2.1".parse().expect("an address"), port);
        let mut stream = connect(&rig).await;
        stream
            .write_all(&preamble(&TOKEN, &address.to_string()))
            .await
            .expect("a reader");
        let mut answer = Vec::new();
        _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert_eq!(answer, [111], "{port}");
        let line = rig.sidecar.logged(&format!("\"host\":\"{address}\"")).await;
        assert!(line.contains("port_not_allowed"), "{line}");
    }
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn the_address_opens_nothing_that_the_name_does_not() {
    let rig = Rig::with(ROUTES, intercepted).await;
    // The address of the upstream that a route has, with a name that none has.
    let address = format!("{}:443", rig.upstream.addr().ip());
    let mut stream = connect(&rig).await;
    assert_eq!(announce(&mut stream, &address).await, 0);
    let name = ServerName::try_from("evil.test").expect("a name");
    assert!(
        within("TLS", rig.agent.connector(&[]).connect(name, stream))
            .await
            .is_err()
    );
    rig.sidecar.logged("\"host\":\"evil.test:443\"").await;
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn tls_to_whatever_address_goes_where_the_name_says() {
    let rig = Rig::with(ROUTES, intercepted).await;
    for address in ["192.0.2.1:443", "127.0.0.1:443", "[2001:db8::1]:443"] {
        let mut stream = connect(&rig).await;
        assert_eq!(announce(&mut stream, address).await, 0);
        let name = ServerName::try_from("api.test").expect("a name");
        let tls = rig.agent.connector(&["http/1.1"]).connect(name, stream);
        let mut tls = within("TLS", tls).await.expect("TLS");
        let request = b"GET /v1/ HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer own\r\nConnection: close\r\n\r\n";
        wire::only(&mut tls, request).await.assert_served();
    }
    let seen = rig.upstream.seen();
    assert_eq!(seen.len(), 3);
    for seen in seen {
        assert_eq!(seen.all("authorization"), [format!("Bearer {REAL}")]);
    }
}

#[tokio::test]
async fn plain_requests_pass_with_the_payload_close_behind() {
    let pki = Pki::new();
    let upstream = Upstream::plain()
        .start(async |_call| text(200, "fine"))
        .await;
    let routes = "- {host: plain.test, scheme: http, port: 80, connect_to: 'UPSTREAM'}\n";
    let rig = Rig::around(&pki, upstream, routes, intercepted).await;
    for (host, status) in [("evil.test", "403"), ("plain.test", "200")] {
        let mut bytes = preamble(&TOKEN, "[2001:db8::1]:80");
        bytes.extend(
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let mut stream = connect(&rig).await;
        stream.write_all(&bytes).await.expect("a reader");
        let mut answer = Vec::new();
        _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert_eq!(answer[0], 0);
        let answer = String::from_utf8_lossy(&answer[1..]).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    assert_eq!(rig.upstream.only().all("host"), ["plain.test"]);
}

#[tokio::test]
async fn there_is_no_interceptor_without_a_good_token() {
    for token in [
        None,
        Some(String::new()),
        Some("a7".repeat(31)),
        Some("a7".repeat(33)),
        Some("zz".repeat(32)),
    ] {
        let builder =
            Sidecar::with_routes(&Pki::new(), "routes: []\n").arg("--interceptor=127.0.0.1:0");
        let builder = match &token {
            Some(token) => builder.env(NAME, token),
            None => builder,
        };
        let Err(failure) = builder.try_start().await else {
            panic!("it started with {token:?}")
        };
        assert_eq!(failure.status.code(), Some(2), "{failure:?}");
        assert!(failure.log.contains(NAME), "{failure:?}");
        assert!(!failure.log.contains("a7a7"), "{failure:?}");
    }
}

#[tokio::test]
async fn the_token_is_wiped_from_the_environment() {
    let rig = Rig::with(ROUTES, intercepted).await;
    let environ = std::fs::read(format!(
        "/proc/{}/environ",
        rig.sidecar.pid().as_raw_nonzero()
    ));
    match environ {
        Ok(environ) => {
            let environ = String::from_utf8_lossy(&environ);
            assert!(
                environ.contains(NAME) && !environ.contains(&hex(&TOKEN)),
                "{environ:?}"
            );
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    assert!(
        !rig.sidecar
            .status()
            .await
            .to_string()
            .contains(&hex(&TOKEN))
    );
    let help = command::egress(["serve", "--help"]).await.stdout;
    assert!(help.contains(NAME), "{help}");
}

#[tokio::test]
async fn the_token_may_come_with_the_slots_and_be_renewed() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let line = |token: &[u8; 32]| format!("{{\"{NAME}\":\"{}\"}}\n", hex(token));
    writer.write_all(line(&TOKEN).as_bytes()).expect("a reader");
    let rig = Rig::with(ROUTES, |builder| {
        builder
            .arg("--interceptor=127.0.0.1:0")
            .arg("--slots-fd=9")
            .hand(9, reader)
    })
    .await;
    assert_eq!(announce(&mut connect(&rig).await, "192.0.2.1:443").await, 0);
    writer
        .write_all(line(&[1; 32]).as_bytes())
        .expect("a reader");
    writer.write_all(b"bad\n").expect("a reader");
    rig.sidecar.logged("a line of --slots-fd is bad").await;
    let mut old = connect(&rig).await;
    old.write_all(&preamble(&TOKEN, "192.0.2.1:443"))
        .await
        .expect("a reader");
    let mut nothing = Vec::new();
    _ = within("the end", old.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    let mut new = connect(&rig).await;
    new.write_all(&preamble(&[1; 32], "192.0.2.1:443"))
        .await
        .expect("a reader");
    assert_eq!(within("a verdict", new.read_u8()).await.expect("a byte"), 0);
}

fn intercepted(builder: Builder) -> Builder {
    builder
        .arg("--interceptor=127.0.0.1:0")
        .env(NAME, hex(&TOKEN))
}

async fn connect(rig: &Rig) -> TcpStream {
    let address = rig.sidecar.told_address("INTERCEPTOR");
    TcpStream::connect(address).await.expect("a listener")
}

/// Sends the preamble, and returns the verdict.
async fn announce(stream: &mut TcpStream, address: &str) -> u8 {
    stream
        .write_all(&preamble(&TOKEN, address))
        .await
        .expect("a reader");
    within("a verdict", stream.read_u8()).await.expect("a byte")
}

fn preamble(token: &[u8; 32], address: &str) -> Vec<u8> {
    let address: SocketAddr = address.parse().expect("an address");
    let (family, octets) = match address.ip() {
        IpAddr::V4(v4) => (4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (6, v6.octets().to_vec()),
    };
    let port = address.port().to_be_bytes();
    [b"SMOLICPT\x01", &token[..], &[family], &port, &octets].concat()
}

fn hex(token: &[u8; 32]) -> String {
    token.iter().map(|byte| format!("{byte:02x}")).collect()
}
