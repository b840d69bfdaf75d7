//! Who is shown the page, by what each request says of itself. What a browser makes of it is tested in tests/ui.rs.

use std::os::unix::fs::PermissionsExt;

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::harness::agent::{Answer, exchange, read_until};
use crate::harness::command::{self, Done};
use crate::harness::rig::Rig;
use crate::harness::sidecar::Sidecar;
use crate::harness::wire;

const ROUTES: &str =
    "- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}\n";

/// A sidecar with a page, and a browser that may read it.
struct Scene {
    rig: Rig,
    cookie: String,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::with(ROUTES, |builder| builder.arg("--ui=127.0.0.1:0")).await;
        let cookie = opened(&rig.sidecar, &first_ticket(&rig.sidecar).await).await;
        Self { rig, cookie }
    }

    /// What a request with the cookie gets, and with these further lines in its head.
    async fn ask(&self, request: &str, lines: &str) -> Answer {
        let cookie = &self.cookie;
        ask(
            &self.rig.sidecar,
            request,
            &format!("Cookie: {cookie}\r\n{lines}"),
        )
        .await
    }

    /// The same for a button of the page.
    async fn press(&self, path: &str) -> Answer {
        let own = format!("Origin: http://{HOST}\r\nSec-Fetch-Site: same-origin\r\n");
        self.ask(&format!("POST {path}"), &own).await
    }

    async fn reloads(&self) -> Value {
        self.rig.sidecar.status().await["counters"]["reloads"].clone()
    }
}

/// The name that the tests call the page by: a forwarded port is another one than the sidecar's.
const HOST: &str = "localhost:9999";

async fn ask(sidecar: &Sidecar, request: &str, lines: &str) -> Answer {
    asked_as(sidecar, HOST, request, lines).await
}

async fn asked_as(sidecar: &Sidecar, host: &str, request: &str, lines: &str) -> Answer {
    let stream = TcpStream::connect(sidecar.told_address("UI")).await;
    told(&mut stream.expect("a page"), host, request, lines).await
}

async fn told<S>(stream: &mut S, host: &str, request: &str, lines: &str) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = format!("{request} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    wire::only(stream, text.as_bytes()).await
}

/// The path and query of the address in the log.
async fn first_ticket(sidecar: &Sidecar) -> String {
    let line = sidecar.logged("this address opens the page once").await;
    let line: Value = serde_json::from_str(&line).expect("a line of JSON");
    let url = line["url"].as_str().expect("an address");
    let address = format!("http://{}", sidecar.told("UI")[0]);
    url.strip_prefix(&address)
        .expect("the page's address")
        .to_owned()
}

/// Opens the page, and returns the cookie.
async fn opened(sidecar: &Sidecar, ticket: &str) -> String {
    cookie_of(&ask(sidecar, &format!("GET {ticket}"), "").await)
}

fn cookie_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.headers["location"], "/");
    let cookie = answer.headers["set-cookie"].to_str().expect("text");
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(
        attributes,
        "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
    );
    pair.to_owned()
}

async fn egress_ui(sidecar: &Sidecar) -> Done {
    let admin = format!("unix:{}", sidecar.admin_socket().display());
    command::egress(["ui", "--admin", &admin]).await
}

