//! What a launcher hands to the sidecar: listening sockets, and slot values through a descriptor.

use std::io::{PipeWriter, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;

use crate::harness::agent::{Agent, read_head};
use crate::harness::pki::Pki;
use crate::harness::rig::{Rig, file};
use crate::harness::sidecar::{Builder, Sidecar};
use crate::harness::upstream::{self, Upstream};
use crate::harness::{command, within};

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: HANDED_TOKEN, connect_to: 'UPSTREAM'}
";
const FIRST: &[u8] = b"{\"HANDED_TOKEN\":\"first-value-71\"}\n";

#[tokio::test]
async fn a_descriptor_that_is_no_listening_socket_is_refused() {
    let connected = UnixStream::pair().expect("a pair").0;
    let datagrams = UnixDatagram::unbound().expect("a socket");
    let unbound = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    );
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC);
    let cases: Vec<(&str, Option<OwnedFd>, &str)> = vec![
        ("fd:0", None, "standard descriptors"),
        ("fd:1", None, "standard descriptors"),
        ("fd:2", None, "standard descriptors"),
        ("fd:7", None, "no such descriptor"),
        ("fd:65535", None, "no such descriptor"),
        ("fd:7", Some(connected.into()), "does not listen"),
        ("fd:7", Some(datagrams.into()), "no stream socket"),
        ("fd:7", Some(unbound.expect("a socket")), "does not listen"),
        ("fd:7", Some(epoll.expect("an epoll")), "no socket"),
        (
            "fd:7",
            Some(std::io::pipe().expect("a pipe").0.into()),
            "no socket",
        ),
        ("fd:", None, "number of a descriptor"),
        ("fd:-1", None, "number of a descriptor"),
        ("fd:7x", None, "number of a descriptor"),
        ("fd:70000", None, "number of a descriptor"),
    ];
    for (address, descriptor, reason) in cases {
        let mut builder = Sidecar::with_routes(&Pki::new(), "routes: []\n")
            .arg("--listen")
            .arg(address);
        if let Some(descriptor) = descriptor {
            builder = builder.hand(7, descriptor);
        }
        refused(builder, reason).await;
    }
}

#[tokio::test]
async fn a_descriptor_counts_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let builder = Sidecar::with_routes(&Pki::new(), "routes: []\n")
        .arg("--listen=fd:7")
        .arg("--listen=fd:7")
        .hand(7, listener);
    refused(builder, "named twice").await;
}

#[tokio::test]
async fn an_inherited_socket_on_a_network_is_guarded_like_any_other() {
    let sockets = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let builder = || {
        Sidecar::with_routes(&Pki::new(), "routes: []\n")
            .arg("--listen=fd:7")
            .hand(7, sockets())
    };
    refused(builder(), "is not loopback").await;
    let sidecar = builder().arg("--allow-client=192.0.2.0/24").start().await;
    let port = sidecar.told("LISTEN")[1]
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let mut turned_away = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}"))
        .await
        .expect("a listener");
    let mut nothing = Vec::new();
    _ = within("the end", turned_away.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    sidecar.logged("outside --allow-client").await;
}

#[tokio::test]
async fn inherited_sockets_serve_and_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("handed.sock");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = tcp.local_addr().expect("an address");
    let unix = UnixListener::bind(&path).expect("a socket");
    let rig = Rig::with("- {host: api.test}\n", |builder| {
        builder
            .arg("--listen=fd:7")
            .arg("--listen=fd:30")
            .hand(7, tcp)
            .hand(30, unix)
    })
    .await;
    let told = [address.to_string(), format!("unix:{}", path.display())];
    assert_eq!(rig.sidecar.told("LISTEN")[1..], told);
    let request = b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let mut over_tcp = tokio::net::TcpStream::connect(address)
        .await
        .expect("a listener");
    tokio::io::AsyncWriteExt::write_all(&mut over_tcp, request)
        .await
        .expect("a reader");
    assert!(read_head(&mut over_tcp).await.starts_with(b"HTTP/1.1 200 "));
    let mut over_unix = tokio::net::UnixStream::connect(&path)
        .await
        .expect("a listener");
    tokio::io::AsyncWriteExt::write_all(&mut over_unix, request)
        .await
        .expect("a reader");
    assert!(
        read_head(&mut over_unix)
            .await
            .starts_with(b"HTTP/1.1 200 ")
    );
    let (status, _) = rig.sidecar.terminate().await;
    assert!(status.success());
    assert!(path.exists(), "the file is its maker's");
}

