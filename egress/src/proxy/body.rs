//! The two bodies of an exchange: what the agent uploads and what it downloads. Neither is ever buffered.
//!
//! Both count their bytes, drop trailers that must not pass, and end an exchange that stands still for too long.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::clients::Turn;
use super::gate::fault::Fault;
use super::redact::pause::Pause;
use super::redact::rewriter::Rewriter;
use super::upstream::{Answer, Checkin};
use crate::audit::{Record, UpstreamFault};

/// An error of a body. It ends the exchange, and goes to the log.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// A request's body on its way to the upstream. Its trailers are dropped.
pub struct Upload {
    incoming: Incoming,
    revoked: Option<Revoked>,
    received: Arc<AtomicU64>,
    whole: Arc<AtomicBool>,
    fault: Arc<OnceLock<Fault>>,
    stall: Stall,
    version: Version,
    /// An upload can outlive its answer.
    _turn: Arc<Turn>,
}

/// Resolves once what a body rests on is no longer upheld.
type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Upload {
    /// Wraps the agent's body. `received` counts its bytes.
    pub fn new(
        incoming: Incoming,
        received: Arc<AtomicU64>,
        patience: Duration,
        version: Version,
        turn: Arc<Turn>,
    ) -> Self {
        let whole = Arc::new(AtomicBool::new(incoming.is_end_stream()));
        Self {
            incoming,
            revoked: None,
            received,
            whole,
            fault: Arc::default(),
            stall: Stall::new(patience),
            version,
            _turn: turn,
        }
    }

    /// Has it end there, although more would come.
    pub fn until(mut self, revoked: impl Future<Output = ()> + Send + 'static) -> Self {
        self.revoked = Some(Box::pin(revoked));
        self
    }

    /// The counter of its bytes.
    pub fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// What is wrong with the body, once that is known. It is forgotten on the way through HTTP/2.
    pub fn fault(&self) -> Arc<OnceLock<Fault>> {
        self.fault.clone()
    }

    /// A flag that is set once the body has been read to its end.
    pub fn whole(&self) -> Arc<AtomicBool> {
        self.whole.clone()
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(revoked) = &mut this.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err("no route admits the rest of the upload".into())));
        }
        loop {
            let polled = Pin::new(&mut this.incoming).poll_frame(cx);
            let polled = ready!(this.stall.watch(polled, cx)).inspect_err(|_| {
                // Over HTTP/2 no gate keeps the time of a body.
                _ = this.fault.set(Fault::BodyTimeout);
            });
            return Poll::Ready(match polled? {
                // hyper takes a stream that was reset with NO_ERROR for one that has ended (RFC 9113, section 8.1, where it is the
                // server's word). Passed on as an end, it would make a whole request of a part.
                None if this.version == Version::HTTP_2 && !this.incoming.is_end_stream() => {
                    _ = this.fault.set(Fault::TruncatedBody);
                    Some(Err("the agent reset the upload before its end".into()))
                }
                None => {
                    this.whole.store(true, Ordering::Release);
                    None
                }
                Some(Err(error)) => {
                    // Only the agent's connection can fail here. Without a fault of framing it was reset, or its TLS had
                    // no end.
                    let fault = Fault::find(&error).unwrap_or(Fault::TruncatedBody);
                    _ = this.fault.set(fault);
                    Some(Err(error.into()))
                }
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else {
                        continue;
                    };
                    this.received
                        .fetch_add(data.len() as u64, Ordering::Relaxed);
                    // At the declared length HTTP/2 may owe an empty frame yet, which an HTTP/1.1 upstream never waits for.
                    if this.incoming.is_end_stream() || this.incoming.size_hint().exact() == Some(0)
                    {
                        this.whole.store(true, Ordering::Release);
                    }
                    Some(Ok(frame))
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// An answer's body on its way to the agent. Its drop writes the request's record.
#[derive(Debug)]
pub struct Download {
    content: Content,
    record: Option<Record>,
    turn: Option<Arc<Turn>>,
}

#[derive(Debug)]
enum Content {
    Ours(Full<Bytes>),
    Relayed(Box<Relayed>),
}

/// What an upstream sends.
#[derive(Debug)]
struct Relayed {
    answer: Answer,
    trailers: Trailers,
    stall: Stall,
    checkin: Option<Checkin>,
    rewriter: Option<Rewriter>,
    pause: Pause,
    /// Trailers that wait for what the rewriter holds.
    late: Option<HeaderMap>,
}

/// Whether an answer's trailers pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailers {
    /// All are dropped.
    Drop,
    /// gRPC's status passes, the rest is dropped.
    Grpc,
}

impl Download {
    /// A text of ours.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Ours(Full::new(text.into())),
            record: None,
            turn: None,
        }
    }

    /// No bytes at all.
    pub fn empty() -> Self {
        Self::text(Bytes::new())
    }

    /// An upstream's body, through a rewriter where there is one. `checkin` returns the connection to the pool once the body
    /// was read to its end.
    pub fn relayed(
        answer: Answer,
        trailers: Trailers,
        patience: Duration,
        checkin: Option<Checkin>,
        rewriter: Option<Rewriter>,
    ) -> Self {
        let mut relayed = Relayed {
            answer,
            trailers,
            stall: Stall::new(patience),
            checkin,
            rewriter,
            pause: Pause::default(),
            late: None,
        };
        if relayed.answer.is_end_stream() {
            relayed.finish();
        }
        Self {
            content: Content::Relayed(Box::new(relayed)),
            record: None,
            turn: None,
        }
    }

    /// Keeps the request under way until the body's end.
    pub fn held_by(mut self, turn: Arc<Turn>) -> Self {
        self.turn = Some(turn);
        self
    }

    /// Has the record follow the body to its end.
    pub fn followed_by(mut self, record: Record) -> Self {
        self.record = Some(record);
        self
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.content {
            Content::Ours(full) => Pin::new(full)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Content::Relayed(relayed) => relayed.poll_frame(cx),
        };
        if let (Poll::Ready(Some(result)), Some(record)) = (&polled, &mut this.record) {
            match result {
                Ok(frame) => record.add_sent(frame.data_ref().map_or(0, |data| data.len() as u64)),
                Err(error) => record.broke_off(fault_of(error), error),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Ours(full) => full.is_end_stream(),
            Content::Relayed(relayed) => relayed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Ours(full) => full.size_hint(),
            Content::Relayed(relayed) => relayed.size_hint(),
        }
    }
}

/// What became of an answer that did not arrive whole.
fn fault_of(error: &BodyError) -> UpstreamFault {
    match error.is::<Stalled>() {
        true => UpstreamFault::BodyTimeout,
        false => UpstreamFault::BrokeOff,
    }
}

impl Relayed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(rewriter) = &mut self.rewriter {
                match rewriter.pull() {
                    Ok(None) => {}
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Err(corrupt) => {
                        self.checkin = None;
                        return Poll::Ready(Some(Err(corrupt.into())));
                    }
                }
            }
            if let Some(trailers) = self.late.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.rewriter.as_ref().is_some_and(Rewriter::has_ended) {
                return Poll::Ready(None);
            }
            let polled = Pin::new(&mut self.answer).poll_frame(cx);
            match &mut self.rewriter {
                Some(rewriter) if polled.is_pending() && rewriter.holds() => {
                    if self.pause.poll(cx).is_ready() {
                        rewriter.release();
                        continue;
                    }
                }
                _ => self.pause.end(),
            }
            return Poll::Ready(match ready!(self.stall.watch(polled, cx))? {
                None => {
                    self.finish();
                    if self.rewriter.is_some() {
                        continue;
                    }
                    None
                }
                Some(Err(error)) => {
                    self.checkin = None;
                    Some(Err(error))
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let is_last = self.answer.is_end_stream();
                        if let Some(rewriter) = &mut self.rewriter {
                            if is_last {
                                rewriter.push_last(data);
                                self.finish();
                            } else {
                                rewriter.push(data);
                            }
                            continue;
                        }
                        if is_last {
                            self.finish();
                        }
                        Some(Ok(Frame::data(data)))
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok();
                        self.late = trailers.and_then(|map| self.trailers.sift(map));
                        if let (Some(rewriter), Some(late)) = (&self.rewriter, &mut self.late) {
                            rewriter.mask_trailers(late);
                        }
                        self.finish();
                        continue;
                    }
                },
            });
        }
    }

    fn finish(&mut self) {
        if let Some(checkin) = self.checkin.take() {
            checkin.complete();
        }
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.finish();
        }
    }

    fn is_end_stream(&self) -> bool {
        let has_ended = match &self.rewriter {
            Some(rewriter) => rewriter.has_ended(),
            None => self.answer.is_end_stream(),
        };
        has_ended && self.late.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.answer.size_hint();
        match (&self.rewriter, hint.exact()) {
            (None, _) => hint,
            (Some(rewriter), Some(rest)) if rewriter.keeps_length() => {
                SizeHint::with_exact(rest + rewriter.held() as u64)
            }
            (Some(_), _) => SizeHint::default(),
        }
    }
}

