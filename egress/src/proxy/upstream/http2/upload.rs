//! An upload as the frames of a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use super::super::super::body::Upload;
use super::Stream;

/// Sends a body until it ends, until the upstream wants no more of it, or until it fails, which resets the stream. What became
/// of the request is for its answer to say, and what is wrong with the body for [`Upload::fault`].
pub(super) async fn send(mut body: Upload, mut sink: SendStream<Bytes>, stream: Stream) {
    loop {
        let piece = match poll_fn(|cx| poll_next(&mut body, &mut sink, cx)).await {
            Next::Piece(piece) => piece,
            Next::End => return drop(sink.send_data(Bytes::new(), true)),
            Next::Broken => return sink.send_reset(Reason::CANCEL),
            Next::Unwanted => return,
        };
        let is_last = body.is_end_stream();
        if !piece.is_empty() && !has_room(&mut sink).await {
            return;
        }
        if sink.send_data(piece, is_last).is_err() || is_last {
            return;
        }
        stream.moves();
    }
}

/// What comes of a body.
enum Next {
    Piece(Bytes),
    End,
    Broken,
    /// The upstream has reset the stream: with NO_ERROR where its answer needs no more (RFC 9113, section 8.1).
    Unwanted,
}

fn poll_next(body: &mut Upload, sink: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Next> {
    if sink.poll_reset(cx).is_ready() {
        return Poll::Ready(Next::Unwanted);
    }
    Poll::Ready(match ready!(Pin::new(body).poll_frame(cx)) {
        // An upload has no trailers.
        Some(Ok(frame)) => Next::Piece(frame.into_data().unwrap_or_default()),
        Some(Err(_)) => Next::Broken,
        None => Next::End,
    })
}

/// Waits until the upstream takes more. Whether it still does.
async fn has_room(sink: &mut SendStream<Bytes>) -> bool {
    // h2 asks for the rest once it has the piece. To ask for all of it beforehand would keep the connection's window, which is
    // for other uploads, too, from those that can send.
    sink.reserve_capacity(1);
    while sink.capacity() == 0 {
        let Some(Ok(_)) = poll_fn(|cx| sink.poll_capacity(cx)).await else {
            return false;
        };
    }
    true
}