fn assert_closed(answer: &Answer) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.text().contains("egress ui --admin"), "{answer:?}");
    assert!(!answer.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn the_page_opens_once_by_each_address_and_not_without_one() {
    let rig = Rig::with(ROUTES, |builder| builder.arg("--ui=127.0.0.1:0")).await;
    let sidecar = &rig.sidecar;
    let ticket = first_ticket(sidecar).await;
    assert!(ticket.len() > 43, "256 bits");
    for path in [
        "/",
        "/page.js",
        "/status",
        "/events",
        "/?token=",
        "/?token=x",
        "/?x=1",
    ] {
        assert_closed(&ask(sidecar, &format!("GET {path}"), "").await);
    }
    assert_closed(&ask(sidecar, "POST /reload?digest=x", "").await);
    // Neither another method nor another path takes a ticket.
    assert_closed(&ask(sidecar, &format!("POST {ticket}"), "").await);
    assert_closed(&ask(sidecar, &format!("GET /status{}", &ticket[1..]), "").await);
    opened(sidecar, &ticket).await;
    assert_closed(&ask(sidecar, &format!("GET {ticket}"), "").await);

    let done = egress_ui(sidecar).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let address = format!("http://{}/?token=", sidecar.told("UI")[0]);
    let ticket = done
        .stdout
        .trim()
        .strip_prefix(&address)
        .expect("an address");
    let cookie = opened(sidecar, &format!("/?token={ticket}")).await;
    let page = ask(sidecar, "GET /", &format!("Cookie: x=1; {cookie}\r\n")).await;
    assert_eq!(page.status, 200);
    assert!(page.text().starts_with("<!doctype html>"));
    let short = &cookie[..cookie.len() - 1];
    assert_closed(&ask(sidecar, "GET /", &format!("Cookie: {short}\r\n")).await);
    // A ticket is no cookie.
    let name = cookie.split('=').next().expect("a name");
    let unused = egress_ui(sidecar).await.stdout;
    let unused = unused.trim().strip_prefix(&address).expect("an address");
    assert_closed(&ask(sidecar, "GET /", &format!("Cookie: {name}={unused}\r\n")).await);
}

#[tokio::test]
async fn a_browser_too_many_takes_the_place_of_the_first() {
    let scene = Scene::new().await;
    let sidecar = &scene.rig.sidecar;
    let mut last = String::new();
    for _ in 0..8 {
        let done = egress_ui(sidecar).await;
        let (_, ticket) = done.stdout.trim().split_once("/?").expect("an address");
        last = opened(sidecar, &format!("/?{ticket}")).await;
    }
    assert_closed(&scene.ask("GET /", "").await);
    let answer = ask(sidecar, "GET /", &format!("Cookie: {last}\r\n")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn every_answer_keeps_to_itself() {
    let scene = Scene::new().await;
    let sidecar = &scene.rig.sidecar;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let answers = [
        scene.ask("GET /", "").await,
        scene.ask("GET /page.css", "").await,
        scene.ask("GET /page.js", "").await,
        scene.ask("GET /status", "").await,
        scene.ask("GET /routes", "").await,
        scene.ask("GET /refusals", "").await,
        scene.ask("GET /nothing", "").await,
        scene.ask("DELETE /", "").await,
        ask(sidecar, "GET /", "").await,
        asked_as(sidecar, "evil.test", "GET /", "").await,
    ];
    let statuses = [200, 200, 200, 200, 200, 200, 404, 403, 403, 421];
    for (answer, status) in answers.iter().zip(statuses) {
        assert_eq!(answer.status, status, "{answer:?}");
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.headers[name], value, "{answer:?}");
        }
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn another_name_for_loopback_is_not_answered() {
    let scene = Scene::new().await;
    let sidecar = &scene.rig.sidecar;
    let cookie = format!("Cookie: {}\r\n", scene.cookie);
    for host in [
        "evil.test",
        "evil.test:80",
        "10.0.0.1",
        "localhost.evil.test",
        "0.0.0.0",
    ] {
        let answer = asked_as(sidecar, host, "GET /status", &cookie).await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    let absolute = asked_as(sidecar, HOST, "GET http://localhost/status", &cookie).await;
    assert_eq!(absolute.status, StatusCode::MISDIRECTED_REQUEST);
    // A ticket is not lost to one.
    let done = egress_ui(sidecar).await;
    let (_, ticket) = done.stdout.trim().split_once("/?").expect("an address");
    let path = format!("/?{ticket}");
    let answer = asked_as(sidecar, "evil.test", &format!("GET {path}"), "").await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
    opened(sidecar, &path).await;
}

#[tokio::test]
async fn another_site_reads_nothing_and_presses_no_button() {
    let scene = Scene::new().await;
    for site in ["same-site", "cross-site"] {
        let lines = format!("Sec-Fetch-Site: {site}\r\n");
        for path in ["/", "/status", "/refusals", "/events"] {
            let answer = scene.ask(&format!("GET {path}"), &lines).await;
            assert_eq!(answer.status, 403, "{site} {path}");
        }
    }
    let digest = digest(&scene).await;
    for lines in [
        String::new(),
        "Origin: http://localhost:3000\r\nSec-Fetch-Site: same-site\r\n".into(),
        "Origin: http://localhost:3000\r\n".into(),
        "Origin: null\r\n".into(),
        format!("Origin: http://{HOST}\r\nSec-Fetch-Site: cross-site\r\n"),
        "Sec-Fetch-Site: same-origin\r\n".into(),
    ] {
        for path in ["/preview", &format!("/reload?digest={digest}")] {
            let answer = scene.ask(&format!("POST {path}"), &lines).await;
            assert_eq!(answer.status, 403, "{lines} {path}");
        }
    }
    // What changes something cannot be had by a link.
    let link = scene.ask(&format!("GET /reload?digest={digest}"), "").await;
    assert_eq!(link.status, 404);
    assert_eq!(scene.reloads().await, 0);
    let answer = scene.press(&format!("/reload?digest={digest}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(scene.reloads().await, 1);
}

async fn digest(scene: &Scene) -> String {
    let preview = scene.press("/preview").await;
    assert_eq!(preview.status, 200, "{preview:?}");
    let preview: Value = serde_json::from_str(&preview.text()).expect("JSON");
    preview["digest"].as_str().expect("a digest").to_owned()
}

#[tokio::test]
async fn a_reload_takes_what_was_shown_or_nothing() {
    let scene = Scene::new().await;
    let sidecar = &scene.rig.sidecar;
    sidecar.write_routes("routes: [{host: b.test, scheme: http}]\n");
    let shown = scene.press("/preview").await.text();
    assert!(shown.contains("opened:"), "{shown}");
    assert_eq!(scene.reloads().await, 0);
    let digest = digest(&scene).await;
    sidecar.write_routes("routes: [{host: c.test, scheme: http}]\n");
    let late = scene.press(&format!("/reload?digest={digest}")).await;
    assert_eq!(late.status, 409, "{late:?}");
    assert_eq!(scene.press("/reload").await.status, 400);
    assert_eq!(scene.reloads().await, 0);

    sidecar.write_routes("routes: [{hots: b.test}]\n");
    let faults = scene.press("/preview").await;
    assert_eq!(faults.status, 422);
    assert!(faults.text().contains("hots"), "{faults:?}");
    // A look is no reload that failed.
    assert_eq!(sidecar.status().await["last_reload_fault"], Value::Null);

    sidecar.write_routes("routes: [{host: b.test, scheme: http}]\n");
    let done = scene.press(&format!("/reload?digest={digest}")).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert!(done.text().contains("added: b.test"), "{done:?}");
}

#[tokio::test]
async fn what_an_observation_let_through_is_among_what_needs_a_route() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let audit = format!("--audit={}", dir.path().join("audit.db").display());
    let rig = Rig::with(ROUTES, |builder| {
        let builder = builder.arg("--ui=127.0.0.1:0").arg("--observe-for=1h");
        builder.arg("--no-name-constraints").arg(audit)
    })
    .await;
    let cookie = opened(&rig.sidecar, &first_ticket(&rig.sidecar).await).await;
    drop(rig.agent.connect("new.test:443").await.expect("a tunnel"));
    rig.sidecar.logged("\"code\":\"observed\"").await;
    let lines = format!("Cookie: {cookie}\r\n");
    let told = ask(&rig.sidecar, "GET /refusals", &lines).await;
    let told: Value = serde_json::from_str(&told.text()).expect("JSON");
    assert_eq!(told[0]["host"], "new.test:443", "{told}");
    // Beside the handshake that never came in that tunnel.
    let unadmitted = told[0]["refusals"].as_array().expect("a list");
    let observed = unadmitted.iter().find(|one| one["code"] == "observed");
    let why = "no route admits it, and the observation let it through";
    assert_eq!(observed.expect("a tunnel")["why"], why);
    let status = ask(&rig.sidecar, "GET /status", &lines).await;
    let status: Value = serde_json::from_str(&status.text()).expect("JSON");
    assert!(status["observe_seconds_left"].is_u64(), "{status}");
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke_off() {
    let scene = Scene::new().await;
    for host in ["one.test:443", "two.test:443"] {
        scene.rig.agent.connect(host).await.expect_err("no route");
        scene.rig.sidecar.logged(host).await;
    }
    let cookie = &scene.cookie;
    let watch = async |lines: &str, until: &str| {
        let stream = TcpStream::connect(scene.rig.sidecar.told_address("UI")).await;
        let mut stream = stream.expect("a page");
        let head =
            format!("GET /events?kept HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n{lines}\r\n");
        use tokio::io::AsyncWriteExt as _;
        stream.write_all(head.as_bytes()).await.expect("it is read");
        read_until(&mut stream, until).await
    };
    let all = watch("", "two.test").await;
    assert!(all.contains("one.test"), "{all}");
    let (_, id) = all.split_once("\nid: ").expect("an id");
    let id = id.lines().next().expect("an id");
    let rest = watch(&format!("Last-Event-ID: {id}\r\n"), "two.test").await;
    assert!(!rest.contains("one.test"), "{rest}");
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_goes_with_the_sidecar() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("ui.sock");
    let ui = format!("unix:{}", socket.display());
    let rig = Rig::with(ROUTES, |builder| builder.arg(format!("--ui={ui}"))).await;
    assert_eq!(rig.sidecar.told("UI"), [ui.as_str()]);
    let mode = std::fs::metadata(&socket).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let done = egress_ui(&rig.sidecar).await;
    let path = done.stdout.trim().strip_prefix("http://localhost");
    let request = format!("GET {}", path.expect("an address"));
    let stream = UnixStream::connect(&socket).await;
    let answer = told(&mut stream.expect("a page"), HOST, &request, "").await;
    cookie_of(&answer);
    let (status, _) = rig.sidecar.terminate().await;
    assert!(status.success());
    assert!(!socket.exists());
}

#[tokio::test]
async fn there_is_no_page_unless_it_is_asked_for_and_none_on_a_network() {
    let rig = Rig::new(ROUTES).await;
    assert!(rig.sidecar.told("UI").is_empty());
    let done = egress_ui(&rig.sidecar).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("hint: start it with --ui"), "{done:?}");
    for address in ["0.0.0.0:0", "10.0.0.1:8090", "[::]:0", "8090", "unix:"] {
        let done = command::egress(["serve", "--ui", address]).await;
        assert_eq!(done.code, Some(2), "{address}: {done:?}");
    }
    // By way of the proxy there is none either, whatever the routes say: tests/attack/network/own.rs.
    let mut raw = rig.agent.raw().await;
    let answer = exchange(
        &mut raw,
        b"GET /?token=x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
}
