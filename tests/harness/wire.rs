//! HTTP/1.1 answers as bytes, and what every refusal of the sidecar has to look like.

use http::{HeaderMap, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::agent::{Answer, exchange};

/// The one answer on a connection that was closed behind it.
pub(crate) type Only = Answer;

/// Sends bytes as they are, and insists on exactly one answer and the end of the connection.
pub(crate) async fn only<S>(stream: &mut S, bytes: &[u8]) -> Only
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let raw = exchange(stream, bytes).await;
    let mut answers = answers(&raw);
    let sent = String::from_utf8_lossy(bytes.get(..300).unwrap_or(bytes));
    assert_eq!(answers.len(), 1, "not one answer to {sent:?}: {answers:#?}");
    answers.remove(0)
}

/// All answers in a stream of bytes. Each has to carry its length.
pub(crate) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let rest = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| {
                line.strip_prefix("HTTP/1.1 ")
                    .or(line.strip_prefix("HTTP/1.0 "))
            })
            .and_then(|line| line.get(..3)?.parse::<StatusCode>().ok())
            .unwrap_or_else(|| panic!("no status line in {head:?}"));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header line");
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            headers.append(name, value.parse().expect("a header value"));
        }
        let length = match headers.get("content-length") {
            Some(length) => length
                .to_str()
                .expect("a text header")
                .parse()
                .expect("a length"),
            None => 0,
        };
        let body = rest
            .get(..length)
            .unwrap_or_else(|| panic!("a short body after {head:?}"));
        found.push(Answer {
            status,
            version: Version::HTTP_11,
            headers,
            body: body.to_vec().into(),
        });
        bytes = &rest[length..];
    }
    found
}

/// How many whole answers the bytes hold; interim ones count as well.
pub(crate) fn whole(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.split_once("content-length: ").map_or(0, |(_, rest)| {
            let digits = rest.lines().next().unwrap_or_default();
            digits.parse().expect("a length")
        });
        let Some(rest) = bytes.get(end + 4 + length..) else {
            break;
        };
        bytes = rest;
        count += 1;
    }
    count
}

impl Answer {
    /// Insists on a refusal by the sidecar, in its one form.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let header = |name: &str| {
            let value = self.headers.get(name)?;
            Some(value.to_str().expect("a text header").to_owned())
        };
        assert_eq!(header("x-egress-error").as_deref(), Some(code), "{self:?}");
        assert_eq!(
            header("content-type").as_deref(),
            Some("application/json"),
            "{self:?}"
        );
        assert_eq!(
            header("cache-control").as_deref(),
            Some("no-store"),
            "{self:?}"
        );
        assert_error(&self.text(), code);
    }

    /// Insists on an answer that an upstream gave.
    #[track_caller]
    pub(crate) fn assert_served(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(!self.headers.contains_key("x-egress-error"), "{self:?}");
    }
}

/// Insists on the JSON of a refusal: six members, all texts, the code, and the id by which it is explained.
#[track_caller]
pub(crate) fn assert_error(body: &str, code: &str) {
    let json: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body:?}"));
    let outer = json.as_object().expect("an object");
    assert_eq!(outer.len(), 1, "{body}");
    let error = outer["error"].as_object().expect("an object");
    let mut names: Vec<_> = error.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["code", "explain", "hint", "message", "request_id", "type"],
        "{body}"
    );
    assert_eq!(error["type"], "egress", "{body}");
    assert_eq!(error["code"], code, "{body}");
    let id = error["request_id"].as_str().expect("a text");
    assert_eq!(id.len(), 16, "{body}");
    let explain = error["explain"].as_str().expect("a text");
    assert!(explain.contains(&format!("--id {id} ")), "{body}");
    for name in ["message", "hint"] {
        assert!(
            error[name].as_str().is_some_and(|text| !text.is_empty()),
            "{body}"
        );
    }
}
