//! The pure pieces of a request's way, each with what it is measured on: the micro-benchmarks time them, and the guard
//! counts their instructions. They are the functions that the data path calls, in its order.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use egress::credential::Secret;
use egress::proxy::headers;
use egress::proxy::reject::Reject;
use egress::redact::{Masker, Pattern};
use egress::route::denial::Denial;
use egress::route::passing::Cookies;
use egress::route::target::{InvalidTarget, Kind, Target, Via};
use egress::route::{Injection, Permit, Routes};
use http::header::{HOST, HeaderMap};
use http::{Request, Version};

use crate::inputs::{self, LONG, PIECE, SPREAD};

/// A piece of a request's way.
pub(crate) trait Piece {
    /// What it takes over.
    type Input;
    /// What it makes of that.
    type Output;

    /// The input of a turn. Making it is not measured.
    fn input(&self, turn: usize) -> Self::Input;

    /// What is measured.
    fn run(&self, input: Self::Input) -> Self::Output;
}

/// Reading the target of a request in a tunnel.
pub(crate) struct ReadTarget {
    request: Request<()>,
    via: Via,
}

impl ReadTarget {
    /// The path in the request line, the host in a field.
    pub(crate) fn http1() -> Self {
        Self::of(inputs::request(inputs::PATH))
    }

    /// `:scheme` and `:authority`.
    pub(crate) fn http2() -> Self {
        let uri = format!("https://{}{}", inputs::HOST, inputs::PATH);
        let mut request = inputs::request(&uri);
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        Self::of(request)
    }

    fn of(request: Request<()>) -> Self {
        let via = Via::Tunnel(inputs::origin(inputs::HOST));
        let piece = Self { request, via };
        piece.run(()).expect("a target");
        piece
    }
}

impl Piece for ReadTarget {
    type Input = ();
    type Output = Result<Target, InvalidTarget>;

    fn input(&self, _: usize) {}

    fn run(&self, (): ()) -> Self::Output {
        Target::from_request(&self.request, &self.via, Kind::Exchange)
    }
}

/// Deciding, where each route is for a host of its own, and one in ten for those below it.
pub(crate) struct Decide {
    /// Several of the same, where it is small. Each hashes by a seed of its own, which no run shares with another, and a
    /// seed by which two hosts collide costs more.
    policies: Vec<Arc<Routes>>,
    targets: Vec<Target>,
    routes: usize,
}

impl Decide {
    /// In a policy of so many routes.
    pub(crate) fn among(routes: usize) -> Self {
        let rules = inputs::rules(routes);
        let policy = || Routes::new(rules.clone(), None).expect("one route a host");
        let copies = (SPREAD / routes).max(1);
        let policies: Vec<_> = (0..copies).map(|_| Arc::new(policy())).collect();
        let piece = Self {
            policies,
            targets: inputs::targets(routes),
            routes,
        };
        for turn in 0..SPREAD {
            piece.run(piece.input(turn)).expect("a permit");
        }
        piece
    }
}

impl Piece for Decide {
    type Input = (Arc<Routes>, Target);
    type Output = Result<Permit, Denial>;

    fn input(&self, turn: usize) -> Self::Input {
        // Each host of a small policy, and then the same of the next.
        let policy = inputs::at(&self.policies, turn / self.routes);
        (policy.clone(), inputs::at(&self.targets, turn).clone())
    }

    fn run(&self, (policy, target): Self::Input) -> Self::Output {
        policy.decide(target)
    }
}

/// Taking off a request's headers what is not for the upstream.
pub(crate) struct Strip(Injection);

impl Strip {
    /// On a route that injects.
    pub(crate) fn new() -> Self {
        Self(inputs::injection())
    }
}

impl Piece for Strip {
    type Input = HeaderMap;
    type Output = HeaderMap;

    fn input(&self, _: usize) -> HeaderMap {
        inputs::headers()
    }

    fn run(&self, mut headers: HeaderMap) -> HeaderMap {
        headers::strip(&mut headers, Some(&self.0), &Cookies::usual(true));
        headers
    }
}

/// Putting the credential on.
pub(crate) struct Inject {
    stripped: HeaderMap,
    injection: Injection,
    secret: Secret,
}

impl Inject {
    /// One as long as a token of a ChatGPT login.
    pub(crate) fn new() -> Self {
        let strip = Strip::new();
        Self {
            stripped: strip.run(strip.input(0)),
            injection: strip.0,
            secret: Secret::new(inputs::credential(LONG)),
        }
    }
}

impl Piece for Inject {
    type Input = HeaderMap;
    type Output = Result<HeaderMap, Reject>;

    fn input(&self, _: usize) -> HeaderMap {
        self.stripped.clone()
    }

    fn run(&self, mut headers: HeaderMap) -> Self::Output {
        headers::inject(&mut headers, &self.injection, &self.secret)?;
        Ok(headers)
    }
}

/// Masking 16 KiB of a body in which the credential does not occur.
pub(crate) struct Mask {
    masker: RefCell<Masker>,
    pieces: Vec<Bytes>,
}

impl Mask {
    /// JSON, and a credential of so many characters.
    pub(crate) fn json(length: usize) -> Self {
        Self::of(inputs::json(), length)
    }

    /// Random bytes.
    pub(crate) fn noise(length: usize) -> Self {
        Self::of(inputs::noise(), length)
    }

    fn of(body: Bytes, length: usize) -> Self {
        let pattern = Pattern::new([inputs::credential(length).as_str()]).expect("long enough");
        assert!(pattern.masked(&body).is_none(), "nothing is to be masked");
        let cuts = (0..body.len()).step_by(PIECE);
        Self {
            masker: RefCell::new(Masker::new(Arc::new(pattern))),
            pieces: cuts.map(|cut| body.slice(cut..cut + PIECE)).collect(),
        }
    }
}

impl Piece for Mask {
    type Input = Bytes;
    type Output = [Option<Bytes>; 2];

    fn input(&self, turn: usize) -> Bytes {
        inputs::at(&self.pieces, turn).clone()
    }

    fn run(&self, piece: Bytes) -> Self::Output {
        let mut masked = self.masker.borrow_mut().push(piece);
        [masked.next(), masked.next()]
    }
}