impl Trailers {
    /// RFC 9110, section 6.5.1: a trailer can carry what a header check would have refused, so only names that are known
    /// to be safe pass.
    fn sift(self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        const GRPC: [HeaderName; 3] = [
            HeaderName::from_static("grpc-status"),
            HeaderName::from_static("grpc-message"),
            HeaderName::from_static("grpc-status-details-bin"),
        ];
        if self == Self::Drop {
            return None;
        }
        let mut passed = HeaderMap::new();
        for name in GRPC {
            if let Some(value) = trailers.remove(&name) {
                passed.insert(name, value);
            }
        }
        (!passed.is_empty()).then_some(passed)
    }
}

/// Notices when a body stands still. The timer is made at the first wait and is not touched while bytes flow.
#[derive(Debug)]
struct Stall {
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    moved: bool,
}

impl Stall {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            timer: None,
            moved: false,
        }
    }

    fn watch<T>(&mut self, polled: Poll<T>, cx: &mut Context<'_>) -> Poll<Result<T, Stalled>> {
        if let Poll::Ready(value) = polled {
            self.moved = true;
            return Poll::Ready(Ok(value));
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(self.patience)));
        while timer.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(Err(Stalled));
            }
            timer.as_mut().reset(Instant::now() + self.patience);
        }
        Poll::Pending
    }
}

/// No byte moved for as long as the body's deadline allows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no byte came for too long")]
pub struct Stalled;
