//! The way to an upstream: [`Upstream::send`] for a request, [`Upstream::open`] for a WebSocket or a passthrough tunnel.
//!
//! Both demand a [`Permit`], so a request that no route decided on cannot be sent: it does not compile.

mod answer;
mod dial;
mod http2;
mod interim;
mod lookups;
mod pool;
mod prompt;
mod tls;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{self, Authority};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub use self::answer::Answer;
pub use self::dial::{Dialer, ProxyUrl, Stream};
pub use self::pool::{Checkin, Kept, Pool};
pub use self::tls::{Roots, TlsClients, TlsFault};

use self::http2::Shared;
use self::pool::{Connection, Home, Http1, Key, Place};
use self::prompt::Prompt;
use self::tls::Alpn;
use super::body::Upload;
use super::limits::Limits;
use super::reject::{Cause, Reject, Wait};
use crate::policy::{Lasting, Policy};
use crate::route::Permit;
use crate::route::target::Scheme;

/// Connections to upstreams, and what making them takes.
#[derive(Debug)]
pub struct Upstream {
    dialer: Dialer,
    tls: TlsClients,
    pool: Pool,
    limits: Limits,
}

/// What came of a request.
#[derive(Debug)]
pub struct Answered {
    /// The answer's head, with its body still streaming.
    pub answer: Response<Answer>,
    /// What brings the connection back after it.
    pub checkin: Option<Checkin>,
    /// The address that was spoken to.
    pub peer: Option<SocketAddr>,
}

impl Upstream {
    /// Puts the parts together. Nothing is dialled before a request asks for it.
    pub fn new(dialer: Dialer, tls: TlsClients, limits: Limits) -> Self {
        Self {
            dialer,
            tls,
            pool: Pool::new(limits.pool_idle, limits.pooled),
            limits,
        }
    }

    /// Sends a request whose headers are final, and returns the answer's head with its body still streaming.
    ///
    /// A request that could not be written at all to a connection from the pool goes out once more on another one.
    ///
    /// # Errors
    ///
    /// A [`Reject`] by [`Side::Upstream`](super::reject::Side::Upstream), or of the address guard.
    pub async fn send(
        &self,
        permit: &Permit,
        lasting: Lasting,
        mut request: Request<Upload>,
    ) -> Result<Answered, Reject> {
        let origin = permit.target().origin();
        let key = Key {
            lasting,
            origin: origin.clone(),
        };
        let body = request.body();
        let (whole, received, fault) = (body.whole(), body.received(), body.fault());
        let place = self.pool.place(&key);
        let carries_body = !body.is_end_stream();
        let mut waiting = place.checkout().await;
        loop {
            let reused = waiting.is_some();
            let mut connection = match waiting.take() {
                Some(connection) => connection,
                // Boxed: what a dial takes would be in the way of all that find a connection.
                None => Box::pin(self.connect(permit, &place)).await?,
            };
            address(
                &mut request,
                permit,
                &place.authority,
                connection.speaks_h2(),
            )?;
            frame(&mut request);
            let peer = connection.peer();
            let answered = self
                .answered(pin!(connection.try_send(request)), &received)
                .await
                .ok_or_else(|| {
                    let reject = Reject::new(Cause::UpstreamTimeout(Wait::Answer)).at(origin);
                    reject.because("no answer in time").once_sent(peer)
                })?;
            match answered {
                Ok(mut response) => {
                    // Nobody knows where the next message begins on a connection whose answer overtook its request, or
                    // was framed in two ways. Nor whether an upstream has read a body: one that answers without a look
                    // at it takes it for the next request, which no route has decided on, and to which the head of the
                    // one that comes then would add the credential.
                    let early = !whole.load(Ordering::Acquire);
                    let twofold = drop_second_framing(response.headers_mut());
                    let unread = carries_body && permit.route().rule.decides();
                    let home = if early || twofold || unread {
                        Home::default()
                    } else {
                        place.home()
                    };
                    return Ok(Answered {
                        peer: connection.peer(),
                        answer: response,
                        checkin: connection.checkin(home),
                    });
                }
                Err(failed) => match failed.unsent {
                    Some(unsent) if reused => request = unsent,
                    _ => {
                        // By the agent's own body, where the gate cut it off; else by the upstream.
                        let reject = match fault.get() {
                            Some(fault) => Reject::new(Cause::Framing(*fault)),
                            None => Reject::new(Cause::UpstreamProtocol).because(failed.error),
                        };
                        return Err(reject.at(origin).once_sent(peer));
                    }
                },
            }
        }
    }

