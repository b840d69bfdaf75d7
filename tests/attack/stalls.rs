//! Upstreams and resolvers that stand still, or fail, at each stage of the way to an answer (row 48). Other requests and the
//! sidecar's own work go on beside them.

use std::net::Ipv4Addr;

use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::agent::Agent;
use crate::harness::command;
use crate::harness::pki::Pki;
use crate::harness::resolver::{NXDOMAIN, REFUSED, Reply, Resolver, SERVFAIL};
use crate::harness::scripted::{Scripted, request, rest, say};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Upstream, text, text_body};
use crate::harness::versions::{Client, Http};
use crate::harness::within;

const REAL: &str = "real-token-of-the-host-51d0";

#[tokio::test]
async fn row_48_an_upstream_that_stands_still_at_any_stage_is_given_up() {
    let pki = Pki::new();
    // Nobody accepts, and the queue is full: the kernel answers no further handshake.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let queue = socket.listen(0).expect("a listener");
    let deaf = queue.local_addr().expect("a bound socket");
    let _first = TcpStream::connect(deaf).await.expect("room for one");

    let mute = Scripted::start(None, |_, mut wire| async move {
        rest(&mut wire).await;
    })
    .await;
    // The head of a TLS record, and nothing in it.
    let half = Scripted::start(None, |_, mut wire| async move {
        say(&mut wire, [22, 3, 3, 0, 122, 2, 0]).await;
        rest(&mut wire).await;
    })
    .await;
    let stalled_at = async |answer: &'static str| {
        let tls = pki.server_config(&["http/1.1"]);
        Scripted::start(Some(tls), move |_, mut wire| async move {
            let head = request(&mut wire).await.expect("a request");
            assert!(head.contains(REAL));
            say(&mut wire, answer).await;
            rest(&mut wire).await;
        })
        .await
    };
    let silent = stalled_at("").await;
    let head = stalled_at("HTTP/1.1 200 OK\r\nContent-Le").await;
    let body = stalled_at("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ntwelve").await;
    let fine = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;

    let stages = [
        ("queue.test", deaf, "no connection in time"),
        ("mute.test", mute.addr(), ""),
        ("half.test", half.addr(), ""),
        ("silent.test", silent.addr(), ""),
        ("head.test", head.addr(), ""),
    ];
    let route = |host: &str, addr: std::net::SocketAddr| {
        format!(
            "- {{host: {host}, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{addr}'}}\n"
        )
    };
    let mut routes = route("body.test", body.addr()) + &route("fine.test", fine.addr());
    routes.extend(stages.iter().map(|(host, addr, _)| route(host, *addr)));
    let sidecar = ["connect", "handshake", "answer", "body"]
        .into_iter()
        .fold(
            Sidecar::with_routes(&pki, format!("routes:\n{routes}")),
            |builder, stage| builder.arg(format!("--{stage}-timeout=1")),
        )
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    let agent = Agent::of(&sidecar);
    let (agent, sidecar) = (&agent, &sidecar);
    let given_up = stages.iter().map(|(host, _, detail)| async move {
        let refusal = agent.get(&format!("https://{host}/")).await;
        refusal.assert_refused(504, "upstream_timeout");
        let line = sidecar
            .logged(&format!("\"method\":\"GET\",\"host\":\"{host}:443\""))
            .await;
        assert!(line.contains("\"code\":\"upstream_timeout\""), "{line}");
        assert!(line.contains(detail), "{line}");
    });
    let broken_off = async {
        let mut client = Client::open(agent, Http::Two, "body.test").await;
        let get = Request::get("/").body(text_body("")).expect("a request");
        let answer = client.start(get).await.expect("a head");
        assert_eq!(answer.status(), 200);
        let body = within("end of the answer", answer.into_body().collect()).await;
        assert!(body.is_err(), "it ended as if whole");
        let line = sidecar
            .logged("\"method\":\"GET\",\"host\":\"body.test:443\"")
            .await;
        assert!(line.contains("\"verdict\":\"failed\""), "{line}");
        assert!(line.contains("no byte came for too long"), "{line}");
    };
    let beside = async { agent.get("https://fine.test/").await.assert_served() };
    tokio::join!(join_all(given_up), broken_off, beside);
    // Asked once each, and where there was no TLS, for nothing.
    for (what, upstream) in [("silent", &silent), ("head", &head), ("body", &body)] {
        assert_eq!(upstream.connections(), 1, "{what}");
    }
}

