//! An answer's body as the frames of a stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};
use tokio::task::AbortHandle;

use super::super::super::body::BodyError;
use super::Stream;

/// What a stream brings. Dropped before its end, it resets the stream.
#[derive(Debug)]
pub struct Received {
    source: RecvStream,
    /// What is to come, where the upstream has said that. h2 holds it to its word.
    rest: Option<u64>,
    has_data_ended: bool,
    upload: Option<AbortHandle>,
    stream: Stream,
}

impl Received {
    /// The body behind a head. `upload` is what still goes the other way.
    pub(super) fn new(
        source: RecvStream,
        headers: &HeaderMap,
        upload: Option<AbortHandle>,
        stream: Stream,
    ) -> Self {
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        let length = length.and_then(|digits| digits.parse().ok());
        let rest = length.or_else(|| source.is_end_stream().then_some(0));
        Self {
            source,
            rest,
            has_data_ended: false,
            upload,
            stream,
        }
    }

    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.has_data_ended {
            if let Some(data) = ready!(self.source.poll_data(cx).map_err(broken)?) {
                self.stream.moves();
                self.rest = self.rest.map(|rest| rest.saturating_sub(data.len() as u64));
                // Who takes it passes it on before more is asked for, so it counts as gone. An error is the stream's, and comes
                // at the next turn.
                _ = self.source.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.has_data_ended = true;
        }
        let trailers = ready!(self.source.poll_trailers(cx)).map_err(broken)?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    pub(in super::super) fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    pub(in super::super) fn size_hint(&self) -> SizeHint {
        self.rest
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // An upstream that has answered in full may want the rest of the upload all the same. Who takes an answer of a known
        // length may not wait for the frame that ends it.
        let is_whole = self.rest == Some(0) || self.source.is_end_stream();
        if let Some(upload) = self.upload.take_if(|_| !is_whole) {
            upload.abort();
        }
    }
}

/// What is told of a stream that has failed. Of NO_ERROR not even that: it says nothing of an answer that was not whole, and an
/// agent that it were passed on to would take it for the end.
fn broken(error: h2::Error) -> BodyError {
    match error.reason() {
        Some(Reason::NO_ERROR) => "the upstream reset the answer before its end".into(),
        _ => without_its_words(error).into(),
    }
}

/// An error of a connection that is for the log. An upstream may add any bytes to the end of a connection (RFC 9113, section
/// 6.8), and it knows the credential: of what it says only the code is told.
pub(super) fn without_its_words(error: h2::Error) -> h2::Error {
    match error.reason() {
        Some(reason) if error.is_go_away() => reason.into(),
        _ => error,
    }
}
