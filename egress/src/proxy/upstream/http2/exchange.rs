//! One request and the head of its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use http_body::Body as _;

use super::super::super::body::Upload;
use super::super::interim;
use super::Stream;
use super::answer::{Received, without_its_words};
use super::upload;

/// Sends a request, and its body for as long as no answer comes. What is left of the body then gets a task of its own.
pub(super) async fn exchange(
    requests: &mut SendRequest<Bytes>,
    request: Request<Upload>,
    stream: &Stream,
) -> Result<Response<Received>, Fault> {
    let (head, body) = request.into_parts();
    let is_whole = body.is_end_stream();
    // Before it wakes the driver.
    stream.link().asks.store(true, Ordering::Relaxed);
    let (answer, sink) = requests.send_request(Request::from_parts(head, ()), is_whole)?;
    let mut upload = (!is_whole).then(|| Box::pin(upload::send(body, sink, stream.clone())));
    let mut waiting = Waiting { answer, interim: 0 };
    let answered = poll_fn(|cx| {
        // A stream that waits to be opened must not take the others' part of the connection's window.
        if let Some(sending) = &mut upload
            && requests.poll_ready(cx).is_ready()
            && sending.as_mut().poll(cx).is_ready()
        {
            upload = None;
        }
        waiting.poll(cx)
    });
    let answer = match answered.await {
        Err(Fault::Http2(_)) if stream.link().is_dead.load(Ordering::Relaxed) => {
            return Err(Fault::Dead);
        }
        Err(fault @ Fault::Interim(_)) => {
            // To reset the stream would not end them: what comes for it is still read. Over HTTP/1.1 the connection ends, too.
            stream.link().is_forsaken.store(true, Ordering::Relaxed);
            return Err(fault);
        }
        answered => answered?,
    };
    stream.moves();
    let rest = upload.map(|sending| tokio::spawn(sending).abort_handle());
    let (head, body) = answer.into_parts();
    let body = Received::new(body, &head.headers, rest, stream.clone());
    Ok(Response::from_parts(head, body))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Http2(h2::Error),
    #[error(transparent)]
    Interim(#[from] interim::WithoutEnd),
    #[error("the upstream does not answer a PING")]
    Dead,
}

impl From<h2::Error> for Fault {
    fn from(error: h2::Error) -> Self {
        Self::Http2(without_its_words(error))
    }
}

/// An answer that has not come, and the interim answers that have.
struct Waiting {
    answer: ResponseFuture,
    interim: u32,
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Fault>> {
        while let Some(Ok(_)) = ready!(self.answer.poll_informational(cx)) {
            if self.interim == interim::MOST {
                return Poll::Ready(Err(interim::WithoutEnd.into()));
            }
            self.interim += 1;
        }
        Pin::new(&mut self.answer).poll(cx).map_err(Fault::from)
    }
}
