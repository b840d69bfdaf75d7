//! An HTTP/1.1 upstream that keeps every byte: it takes nothing but requests in the one canonical form, notes what else
//! came, and answers each request with its own target. It shares no parser with the sidecar.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::pki::Pki;

/// A running recorder. It stops when it is dropped.
pub(crate) struct Recorder {
    addr: SocketAddr,
    got: Arc<Mutex<Vec<(String, Got)>>>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What came over a connection, in the order in which it came.
#[derive(Clone, Debug)]
pub(crate) enum Got {
    /// A whole request.
    Whole(Request),
    /// The connection ended inside a request, which is none therefore.
    Cut,
    /// Bytes that are no request in the canonical form.
    Wrong(String),
}

/// A request as it stood on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The ordinal of its TCP connection, from 1.
    pub(crate) connection: u64,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as they were written.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let fields = self.fields.iter().filter(|(given, _)| given == name);
        fields.map(|(_, value)| value.as_slice()).collect()
    }
}

impl Recorder {
    pub(crate) async fn start(pki: &Pki) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let got: Arc<Mutex<Vec<(String, Got)>>> = Arc::default();
        let tls = TlsAcceptor::from(pki.server_config(&["http/1.1"]));
        let record = got.clone();
        let ordinals = AtomicU64::new(0);
        let accepting = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = ordinals.fetch_add(1, Ordering::SeqCst) + 1;
                let (tls, record) = (tls.clone(), record.clone());
                serving.spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else {
                        return;
                    };
                    let host = stream.get_ref().1.server_name().map(str::to_owned);
                    let host = host.expect("the sidecar names the host");
                    let note = |got| {
                        let mut all = record.lock().expect("no holder panicked");
                        all.push((host.clone(), got));
                    };
                    serve(stream, connection, note).await;
                });
                while serving.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            got,
            accepting,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes out what came over connections to `host` since the last time.
    pub(crate) fn take(&self, host: &str) -> Vec<Got> {
        let mut all = self.got.lock().expect("no holder panicked");
        let taken = all.extract_if(.., |(name, _)| name == host);
        taken.map(|(_, got)| got).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve<S>(mut stream: S, connection: u64, note: impl Fn(Got))
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes) {
            Ok(Some((mut request, length))) => {
                bytes.drain(..length);
                request.connection = connection;
                let body = match request.method.as_str() {
                    "HEAD" => "",
                    _ => &request.target,
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                note(Got::Whole(request));
                if stream.write_all(answer.as_bytes()).await.is_err()
                    || stream.flush().await.is_err()
                {
                    return;
                }
            }
            Ok(None) => match stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                _ if bytes.is_empty() => return,
                _ => return note(Got::Cut),
            },
            Err(why) => {
                return note(Got::Wrong(format!("{why}: {}", bytes.escape_ascii())));
            }
        }
    }
}

/// A request at the beginning of `bytes` and its length; `None` where more bytes have to come.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, &'static str> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = split(&bytes[..end]);
    let mut words = lines.remove(0).split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("no request line");
    };
    if !method.iter().all(|byte| is_token(*byte))
        || !target.iter().all(|byte| (0x21..0x7f).contains(byte))
    {
        return Err("a wrong byte in the request line");
    }
    let mut fields = Vec::new();
    for line in lines {
        let colon = find(line, b": ").ok_or("a line without a colon")?;
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err("a name that is no token");
        }
        if value
            .iter()
            .any(|byte| matches!(byte, 0..=8 | 10..=31 | 127))
        {
            return Err("a control in a value");
        }
        if name.iter().any(u8::is_ascii_uppercase) {
            return Err("a name that was not written anew");
        }
        fields.push((text(name), value.to_vec()));
    }
    let mut request = Request {
        connection: 0,
        method: text(method),
        target: text(target),
        fields,
        body: Vec::new(),
    };
    let (lengths, codings) = (
        request.all("content-length"),
        request.all("transfer-encoding"),
    );
    let body = &bytes[end + 4..];
    let taken = match (&lengths[..], &codings[..]) {
        ([], []) => 0,
        ([length], []) => {
            let length: usize = text(length).parse().map_err(|_| "no plain length")?;
            let Some(whole) = body.get(..length) else {
                return Ok(None);
            };
            request.body = whole.to_vec();
            length
        }
        ([], [b"chunked"]) => match chunks(body)? {
            Some((whole, length)) => {
                request.body = whole;
                length
            }
            None => return Ok(None),
        },
        _ => return Err("a framing with two readings"),
    };
    if request.all("host").len() != 1 {
        return Err("not one Host");
    }
    Ok(Some((request, end + 4 + taken)))
}

/// A chunked body without extensions or trailers.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = &bytes[at..at + line];
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("no chunk size");
        }
        let size = usize::from_str_radix(&text(digits), 16).map_err(|_| "no chunk size")?;
        at += line + 2;
        let Some(data) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return Err("no end of a chunk, or a trailer");
        }
        body.extend(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn split(head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(end) = find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn only_the_canonical_form_is_a_request() {
    let whole = |text: &str| matches!(parse(text.as_bytes()), Ok(Some((_, length))) if length == text.len());
    assert!(whole("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert!(whole(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    ));
    for wrong in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\nb: c\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n",
    ] {
        assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    assert!(matches!(parse(b"GET / HTTP/1.1\r\nhost: a\r\n"), Ok(None)));
}
