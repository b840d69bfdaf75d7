//! One attack by each way in which an agent can put a request: HTTP/1.1 and HTTP/2 in a tunnel, and the absolute form. The
//! upstreams' records decide what came of it: nothing, or the one canonical request with the one credential.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::join_all;
use http::Version;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agent::{Agent, Answer, Tunnel};
use super::pki::Pki;
use super::raw_http2::RawHttp2;
use super::rig::REAL;
use super::sidecar::{Builder, Sidecar};
use super::upstream::{Seen, Upstream, text};
use super::wire::answers;
use super::within;

/// A way to put a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1.1 in a tunnel.
    One,
    /// HTTP/2 in a tunnel.
    Two,
    /// The absolute form, for a plain-text upstream.
    Absolute,
}

pub(crate) const WAYS: [Way; 3] = [Way::One, Way::Two, Way::Absolute];

/// A request that an agent makes up. It brings credentials of its own along.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// The tunnel's host; the absolute form has none.
    pub(crate) tunnel: String,
    /// Host, `:authority`, or what stands after `http://`.
    pub(crate) authority: Vec<u8>,
    pub(crate) path: Vec<u8>,
    /// A number by which the upstream tells it from others.
    pub(crate) case: usize,
}

/// What an agent saw of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An upstream's answer.
    Sent,
    /// A refusal of the sidecar's, by its code.
    Refused(String),
    /// An HTTP/2 stream that the library reset, for it was no HTTP/2.
    Reset,
    /// The end of the connection, without an answer.
    Closed,
    /// A CONNECT that was answered with 200.
    Opened,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "sent",
            Self::Refused(code) => code,
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Opened => "open",
        })
    }
}

/// A sidecar before two upstreams, which answer everything, and an agent.
pub(crate) struct Arena {
    pub(crate) tls: Upstream,
    pub(crate) plain: Upstream,
    pub(crate) sidecar: Sidecar,
    pub(crate) agent: Agent,
}

impl Arena {
    /// `routes` are the items of the list; `TLS` and `PLAIN` in them stand for the upstreams' addresses.
    pub(crate) async fn new(routes: &str) -> Self {
        Self::speaking(&["h2", "http/1.1"], routes).await
    }

    /// The same, with an upstream that offers these protocols.
    pub(crate) async fn speaking(alpn: &[&str], routes: &str) -> Self {
        Self::with(alpn, routes, |builder| builder).await
    }

    /// The same, with something to add to the start.
    pub(crate) async fn with(
        alpn: &[&str],
        routes: &str,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let pki = Pki::new();
        let answer = async |_call| text(200, "fine");
        let tls = Upstream::with_tls(pki.server_config(alpn))
            .start(answer)
            .await;
        let plain = Upstream::plain().start(answer).await;
        let routes = routes
            .replace("TLS", &tls.addr().to_string())
            .replace("PLAIN", &plain.addr().to_string());
        let builder = Sidecar::with_routes(&pki, format!("routes:\n{routes}"));
        let builder = configure(builder.slot("EGRESS_TOKEN_0", REAL));
        let sidecar = builder.start().await;
        let agent = Agent::of(&sidecar);
        Self {
            tls,
            plain,
            sidecar,
            agent,
        }
    }

    /// Tries all of them by one way, over a few connections that are opened anew whenever the sidecar closes them.
    pub(crate) async fn try_all(&self, way: Way, attempts: &[Attempt]) -> Vec<Outcome> {
        let share = attempts.len().div_ceil(CONNECTIONS).max(1);
        let tried = attempts.chunks(share).map(async |share| {
            let mut line = Line::new(&self.agent, way);
            let mut outcomes = Vec::new();
            for attempt in share {
                outcomes.push(line.put(attempt).await);
            }
            outcomes
        });
        join_all(tried).await.concat()
    }

    /// The upstream that requests of a way go to.
    pub(crate) fn upstream(&self, way: Way) -> &Upstream {
        match way {
            Way::Absolute => &self.plain,
            Way::One | Way::Two => &self.tls,
        }
    }