#[tokio::test]
async fn the_root_is_told_before_readiness() {
    let rig = Rig::new("- {host: api.test}\n").await;
    let pem = CertificateDer::from_pem_file(rig.sidecar.ca_cert()).expect("a certificate");
    assert_eq!(rig.sidecar.told("CA")[0], BASE64_STANDARD.encode(pem));
}

#[tokio::test]
async fn without_a_good_first_line_there_is_no_start_and_no_value_is_shown() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "ended before its first line"),
        (b"\n\n", "ended before its first line"),
        (b"{\"HANDED_TOKEN\":\"hidden-9\"}", "has no end"),
        (b"hidden-9\n", "no JSON object"),
        (
            b"{\"HANDED_TOKEN\":\"hidden-9\",\"HANDED_TOKEN\":\"hidden-9\"}\n",
            "no JSON object",
        ),
        (
            b"{\"HANDED_TOKEN\":\"hidden-9 \\n\"}\n",
            "cannot stand in a header",
        ),
        (b"{\"hidden-9\":\"hidden-9\"}\n", "no JSON object"),
        (b"{\"OTHER\":\"hidden-9\"}\n", "HANDED_TOKEN is not set"),
    ];
    for (bytes, reason) in cases {
        let (builder, mut writer) = handed("127.0.0.1:1".into(), 9);
        writer.write_all(bytes).expect("a reader");
        drop(writer);
        refused(builder, reason).await;
    }
    let (builder, mut writer) = handed("127.0.0.1:1".into(), 9);
    let endless = std::thread::spawn(move || {
        let mut text = vec![b'x'; 1024 * 1024 + 2];
        text.push(b'\n');
        writer.write_all(&text)
    });
    refused(builder, "more than 1048576 bytes").await;
    _ = endless.join();
}

#[tokio::test]
async fn a_value_has_one_source() {
    for name in ["HANDED_TOKEN", "HANDED_TOKEN_FILE"] {
        let (builder, mut writer) = handed("127.0.0.1:1".into(), 9);
        writer.write_all(FIRST).expect("a reader");
        refused(builder.env(name, "elsewhere"), "in the environment").await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_no_slots_descriptor() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC);
    let builder = || Sidecar::with_routes(&Pki::new(), "routes: []\n");
    refused(
        builder().arg("--slots-fd=9").hand(9, writer),
        "nothing can be read",
    )
    .await;
    refused(
        builder()
            .arg("--slots-fd=9")
            .hand(9, epoll.expect("an epoll")),
        "nothing can be read",
    )
    .await;
    refused(builder().arg("--slots-fd=9"), "no such descriptor").await;
    refused(builder().arg("--slots-fd=2"), "are the log's").await;
    // The harness's standard input is /dev/null.
    refused(builder().arg("--slots-fd=0"), "ended before its first line").await;
    refused(builder().arg("--stop-at-eof"), "--slots-fd").await;
}

#[tokio::test]
async fn values_are_injected_rotated_and_never_lost_to_a_bad_line() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let (builder, mut writer) = with_upstream(&pki, &upstream);
    writer.write_all(FIRST).expect("a reader");
    let sidecar = builder.arg("--log").arg("trace").start().await;
    let agent = Agent::of(&sidecar);
    let last = async || {
        agent.get("https://api.test/").await.assert_served();
        upstream
            .seen()
            .pop()
            .expect("a request")
            .all("authorization")
            .join("|")
    };
    assert_eq!(last().await, "Bearer first-value-71");
    for bad in [
        "nonsense\n",
        "{\"HANDED_TOKEN\":\"\"}\n",
        "{\"HANDED_TOKEN\":\"x y\"}\n",
        "{\"HANDED_TOKEN\":7}\n",
    ] {
        writer.write_all(bad.as_bytes()).expect("a reader");
    }
    sidecar.logged_times("a line of --slots-fd is bad", 4).await;
    assert_eq!(last().await, "Bearer first-value-71");
    // Two lines in one piece, and one in two.
    writer
        .write_all(b"{\"OTHER\":\"x\"}\n{\"HANDED_TOKEN\":\"second")
        .expect("a reader");
    writer.write_all(b"-value-72\"}\nbad\n").expect("a reader");
    // Taken over before the next line is read, and not when the slots are looked at again.
    sidecar.logged_times("a line of --slots-fd is bad", 5).await;
    assert!(sidecar.log().contains("the slot's value was rotated"));
    assert_eq!(last().await, "Bearer second-value-72");
    // The same value again is none that is new.
    writer
        .write_all(b"{\"HANDED_TOKEN\":\"second-value-72\"}\nbad\n")
        .expect("a reader");
    sidecar.logged_times("a line of --slots-fd is bad", 6).await;
    sidecar.sighup();
    sidecar.logged("\"reloaded\"").await;
    assert_eq!(last().await, "Bearer second-value-72");
    let status = sidecar.status().await;
    assert_eq!(status["slots"][0]["source"], "launcher");
    // Without --stop-at-eof the end is no end.
    drop(writer);
    sidecar.logged("--slots-fd has ended").await;
    assert_eq!(last().await, "Bearer second-value-72");
    let (_, log) = sidecar.terminate().await;
    assert_eq!(log.matches("value was rotated").count(), 1, "{log}");
    for value in ["first-value", "second-value", "x y"] {
        assert!(!log.contains(value), "{log}");
    }
}

