//! Both HTTP versions on both sides: an agent's connection that speaks either, and a sidecar between an upstream that
//! offers HTTP/1.1 alone and one that offers HTTP/2 alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor as _;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::agent::Agent;
use super::pki::Pki;
use super::sidecar::{Builder, Sidecar};
use super::upstream::{Body, Call, Upstream};
use super::within;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

/// The agent's version, and the upstream's.
pub(crate) const PAIRS: [(Http, Http); 4] = [
    (Http::One, Http::One),
    (Http::One, Http::Two),
    (Http::Two, Http::One),
    (Http::Two, Http::Two),
];

impl Http {
    pub(crate) fn alpn(self) -> &'static str {
        match self {
            Self::One => "http/1.1",
            Self::Two => "h2",
        }
    }

    pub(crate) fn version(self) -> Version {
        match self {
            Self::One => Version::HTTP_11,
            Self::Two => Version::HTTP_2,
        }
    }

    /// The host whose upstream offers this version and no other.
    pub(crate) fn host(self) -> &'static str {
        match self {
            Self::One => "h1.test",
            Self::Two => "h2.test",
        }
    }
}

/// A sidecar before two upstreams with the same handler, which reads the bodies itself.
pub(crate) struct Versions {
    h1: Upstream,
    h2: Upstream,
    pub(crate) sidecar: Sidecar,
    pub(crate) agent: Agent,
}

impl Versions {
    pub(crate) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Call) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_with(handler, |builder| builder).await
    }

    /// The same, with further settings of the sidecar.
    pub(crate) async fn start_with<F, R>(handler: F, set: impl FnOnce(Builder) -> Builder) -> Self
    where
        F: Fn(Call) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let pki = Pki::new();
        let of = |http: Http| Upstream::with_tls(pki.server_config(&[http.alpn()])).streaming();
        let h1 = of(Http::One).start(handler.clone()).await;
        let h2 = of(Http::Two).start(handler).await;
        let routes = format!(
            "routes:\n  - {{host: h1.test, connect_to: {}}}\n  - {{host: h2.test, connect_to: {}}}\n",
            h1.addr(),
            h2.addr()
        );
        let sidecar = set(Sidecar::with_routes(&pki, routes)).start().await;
        let agent = Agent::of(&sidecar);
        Self {
            h1,
            h2,
            sidecar,
            agent,
        }
    }

    pub(crate) fn upstream(&self, http: Http) -> &Upstream {
        match http {
            Http::One => &self.h1,
            Http::Two => &self.h2,
        }
    }

    /// A tunnel that speaks `agent` to the upstream that speaks `upstream`.
    pub(crate) async fn client(&self, agent: Http, upstream: Http) -> Client {
        Client::open(&self.agent, agent, upstream.host()).await
    }
}

/// One tunnel, and the requests on it. Bodies may be streamed both ways.
pub(crate) struct Client {
    host: String,
    sender: Sender,
    tasks: Tasks,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn open(agent: &Agent, http: Http, host: &str) -> Self {
        let tunnel = agent
            .tunnel(&format!("{host}:443"), host, &[http.alpn()])
            .await;
        let tunnel = TokioIo::new(tunnel.expect("a TLS tunnel"));
        let tasks = Tasks::default();
        let sender = match http {
            Http::One => {
                let (sender, connection) = http1::handshake(tunnel).await.expect("HTTP/1.1");
                tasks.execute(async { _ = connection.await });
                Sender::One(sender)
            }
            Http::Two => {
                let handshake = http2::handshake(tasks.clone(), tunnel).await;
                let (sender, connection) = handshake.expect("HTTP/2");
                tasks.execute(async { _ = connection.await });
                Sender::Two(sender)
            }
        };
        Self {
            host: host.to_owned(),
            sender,
            tasks,
        }
    }

    /// The same HTTP/2 connection once more, for a stream beside the others.
    pub(crate) fn beside(&self) -> Self {
        let Sender::Two(sender) = &self.sender else {
            panic!("HTTP/1.1 has one exchange at a time");
        };
        Self {
            host: self.host.clone(),
            sender: Sender::Two(sender.clone()),
            tasks: self.tasks.clone(),
        }
    }

    /// Sends a request for a path, and returns the answer's head, with its body still to come.
    pub(crate) async fn start(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().expect("a path").as_str();
        let sending: Pin<Box<dyn Future<Output = _> + Send>> = match &mut self.sender {
            Sender::One(sender) => {
                let host = self.host.parse().expect("a host is visible ASCII");
                head.headers.insert(header::HOST, host);
                Box::pin(sender.send_request(Request::from_parts(head, body)))
            }
            Sender::Two(sender) => {
                head.uri = format!("https://{}{path}", self.host)
                    .parse()
                    .expect("a valid URL");
                Box::pin(sender.send_request(Request::from_parts(head, body)))
            }
        };
        within("answer", sending).await
    }

    /// Sends a request, and reads the whole answer.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Whole {
        let answer = self.start(request).await.expect("an answer");
        Whole::of(answer).await
    }

    /// Goes away without a word.
    pub(crate) fn vanish(self) {
        let mut tasks = self.tasks.0.lock().expect("no holder panicked");
        tasks.abort_all();
    }
}

/// What drives a connection, all of it, so that it can be stopped dead. It goes on where the client is dropped.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock().expect("no holder panicked");
        tasks.spawn(async { _ = task.await });
    }
}

/// An answer with its trailers.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(crate) async fn of(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        let body = within("end of the answer", body.collect()).await;
        let body = body.expect("a whole body");
        Self {
            head,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// `x-egress-error`, where the answer is the sidecar's own.
    pub(crate) fn code(&self) -> Option<&str> {
        self.head.headers.get("x-egress-error")?.to_str().ok()
    }
}
