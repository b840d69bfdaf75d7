//! Why the gate refused what a client sent. One variant for each thing that an operator may want to count.

use std::error::Error;
use std::io;

use thiserror::Error;

/// What is wrong with a client's bytes. See [`Fault::code`] for the stable name.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
pub enum Fault {
    /// The first byte is that of a TLS record.
    #[error("a TLS handshake on a port that speaks plain HTTP")]
    TlsHello,
    /// The connection preface of RFC 9113.
    #[error("an HTTP/2 preface on a connection that speaks HTTP/1.1")]
    Http2Preface,
    /// An empty line before the request line.
    #[error("an empty line before the request line")]
    LeadingLine,
    /// Not `METHOD SP target SP HTTP/1.1`.
    #[error("the request line is not `METHOD target HTTP/1.1`")]
    RequestLine,
    /// The method is not a token, or absurdly long.
    #[error("the method is not a token")]
    Method,
    /// A control, space, non-ASCII or `#` in the request target, or an authority that is none.
    #[error("the request target is no URI")]
    Target,
    /// A version other than HTTP/1.1 and HTTP/1.0.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// A line that ends with LF alone.
    #[error("a line ends with a bare LF")]
    BareLf,
    /// A CR that no LF follows.
    #[error("a line holds a bare CR")]
    BareCr,
    /// NUL or another control.
    #[error("a control byte in the head")]
    Control,
    /// A line that begins with white space (RFC 9112, 5.2).
    #[error("a folded header line")]
    ObsFold,
    /// A header name that is not a token, or no colon.
    #[error("a header name is not a token")]
    FieldName,
    /// White space between a name and its colon (RFC 9112, 5.1).
    #[error("white space before a header's colon")]
    SpaceBeforeColon,
    /// A length that is not a plain decimal number below 2^63.
    #[error("the Content-Length is not a plain decimal number")]
    ContentLength,
    /// More than one length, equal or not.
    #[error("more than one Content-Length")]
    RepeatedContentLength,
    /// A coding other than `chunked`.
    #[error("the Transfer-Encoding is not exactly `chunked`")]
    TransferEncoding,
    /// More than one Transfer-Encoding line.
    #[error("more than one Transfer-Encoding")]
    RepeatedTransferEncoding,
    /// Two framings for one body (RFC 9112, 6.1).
    #[error("both a Content-Length and a Transfer-Encoding")]
    LengthAndEncoding,
    /// HTTP/1.0 knows no codings (RFC 9112, 6.1).
    #[error("a Transfer-Encoding in an HTTP/1.0 request")]
    EncodingInHttp10,
    /// A CONNECT or WebSocket request that announces a body.
    #[error("a CONNECT or upgrade request with a body")]
    UpgradeWithBody,
    /// The head exceeds its bound in bytes.
    #[error("the head is too large")]
    HeadTooLarge,
    /// The head exceeds its bound in header lines.
    #[error("too many header lines")]
    TooManyFields,
    /// The client closed in the middle of a head.
    #[error("the connection ended inside a head")]
    TruncatedHead,
    /// The head was not complete in time.
    #[error("the head was not complete in time")]
    HeadTimeout,
    /// A chunk-size line that is not 1 to 16 hex digits and CRLF.
    #[error("a chunk size is malformed")]
    ChunkSize,
    /// A chunk extension.
    #[error("a chunk extension")]
    ChunkExtension,
    /// Chunk data without CRLF after it.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// A trailer line that is not `token: value CRLF`.
    #[error("a trailer line is malformed")]
    Trailer,
    /// The trailers exceed their bounds.
    #[error("the trailers are too large")]
    TrailersTooLarge,
    /// The client closed in the middle of a body.
    #[error("the connection ended inside a body")]
    TruncatedBody,
    /// No byte of the body came for too long.
    #[error("the body stalled")]
    BodyTimeout,
    /// HTTP/2 frames that bring nothing, more than anybody needs.
    #[error("a flood of HTTP/2 frames: {0}")]
    Flood(Flood),
}

/// What there was too much of on an HTTP/2 connection.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
pub enum Flood {
    /// DATA without a byte.
    #[error("empty DATA")]
    EmptyData,
    /// PRIORITY, which RFC 9113 deprecates.
    #[error("PRIORITY")]
    Priority,
    /// Streams that were reset, by the client or for its faults.
    #[error("RST_STREAM")]
    Reset,
    /// SETTINGS.
    #[error("SETTINGS")]
    Settings,
    /// PING.
    #[error("PING")]
    Ping,
    /// WINDOW_UPDATE.
    #[error("WINDOW_UPDATE")]
    WindowUpdate,
    /// CONTINUATION.
    #[error("CONTINUATION")]
    Continuation,
    /// Pieces of a body, each between so many other bytes that to keep it is to keep those.
    #[error("DATA scattered among other frames")]
    Scattered,
    /// Any other type.
    #[error("other frames")]
    Other,
}

impl Fault {
    /// Finds the fault beneath an error that hyper made of it: that of a request's body.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // An `io::Error` does not name its custom inner error as its source, but that one's source.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref::<Self>());
            if let Some(&fault) = inner {
                return Some(fault);
            }
            next = error.source();
        }
        None
    }

    /// The name of the fault in logs, metrics and the body of the refusal. Stable.
    pub fn code(self) -> &'static str {
        match self {
            Self::TlsHello => "tls_hello",
            Self::Http2Preface => "http2_preface",
            Self::LeadingLine => "leading_line",
            Self::RequestLine => "bad_request_line",
            Self::Method => "bad_method",
            Self::Target => "bad_target_byte",
            Self::Version => "bad_version",
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::Control => "control_byte",
            Self::ObsFold => "obs_fold",
            Self::FieldName => "bad_field_name",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::ContentLength => "bad_content_length",
            Self::RepeatedContentLength => "repeated_content_length",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::RepeatedTransferEncoding => "repeated_transfer_encoding",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::EncodingInHttp10 => "encoding_in_http10",
            Self::UpgradeWithBody => "upgrade_with_body",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::TruncatedHead => "truncated_head",
            Self::HeadTimeout => "head_timeout",
            Self::ChunkSize => "bad_chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "bad_chunk_end",
            Self::Trailer => "bad_trailer",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::TruncatedBody => "truncated_body",
            Self::BodyTimeout => "body_timeout",
            Self::Flood(_) => "http2_flood",
        }
    }

    /// The status that tells the client: 408, 429, 431, 505 or 400.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTimeout | Self::BodyTimeout => 408,
            // HTTP/2 has a frame for it, so no client sees this one.
            Self::Flood(_) => 429,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::Version | Self::Http2Preface => 505,
            _ => 400,
        }
    }

    /// Whether the fault lies in a body. hyper then hands it to the service as an error of the body, and the service
    /// answers; a fault in a head no service ever sees, so the connection's owner has to.
    pub fn in_body(self) -> bool {
        matches!(
            self,
            Self::ChunkSize
                | Self::ChunkExtension
                | Self::ChunkEnd
                | Self::Trailer
                | Self::TrailersTooLarge
                | Self::TruncatedBody
                | Self::BodyTimeout
        )
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::HeadTimeout | Fault::BodyTimeout => io::ErrorKind::TimedOut,
            Fault::TruncatedHead | Fault::TruncatedBody => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, fault)
    }
}