#[tokio::test]
async fn a_connection_of_the_old_value_is_closed_at_once() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let (builder, mut writer) = with_upstream(&pki, &upstream);
    writer.write_all(FIRST).expect("a reader");
    let sidecar = builder.start().await;
    Agent::of(&sidecar)
        .get("https://api.test/")
        .await
        .assert_served();
    writer
        .write_all(b"{\"HANDED_TOKEN\":\"second-value-72\"}\n")
        .expect("a reader");
    // The pooled connection, which nobody uses.
    upstream.end_of(1).await;
}

#[tokio::test]
async fn a_reload_can_use_a_slot_that_was_handed_over_since() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let (builder, mut writer) = with_upstream(&pki, &upstream);
    writer.write_all(FIRST).expect("a reader");
    let sidecar = builder.arg("--no-name-constraints").start().await;
    let routes = format!(
        "{ROUTES}- {{host: new.test, auth_scheme: token, token_env: LATER, connect_to: 'UPSTREAM'}}\n"
    );
    sidecar.write_routes(&file(&routes, &upstream));
    let admin = format!("unix:{}", sidecar.admin_socket().display());
    let done = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("LATER"), "{done:?}");
    writer
        .write_all(b"{\"LATER\":\"later-value\"}\nbad\n")
        .expect("a reader");
    sidecar.logged("a line of --slots-fd is bad").await;
    // A name that nobody knows may be misspelt.
    let line = sidecar.logged("no route names this slot").await;
    assert!(line.contains("LATER") && line.contains("WARN"), "{line}");
    assert!(!line.contains("later-value"), "{line}");
    let done = command::egress(["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    Agent::of(&sidecar)
        .get("https://new.test/")
        .await
        .assert_served();
    assert_eq!(upstream.only().all("authorization"), ["token later-value"]);
}

#[tokio::test]
async fn the_sidecar_ends_with_its_launcher() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"{}\n").expect("a reader");
    let sidecar = Sidecar::with_routes(&Pki::new(), "routes: []\n")
        .arg("--slots-fd=9")
        .arg("--stop-at-eof")
        .hand(9, reader)
        .start()
        .await;
    drop(writer);
    let (status, log) = sidecar.exit().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn slots_come_through_a_socket_too() {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    ours.write_all(FIRST).expect("a reader");
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let sidecar = Sidecar::with_routes(&pki, file(ROUTES, &upstream))
        .arg("--slots-fd=9")
        .hand(9, theirs)
        .start()
        .await;
    Agent::of(&sidecar)
        .get("https://api.test/")
        .await
        .assert_served();
    assert_eq!(
        upstream.only().all("authorization"),
        ["Bearer first-value-71"]
    );
}

/// A sidecar about to start, whose slots come from the pipe.
fn with_upstream(pki: &Pki, upstream: &Upstream) -> (Builder, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let builder = Sidecar::with_routes(pki, file(ROUTES, upstream))
        .arg("--slots-fd=9")
        .hand(9, reader);
    (builder, writer)
}

fn handed(upstream: String, number: i32) -> (Builder, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let routes = format!("routes:\n{}", ROUTES.replace("UPSTREAM", &upstream));
    let builder = Sidecar::with_routes(&Pki::new(), routes)
        .arg(format!("--slots-fd={number}"))
        .hand(number, reader);
    (builder, writer)
}

async fn refused(builder: Builder, reason: &str) {
    let Err(failure) = builder.try_start().await else {
        panic!("it started: {reason}")
    };
    assert_eq!(failure.status.code(), Some(2), "{reason}: {failure:?}");
    assert!(failure.log.contains(reason), "{reason}: {failure:?}");
    assert!(!failure.log.contains("hidden-9"), "{failure:?}");
}
