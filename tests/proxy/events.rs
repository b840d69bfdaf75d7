//! Requests as they come, on the admin socket: who watches sees each, learns what was missed, and holds nobody up.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::harness::agent::read_head;
use crate::harness::command::{self, finish};
use crate::harness::rig::{REAL, Rig};
use crate::harness::scrape::ask;
use crate::harness::scripted::Scripted;
use crate::harness::sidecar::{EGRESS, Sidecar};
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, path_allowlist: [/v1], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn who_watches_sees_each_request_once_and_no_secret() {
    let rig = rig().await;
    rig.agent
        .get("https://api.test/v1/early")
        .await
        .assert_served();
    let mut all = Events::of(&rig.sidecar, "/events?kept").await;
    let mut new = Events::of(&rig.sidecar, "/events").await;
    for events in [&mut all, &mut new] {
        let hello = events.next().await;
        assert_eq!((&*hello.name, &hello.data["version"]), ("hello", &1.into()));
    }
    rig.agent
        .get("https://api.test/v1/late")
        .await
        .assert_served();
    rig.agent
        .get("https://api.test/v2")
        .await
        .assert_refused(403, "path_not_allowed");
    // Each by a tunnel of its own, which has a row, too.
    let seen = all.paths(6).await;
    assert_eq!(seen, ["", "/v1/early", "", "/v1/late", "", "/v2"]);
    let seen = new.paths(4).await;
    assert_eq!(seen, ["", "/v1/late", "", "/v2"]);
    let refusal = all.last.take().expect("an event").data;
    assert_eq!(refusal["code"], "path_not_allowed");
    assert_eq!(refusal["host"], "api.test:443");
    assert!(!all.text.contains(REAL) && !new.text.contains(REAL));
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_left() {
    let rig = rig().await;
    let get = async |path: &str| {
        let url = format!("https://api.test/v1/{path}");
        rig.agent.get(&url).await.assert_served();
    };
    let mut first = Events::of(&rig.sidecar, "/events").await;
    get("a").await;
    first.until("/v1/a").await;
    let position = first.last.take().expect("an event").id;
    drop(first);
    get("b").await;
    let mut second = Events::of(&rig.sidecar, &format!("/events?after={position}")).await;
    second.until("/v1/b").await;
    assert!(!second.text.contains("/v1/a"), "{}", second.text);
    // Another run's position is before all of this one's.
    let mut foreign = Events::of(&rig.sidecar, "/events?after=1-7").await;
    foreign.until("/v1/b").await;
    assert!(foreign.text.contains("/v1/a"), "{}", foreign.text);
    let (head, _) = ask(&rig.sidecar, "/events?after=x").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[tokio::test]
async fn a_slow_reader_loses_a_counted_number_and_delays_nobody() {
    const MORE_THAN_KEPT: usize = 6000;
    let rig = rig().await;
    let mut slow = Events::of(&rig.sidecar, "/events").await;
    slow.next().await;
    // It reads nothing meanwhile, and each is answered all the same.
    let mut raw = rig.agent.raw().await;
    for _ in 0..MORE_THAN_KEPT {
        let refused = "GET /v1 HTTP/1.1\r\nHost: other.test\r\n\r\n";
        raw.write_all(refused.as_bytes()).await.expect("a write");
        within("a refusal", crate::harness::agent::read_head(&mut raw)).await;
        raw = rig.agent.raw().await;
    }
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < MORE_THAN_KEPT {
        let event = slow.next().await;
        match &*event.name {
            "gap" => {
                let count = event.data["missed"].as_u64().expect("a number");
                missed += usize::try_from(count).expect("a small one");
            }
            _ => seen += 1,
        }
    }
    assert!(missed > 0, "{seen} seen");
    assert_eq!(seen + missed, MORE_THAN_KEPT);
}

#[tokio::test]
async fn no_more_than_some_may_watch_and_a_place_is_given_back() {
    let rig = rig().await;
    let mut watching = Vec::new();
    for _ in 0..16 {
        let mut events = Events::of(&rig.sidecar, "/events").await;
        events.next().await;
        watching.push(events);
    }
    let (head, _) = ask(&rig.sidecar, "/events").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    drop(watching);
    within("a place", async {
        loop {
            // What comes is what shows a stream that nobody reads it any more.
            _ = rig.agent.connect("other.test:443").await;
            let mut events = Events::of(&rig.sidecar, "/events").await;
            if events.head.starts_with("HTTP/1.0 200 ") {
                events.next().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_found_by_the_id_that_the_agent_was_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let audit = dir.path().join("audit.db").display().to_string();
    let rig = Rig::with(ROUTES, |builder| {
        builder.relative().arg("--audit").arg(&audit)
    })
    .await;
    let told = async || {
        let refusal = rig.agent.get("https://api.test/v2").await;
        let body: Value = serde_json::from_str(&refusal.text()).expect("JSON");
        let id = body["error"]["request_id"].as_str().expect("an id");
        id.to_owned()
    };
    let (first, second) = (told().await, told().await);
    assert_ne!(first, second);
    let status = rig.sidecar.status().await;
    let denials = status["denials"].as_array().expect("a list");
    let ids: Vec<_> = denials.iter().map(|denial| &denial["id"]).collect();
    assert_eq!(ids, [&*first, &*second]);
    rig.sidecar.logged(&second).await;
    let admin = format!("unix:{}", rig.sidecar.admin_socket().display());
    let explained = command::egress(["explain", "--id", &first, "--admin", &admin]).await;
    assert_eq!(explained.code, Some(1), "{explained:?}");
    let told = "denied: GET https://api.test/v2\n";
    assert!(explained.stdout.starts_with(told), "{explained:?}");
    // By the routes of the sidecar, wherever it is asked from, and not by a file of the same name there.
    let decoy = "routes: [{host: api.test}]\n";
    std::fs::write(dir.path().join("routes.yaml"), decoy).expect("a file");
    let explained = async |admin: &str, audit: &[&str]| {
        let mut command = Command::new(EGRESS);
        command.args(["explain", "--id", &first, "--admin", admin]);
        let command = command.args(audit).env_clear();
        finish(command.current_dir(dir.path())).await
    };
    let there = explained(&admin, &[]).await;
    assert_eq!(there.code, Some(1), "{there:?}");
    // The sidecar keeps the latest alone: then the request is the file's, and the routes are the sidecar's still.
    until_recorded(&audit, &first).await;
    let both = explained(&admin, &["--audit", &audit]).await;
    assert_eq!(both.code, Some(1), "{both:?}");
    assert!(both.stdout.starts_with(told), "{both:?}");
    // An older one says `routes.yaml`, of a directory that nobody knows.
    let status = rig.sidecar.status().await.to_string();
    let named = rig.sidecar.routes_file().display().to_string();
    assert!(status.contains(&named), "{status}");
    let old = status.replace(&named, "routes.yaml");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", old.len());
    let older = Scripted::start(None, move |_, mut wire| {
        let answer = format!("{head}{old}");
        async move {
            read_head(&mut wire).await;
            _ = wire.write_all(answer.as_bytes()).await;
            read_head(&mut wire).await;
        }
    })
    .await;
    let unknown = explained(&older.addr().to_string(), &[]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(
        unknown.stderr.contains("\nhint: name it with `-r FILE`"),
        "{unknown:?}"
    );
    let unknown = ["explain", "--id", "0123456789abcdef", "--admin", &admin];
    let unknown = command::egress(unknown).await;
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    assert!(unknown.stderr.contains("\nhint: "), "{unknown:?}");
}

async fn until_recorded(audit: &str, id: &str) {
    within("row", async {
        while !command::egress(["audit", audit, "--id", id])
            .await
            .stdout
            .contains("/v2")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn rig() -> Rig {
    Rig::new(ROUTES).await
}

/// A stream of events that is read as it comes.
struct Events {
    head: String,
    stream: BufReader<UnixStream>,
    /// All that came.
    text: String,
    last: Option<Event>,
}

struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    async fn of(sidecar: &Sidecar, path: &str) -> Self {
        let mut stream = UnixStream::connect(sidecar.admin_socket())
            .await
            .expect("a socket");
        // In HTTP/1.0 nothing is in chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a write");
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = within("a head", stream.read_line(&mut head)).await;
            assert!(read.expect("a line") > 0, "{head}");
        }
        Self {
            head,
            stream,
            text: String::new(),
            last: None,
        }
    }

    async fn next(&mut self) -> Event {
        let (mut name, mut id, mut data) = (String::new(), String::new(), Value::Null);
        loop {
            let mut line = String::new();
            let read = within("an event", self.stream.read_line(&mut line)).await;
            assert!(read.expect("a line") > 0, "{}", self.text);
            self.text.push_str(&line);
            match line.trim_end().split_once(": ") {
                Some(("event", value)) => name = value.into(),
                Some(("id", value)) => id = value.into(),
                Some(("data", value)) => data = serde_json::from_str(value).expect("JSON"),
                _ if line == "\n" && !name.is_empty() => return Event { name, id, data },
                _ => {}
            }
        }
    }

    /// The paths of so many requests.
    async fn paths(&mut self, count: usize) -> Vec<String> {
        let mut paths = Vec::new();
        while paths.len() < count {
            let event = self.next().await;
            assert_eq!(event.name, "request");
            paths.push(event.data["path"].as_str().expect("a path").to_owned());
            self.last = Some(event);
        }
        paths
    }

    async fn until(&mut self, path: &str) {
        loop {
            let event = self.next().await;
            let is_it = event.data["path"] == path;
            self.last = Some(event);
            if is_it {
                return;
            }
        }
    }
}