    /// Connections that either upstream ever accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.tls.connections() + self.plain.connections()
    }

    /// Insists that exactly these requests reached the upstream of a way, each once: host and target by their number.
    #[track_caller]
    pub(crate) fn assert_reached(&self, way: Way, expected: &BTreeMap<usize, (String, String)>) {
        let mut reached = BTreeMap::new();
        for seen in self.upstream(way).seen() {
            let Some(case) = case_of(&seen, way) else {
                continue;
            };
            assert_canonical(&seen);
            let before = reached.insert(case, (seen.host.clone(), seen.target.clone()));
            assert!(before.is_none(), "sent twice: {seen:?}");
        }
        let (reached, expected) = (pretty(&reached), pretty(expected));
        assert!(
            reached == expected,
            "{way:?}: reached {reached:#?}\nnot {expected:#?}"
        );
    }
}

const CONNECTIONS: usize = 4;

fn pretty(requests: &BTreeMap<usize, (String, String)>) -> Vec<String> {
    let one =
        |(case, (host, target)): (&usize, &(String, String))| format!("{case} {host} {target}");
    requests.iter().map(one).collect()
}

/// The number of an attempt that was made by this way.
fn case_of(seen: &Seen, way: Way) -> Option<usize> {
    let (name, number) = seen
        .all("x-case")
        .concat()
        .split_once('-')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    (name == format!("{way:?}")).then(|| number.parse().expect("a number"))
}

/// Insists on a request with nothing of the agent's in it but its number, and with the route's credential, once.
#[track_caller]
pub(crate) fn assert_canonical(seen: &Seen) {
    let mut headers: Vec<(&str, &str)> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("a text header")))
        .filter(|(name, _)| *name != "host" || seen.version == Version::HTTP_2)
        .collect();
    headers.sort_unstable();
    let credential = format!("Bearer {REAL}");
    let case = seen.all("x-case").concat();
    assert_eq!(
        headers,
        [("authorization", credential.as_str()), ("x-case", &case)],
        "{seen:?}"
    );
    let hosts = seen.headers.get_all("host").iter().count();
    assert_eq!(
        hosts,
        usize::from(seen.version == Version::HTTP_11),
        "{seen:?}"
    );
    assert_eq!(
        (seen.method.as_str(), seen.body.len()),
        ("GET", 0),
        "{seen:?}"
    );
}

/// A connection of an agent's, and another one where the sidecar closed it.
pub(crate) struct Line<'a> {
    agent: &'a Agent,
    way: Way,
    open: Option<(String, Wire)>,
}

enum Wire {
    One(Box<Tunnel>),
    Two(Box<RawHttp2>),
    Outer(TcpStream),
}

impl<'a> Line<'a> {
    pub(crate) fn new(agent: &'a Agent, way: Way) -> Self {
        Self {
            agent,
            way,
            open: None,
        }
    }

    /// Sends one attempt, and reads what comes of it.
    pub(crate) async fn put(&mut self, attempt: &Attempt) -> Outcome {
        self.put_with(attempt, &[]).await
    }

    /// The same with further headers.
    pub(crate) async fn put_with(&mut self, attempt: &Attempt, more: &[(&str, &str)]) -> Outcome {
        let (mut wire, used) = match self.open.take() {
            Some((host, wire)) if host == attempt.tunnel => (wire, true),
            _ => (self.dial(&attempt.tunnel).await, false),
        };
        let case = format!("{:?}-{}", self.way, attempt.case);
        let (outcome, reusable) = match &mut wire {
            Wire::Two(http) => over_http2(http, attempt, &case, more).await,
            Wire::One(stream) => over_http1(stream, &head(self.way, attempt, &case, more)).await,
            Wire::Outer(stream) => over_http1(stream, &head(self.way, attempt, &case, more)).await,
        };
        // The request before it was such that none is taken after it, and the goodbye was still under way.
        if used && outcome == Outcome::Refused("connection_forfeited".to_owned()) {
            return Box::pin(self.put_with(attempt, more)).await;
        }
        if reusable {
            self.open = Some((attempt.tunnel.clone(), wire));
        }
        outcome
    }

