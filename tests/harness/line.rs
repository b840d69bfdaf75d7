//! The ways in which an agent can put a request: HTTP/1.1 and HTTP/2 in a tunnel, and the absolute form; and a connection
//! for each, which is opened anew where the sidecar closes it.

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agent::{Agent, Answer, Tunnel};
use super::raw_http2::RawHttp2;
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
    S: AsyncRead + AsyncWrite + Unpin,
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