    /// Waits for an answer for as long as the deadline allows, beginning anew while the upload still moves.
    async fn answered<T>(
        &self,
        mut answer: Pin<&mut impl Future<Output = T>>,
        received: &AtomicU64,
    ) -> Option<T> {
        loop {
            let before = received.load(Ordering::Relaxed);
            if let Ok(answer) = timeout(self.limits.answer, answer.as_mut()).await {
                return Some(answer);
            }
            if received.load(Ordering::Relaxed) == before {
                return None;
            }
        }
    }

    /// Opens a connection of its own that speaks HTTP/1.1, for a handshake that takes it over. With the address of its end.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn open(&self, permit: &Permit) -> Result<(Stream, Option<SocketAddr>), Reject> {
        let tcp = self.dialer.dial(permit).await?;
        let peer = tcp.peer_addr().ok();
        let stream = match permit.target().origin().scheme {
            Scheme::Http => Stream::Left(Prompt::new(tcp)),
            Scheme::Https => Stream::Right(self.secure(permit, tcp, Alpn::Http11).await?),
        };
        Ok((stream, peer))
    }

    /// Opens a connection whose TLS is not ours, for a passthrough tunnel.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn open_raw(&self, permit: &Permit) -> Result<TcpStream, Reject> {
        self.dialer.dial(permit).await
    }

    /// Drops the connections that a new policy does not uphold.
    pub fn retain(&self, policy: &Policy) {
        self.pool.retain(|key| policy.upholds(&key.lasting));
        self.tls
            .forget_routes(|route| policy.routes.get(route).is_some());
    }

    /// How many connections wait for requests.
    pub fn kept(&self) -> Kept {
        self.pool.kept()
    }

    /// Closes connections that were idle for too long. Call it now and then.
    pub fn reap(&self) {
        self.pool.reap();
    }

    async fn connect(&self, permit: &Permit, place: &Place) -> Result<Connection, Reject> {
        // One dial at a time to an origin that is known to speak HTTP/2: the others share the connection that it makes.
        // Nobody waits for longer than a dial may take, or a dead upstream would cost its callers one wait after the other.
        let _turn = match place.turn() {
            Some(turn) => timeout(self.limits.connect, turn.lock_owned()).await.ok(),
            None => None,
        };
        if let Some(shared) = place.shared() {
            return Ok(shared);
        }
        let tcp = self.dialer.dial(permit).await?;
        let peer = tcp.peer_addr().ok();
        if permit.target().origin().scheme == Scheme::Http {
            return self
                .handshake_h1(permit, Stream::Left(Prompt::new(tcp)), peer)
                .await;
        }
        let tls = self.secure(permit, tcp, Alpn::Any).await?;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            let connection = self.handshake_h2(permit, Stream::Right(tls), peer).await?;
            place.share(&connection);
            return Ok(connection);
        }
        self.handshake_h1(permit, Stream::Right(tls), peer).await
    }

    async fn secure(
        &self,
        permit: &Permit,
        tcp: TcpStream,
        alpn: Alpn,
    ) -> Result<TlsStream<Prompt>, Reject> {
        let origin = permit.target().origin();
        let name = tls::server_name(&origin.host)
            .map_err(|error| Reject::new(Cause::UpstreamTls).because(error))?;
        let connector = self
            .tls
            .connector(permit.route(), alpn)
            .map_err(|error| Reject::new(Cause::UpstreamTls).at(origin).because(error))?;
        let handshake = connector.connect(name, Prompt::new(tcp));
        match timeout(self.limits.handshake, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Reject::new(Cause::UpstreamTls).at(origin).because(error)),
            Err(_) => Err(Reject::new(Cause::UpstreamTimeout(Wait::Handshake))
                .at(origin)
                .because("no TLS handshake in time")),
        }
    }

    async fn handshake_h1(
        &self,
        permit: &Permit,
        mut stream: Stream,
        peer: Option<SocketAddr>,
    ) -> Result<Connection, Reject> {
        let prompt = match &mut stream {
            Stream::Left(plain) => plain,
            Stream::Right(tls) => tls.get_mut().0,
        };
        prompt.ask();
        let interim = prompt.interim();
        let (sender, connection) = self
            .limits
            .http1_client()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| {
                Reject::new(Cause::UpstreamProtocol)
                    .at(permit.target().origin())
                    .because(error)
            })?;
        tokio::spawn(connection);
        Ok(Connection::H1(Http1 {
            sender,
            interim,
            peer,
        }))
    }

    async fn handshake_h2(
        &self,
        permit: &Permit,
        stream: Stream,
        peer: Option<SocketAddr>,
    ) -> Result<Connection, Reject> {
        let started = Shared::start(&self.limits, stream, peer).await;
        started.map(Connection::h2).map_err(|error| {
            Reject::new(Cause::UpstreamProtocol)
                .at(permit.target().origin())
                .because(error)
        })
    }
}