    /// Sends these bytes over HTTP/1.1, and reads what comes of them. `host` is the tunnel's.
    pub(crate) async fn put_bytes(&mut self, host: &str, head: &[u8]) -> Outcome {
        let mut wire = match self.open.take() {
            Some((open, wire)) if open == host => wire,
            _ => self.dial(host).await,
        };
        let (outcome, reusable) = match &mut wire {
            Wire::One(stream) => over_http1(stream, head).await,
            Wire::Outer(stream) => over_http1(stream, head).await,
            Wire::Two(_) => panic!("bytes of HTTP/1.1 on an HTTP/2 connection"),
        };
        if reusable {
            self.open = Some((host.to_owned(), wire));
        }
        outcome
    }

    async fn dial(&self, host: &str) -> Wire {
        match self.way {
            Way::Absolute => Wire::Outer(self.agent.raw().await),
            Way::Two => Wire::Two(Box::new(RawHttp2::open(self.agent, host).await)),
            Way::One => {
                let authority = format!("{host}:443");
                let tunnel = self.agent.tunnel(&authority, host, &["http/1.1"]);
                Wire::One(Box::new(tunnel.await.expect("a tunnel")))
            }
        }
    }
}

fn head(way: Way, attempt: &Attempt, case: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let scheme: &[u8] = match way {
        Way::Absolute => &[b"http://", attempt.authority.as_slice()].concat(),
        Way::One | Way::Two => b"",
    };
    let more: String = more
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let rest = format!(
        "\r\nX-Case: {case}\r\nAuthorization: Bearer {OF_THE_AGENT}\r\nX-Api-Key: {OF_THE_AGENT}\r\n\
         Connection: x-dropped\r\nX-Dropped: 1\r\n{more}\r\n"
    );
    [
        b"GET ",
        scheme,
        &attempt.path,
        b" HTTP/1.1\r\nHost: ",
        &attempt.authority,
        rest.as_bytes(),
    ]
    .concat()
}

const OF_THE_AGENT: &str = "a-token-of-the-agents-own";

/// The outcome, and whether the connection takes another request.
async fn over_http1<S>(stream: &mut S, head: &[u8]) -> (Outcome, bool)
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // A sidecar that has seen enough may close before it has read all of it.
    let _ = stream.write_all(head).await;
    let _ = stream.flush().await;
    let Some(answer) = within("answer", read_answer(stream)).await else {
        return (Outcome::Closed, false);
    };
    let close = answer
        .headers
        .get("connection")
        .is_some_and(|value| value == "close");
    let outcome = match answer.error_code() {
        None if answer.status == 200 && answer.body == "fine" => Outcome::Sent,
        None if answer.status == 200 && head.starts_with(b"CONNECT ") => {
            return (Outcome::Opened, false);
        }
        Some(code) => {
            answer.assert_refused(answer.status.as_u16(), &code);
            Outcome::Refused(code)
        }
        None => panic!("neither served nor refused: {answer:?}"),
    };
    (outcome, !close)
}

async fn over_http2(
    http: &mut RawHttp2,
    attempt: &Attempt,
    case: &str,
    more: &[(&str, &str)],
) -> (Outcome, bool) {
    let own = format!("Bearer {OF_THE_AGENT}");
    let mut fields: Vec<(&str, &[u8])> = vec![
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", &attempt.authority),
        (":path", &attempt.path),
        ("x-case", case.as_bytes()),
        ("authorization", own.as_bytes()),
        ("x-api-key", OF_THE_AGENT.as_bytes()),
    ];
    fields.extend(more.iter().map(|(name, value)| (*name, value.as_bytes())));
    let ended = http.request(&fields).await;
    let code = || {
        let body: serde_json::Value = serde_json::from_str(&ended.body).ok()?;
        Some(body["error"]["code"].as_str()?.to_owned())
    };
    let outcome = match (ended.status, code()) {
        (Some(200), _) if ended.body == "fine" => Outcome::Sent,
        (Some(400..), Some(code)) => Outcome::Refused(code),
        (None, _) if ended.broken => Outcome::Reset,
        _ => panic!("neither served nor refused: {ended:?}"),
    };
    (outcome, !http.goaway)
}

/// Reads one answer with a length. `None` where the connection ends before it began.
async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
            if bytes.len() >= end + 4 + length {
                let mut all = answers(&bytes);
                assert_eq!(all.len(), 1, "{all:?}");
                return all.pop();
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ if bytes.is_empty() => return None,
            _ => panic!("half an answer: {}", String::from_utf8_lossy(&bytes)),
        }
    }
}