#[tokio::test]
async fn row_48_a_resolver_that_fails_in_any_way_is_told_and_others_are_served() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let port = upstream.addr().port();
    let resolver = Resolver::start(
        |name| match name {
            "nowhere.test" => Reply::Code(NXDOMAIN),
            "broken.test" => Reply::Code(SERVFAIL),
            "closed.test" => Reply::Code(REFUSED),
            "empty.test" => Reply::Code(0),
            "silent.test" => Reply::Silence,
            "short.test" => Reply::Truncated,
            _ => Reply::Address(Ipv4Addr::LOCALHOST),
        },
        "timeout:1 attempts:1",
    )
    .await;
    let hosts = ["nowhere", "broken", "closed", "empty", "silent", "short"];
    let mut routes = String::from("routes:\n");
    for host in hosts.iter().chain(&["good"]) {
        routes.push_str(&format!(
            "- {{host: {host}.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{host}.test:{port}', \
             ssrf_ip_allowlist: [127.0.0.0/8]}}\n"
        ));
    }
    let builder = Sidecar::with_routes(&pki, routes).slot("EGRESS_TOKEN_0", REAL);
    let sidecar = resolver.before(builder).start().await;
    let agent = Agent::of(&sidecar);
    let (agent, sidecar) = (&agent, &sidecar);
    join_all(hosts.iter().map(|host| async move {
        let refusal = agent.get(&format!("https://{host}.test/")).await;
        refusal.assert_refused(502, "upstream_unresolved");
        let line = sidecar
            .logged(&format!("\"method\":\"GET\",\"host\":\"{host}.test:443\""))
            .await;
        assert!(line.contains("\"code\":\"upstream_unresolved\""), "{line}");
        assert!(
            line.contains("\"detail\":\"failed to lookup address"),
            "{line}"
        );
    }))
    .await;
    assert_eq!(upstream.connections(), 0);
    agent.get("https://good.test/").await.assert_served();
    assert_eq!(upstream.only().host, "good.test");
    for host in hosts {
        assert!(resolver.asked(&format!("{host}.test")) > 0, "{host}");
    }
}

/// Each look-up blocks a thread for as long as the resolver is silent, and an agent can ask for as many as it likes.
#[tokio::test]
async fn row_48_a_resolver_that_hangs_holds_up_nothing_but_its_own_names() {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .start(async |_call| text(200, "fine"))
        .await;
    let resolver = Resolver::start(|_| Reply::Silence, "timeout:30 attempts:5").await;
    let dir = tempfile::tempdir().expect("a directory");
    let slot = dir.path().join("token");
    std::fs::write(&slot, "first-value").expect("a file");
    let to = upstream.addr();
    let routes = format!(
        "routes:\n- {{host: '*.hang.test'}}\n- {{host: late.test}}\n\
         - {{host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: '{to}'}}\n"
    );
    let builder = Sidecar::with_routes(&pki, &*routes)
        .env("EGRESS_TOKEN_0_FILE", slot.display().to_string())
        .arg("--connect-timeout=2");
    let sidecar = resolver.before(builder).start().await;
    let agent = Agent::of(&sidecar);
    let (agent, rig, resolver) = (&agent, &sidecar, &resolver);
    // More than may look up names at once.
    let hanging = (0..100).map(|n| async move {
        let refusal = agent.get(&format!("https://n{n}.hang.test/")).await;
        refusal.assert_refused(504, "upstream_timeout");
    });
    let beside = async {
        within("look-ups", async {
            while resolver.names() < 16 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        agent.get("https://api.test/").await.assert_served();
        std::fs::write(&slot, "second-value").expect("a file");
        rig.write_routes(&format!("{routes}- {{host: more.hang.test}}\n"));
        let admin = format!("unix:{}", rig.admin_socket().display());
        let done = command::egress(["reload", "--admin", &admin]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        agent.get("https://api.test/").await.assert_served();
        assert_eq!(resolver.names(), 16, "no more of one route wait at once");
        let late = agent.get("https://late.test/").await;
        late.assert_refused(504, "upstream_timeout");
        assert_eq!(resolver.names(), 17, "another route has turns of its own");
    };
    tokio::join!(join_all(hanging), beside);
    let sent: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen.all("authorization").concat())
        .collect();
    assert_eq!(sent, ["Bearer first-value", "Bearer second-value"]);
    rig.logged_times("no connection in time", 101).await;
    // Threads that still wait for the resolver do not keep the process.
    let (status, log) = sidecar.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

async fn join_all(all: impl IntoIterator<Item = impl Future<Output = ()>>) {
    futures_util::future::join_all(all).await;
}

/// Whatever else a stage does, a connection that was refused is not waited for.
#[tokio::test]
async fn row_48_an_upstream_that_hangs_up_at_once_is_a_502() {
    let pki = Pki::new();
    let rude = Scripted::start(None, |_, mut wire| async move {
        let mut hello = [0; 1];
        _ = wire.read(&mut hello).await;
        crate::harness::scripted::reset(wire);
    })
    .await;
    let routes = format!(
        "routes: [{{host: api.test, connect_to: {}}}]\n",
        rude.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes).start().await;
    let refusal = Agent::of(&sidecar).get("https://api.test/").await;
    refusal.assert_refused(502, "upstream_tls");
    let line = sidecar.logged("\"code\":\"upstream_tls\"").await;
    assert!(line.contains("reset by peer"), "{line}");
}