/// Writes the origin that was decided on into the request, in the form that the connection's protocol wants. The path is
/// the very bytes of the permit's target.
fn address<B>(
    request: &mut Request<B>,
    permit: &Permit,
    authority: &Authority,
    h2: bool,
) -> Result<(), Reject> {
    let target = permit.target();
    let invalid = || Reject::new(Cause::UpstreamProtocol).at(target.origin());
    let mut uri = uri::Parts::default();
    uri.path_and_query = Some(target.path_and_query().clone());
    if h2 {
        uri.scheme = Some(match target.origin().scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
        uri.authority = Some(authority.clone());
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
    } else {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid())?;
        request.headers_mut().insert(HOST, host);
        *request.version_mut() = Version::HTTP_11;
    }
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| invalid())?;
    Ok(())
}

/// Spells out the framing of a body without a length. hyper would leave the body of a GET or HEAD out otherwise.
///
/// The agent's own lengths, which HTTP/2 lets it repeat, leave empty and pad with zeros, become the one that was counted.
fn frame(request: &mut Request<Upload>) {
    let body = request.body();
    let length = match body.is_end_stream() {
        true => Some(0),
        false => body.size_hint().exact(),
    };
    // Over HTTP/1.1 hyper says so itself where there is no body although the method has one (RFC 9110, section 8.6).
    let is_due = request.version() == Version::HTTP_2
        && !matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::DELETE
        );
    if let Some(length) =
        length.filter(|_| is_due || request.headers().contains_key(CONTENT_LENGTH))
    {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    let body = request.body();
    let is_known = body.is_end_stream() || body.size_hint().exact().is_some();
    if request.version() == Version::HTTP_11 && !is_known {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    } else {
        // An unsent request may have been framed for another connection.
        request.headers_mut().remove(TRANSFER_ENCODING);
    }
}

/// Takes the length off an answer that has a transfer coding too, and was read by that (RFC 9112, section 6.3). Whether it
/// had both.
fn drop_second_framing(headers: &mut HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) && headers.remove(CONTENT_LENGTH).is_some()
}

/// Prepares a handshake that takes an HTTP/1.1 connection over.
pub(super) fn address_h1<B>(request: &mut Request<B>, permit: &Permit) -> Result<(), Reject> {
    let authority = pool::authority(permit.target().origin());
    address(request, permit, &authority, false)
}

/// The sidecar's own listeners, which no upstream may be.
pub type OwnListeners = Arc<[SocketAddr]>;
