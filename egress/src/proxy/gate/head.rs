//! One request head, line by line: is every line well formed, and what follows the head?
//!
//! It answers only what framing needs. Host, path and credentials are other modules' business, and they see what
//! hyper parsed from the very bytes that were accepted here.

use http::Uri;

use super::fault::Fault;
use super::framing::Bounds;

/// A head in the course of being read.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the line begins that is not judged yet.
    line: usize,
    /// How far the search for that line's end has come, so that slow clients cost no rescans.
    searched: usize,
    request: Option<RequestLine>,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    names_websocket: bool,
    connection_upgrade: bool,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    Nothing,
    Sized(u64),
    Chunked,
    Tunnel,
}

impl Head {
    /// Judges the lines that have become complete in `input`, the head from its first byte. Returns the head's
    /// length and what follows it once the empty line is there.
    ///
    /// Faults come in the order of the lines, whatever the reads were.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        bounds: Bounds,
    ) -> Result<Option<(usize, After)>, Fault> {
        // A byte that begins no method is refused at once: who speaks TLS, SOCKS or SSH may wait for an answer
        // before it ever sends a line feed.
        match input.first() {
            None => return Ok(None),
            Some(0x16) => return Err(Fault::TlsHello),
            Some(b'\r' | b'\n') => return Err(Fault::LeadingLine),
            Some(&byte) if !is_tchar(byte) => return Err(Fault::Method),
            Some(_) => {}
        }
        let within = input.get(..bounds.head).unwrap_or(input);
        while let Some(found) = memchr::memchr(b'\n', within.get(self.searched..).unwrap_or(&[])) {
            let end = self.searched + found;
            let line = within.get(self.line..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(Fault::BareLf)?;
            self.line = end + 1;
            self.searched = end + 1;
            if let Some(after) = self.judge(line, bounds)? {
                return Ok(Some((self.line, after)));
            }
        }
        self.searched = within.len();
        if input.len() >= bounds.head {
            return Err(Fault::HeadTooLarge);
        }
        Ok(None)
    }

    /// Judges a line without its CRLF. The empty one ends the head.
    fn judge(&mut self, line: &[u8], bounds: Bounds) -> Result<Option<After>, Fault> {
        if memchr::memchr(b'\r', line).is_some() {
            return Err(Fault::BareCr);
        }
        let Some(request) = self.request else {
            self.request = Some(RequestLine::parse(line)?);
            return Ok(None);
        };
        if line.is_empty() {
            return self.end(request).map(Some);
        }
        self.fields += 1;
        if self.fields > bounds.fields {
            return Err(Fault::TooManyFields);
        }
        self.field(line, request).map(|()| None)
    }

    fn field(&mut self, line: &[u8], request: RequestLine) -> Result<(), Fault> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Fault::ObsFold);
        }
        let colon = memchr::memchr(b':', line).ok_or(Fault::FieldName)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Fault::FieldName)?;
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return Err(Fault::SpaceBeforeColon);
        }
        if name.is_empty() || !name.iter().copied().all(is_tchar) {
            return Err(Fault::FieldName);
        }
        // A fold without an early return, so that the compiler can vectorise it: this is most of the head.
        let value = value.get(1..).unwrap_or_default();
        if value.iter().fold(false, |bad, &byte| bad | !is_text(byte)) {
            return Err(Fault::Control);
        }
        let value = trim(value);
        if name.eq_ignore_ascii_case(b"content-length") {
            self.content_length(value)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding(value, request)
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.connection_upgrade |= lists(value, b"upgrade");
            Ok(())
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.names_websocket |= lists(value, b"websocket");
            Ok(())
        } else {
            Ok(())
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.length.is_some() {
            return Err(Fault::RepeatedContentLength);
        }
        if self.chunked {
            return Err(Fault::LengthAndEncoding);
        }
        // `5, 5` is a repetition that a hop before us has joined.
        if value.contains(&b',') {
            return Err(Fault::RepeatedContentLength);
        }
        self.length = Some(decimal(value).ok_or(Fault::ContentLength)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8], request: RequestLine) -> Result<(), Fault> {
        if request.version == Version::Http10 {
            return Err(Fault::EncodingInHttp10);
        }
        if self.chunked {
            return Err(Fault::RepeatedTransferEncoding);
        }
        if self.length.is_some() {
            return Err(Fault::LengthAndEncoding);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn end(&self, request: RequestLine) -> Result<After, Fault> {
        // RFC 9110, 7.8: an HTTP/1.0 request cannot upgrade. CONNECT it can: old clients do.
        let websocket =
            self.names_websocket && self.connection_upgrade && request.version == Version::Http11;
        let body = match self.length {
            _ if self.chunked => After::Chunked,
            Some(0) | None => After::Nothing,
            Some(length) => After::Sized(length),
        };
        match body {
            After::Nothing if request.connect || websocket => Ok(After::Tunnel),
            _ if request.connect || websocket => Err(Fault::UpgradeWithBody),
            body => Ok(body),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct RequestLine {
    connect: bool,
    version: Version,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    Http10,
    Http11,
}

impl RequestLine {
    fn parse(line: &[u8]) -> Result<Self, Fault> {
        if line == b"PRI * HTTP/2.0" {
            return Err(Fault::Http2Preface);
        }
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::RequestLine);
        };
        if method.is_empty() || target.is_empty() || version.is_empty() {
            return Err(Fault::RequestLine);
        }
        if method.len() > MAX_METHOD || !method.iter().copied().all(is_tchar) {
            return Err(Fault::Method);
        }
        // hyper cuts a fragment off and lets raw UTF-8 pass: then the path that is decided on is not the one sent.
        if !target
            .iter()
            .all(|&byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err(Fault::Target);
        }
        if !hyper_reads(target) {
            return Err(Fault::Target);
        }
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(Fault::Version),
        };
        Ok(Self {
            connect: method == b"CONNECT",
            version,
        })
    }
}

/// Whether hyper makes a URI of the target. Of one that it cannot read it says an empty 400 by itself, which nobody would
/// find in the log. The plain paths that nearly all requests have are told without a second parse.
fn hyper_reads(target: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~%?=&+,:@!$'()*;".contains(byte);
    let short = target.len() < 1024;
    (short && target.starts_with(b"/") && target.iter().all(plain)) || Uri::try_from(target).is_ok()
}

/// A plain decimal number below 2^63 (a longer one is negative to peers with signed lengths). No sign, which Rust's
/// parser would take, and no leading zero, which some take for octal.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.len() > 1 && digits.first() == Some(&b'0') {
        return None;
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    i64::try_from(number).is_ok().then_some(number)
}

fn lists(value: &[u8], token: &[u8]) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|item| trim(item).eq_ignore_ascii_case(token))
}

/// Strips the white space of RFC 9110, 5.6.3: SP and HTAB, nothing else.
fn trim(mut value: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t', rest)) = value.split_first() {
        value = rest;
    }
    while let Some((b' ' | b'\t', rest)) = value.split_last() {
        value = rest;
    }
    value
}

/// A byte of a token (RFC 9110, 5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte of a header's value (RFC 9110, 5.5), obs-text included: names in UTF-8 are sent in the wild.
pub(super) fn is_text(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

const MAX_METHOD: usize = 32;
