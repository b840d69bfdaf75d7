//! The injected credential in what an upstream answers: it is masked in headers, bodies, trailers and WebSockets.
//!
//! It is defence in depth: an upstream is honest, and may still say back what it was sent. The forms and the search are
//! [`crate::redact`]'s; here is what HTTP has to say about it.

pub mod brotli;
pub mod codec;
pub mod coding;
pub mod frames;
pub mod grpc;
pub mod gzip;
pub mod pause;
pub mod rewriter;
pub mod zstd;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
    SEC_WEBSOCKET_EXTENSIONS,
};
use http::{Method, StatusCode, request, response};
use hyper::ext::ReasonPhrase;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use self::codec::{Corrupt, Decode, Encode};
use self::coding::{Coding, ask_for_readable, asked};
use self::frames::Frames;
use self::rewriter::Rewriter;
use super::headers::{is_grpc, remove_all};
use super::reject::{Cause, Reject};
use crate::credential::Lease;
use crate::policy::Policy;
use crate::redact::{Masker, Pattern, SHORTEST};
use crate::route::passing::Redact;
use crate::route::{AuthScheme, Rule};

/// What becomes of one exchange's answer.
#[derive(Debug, Default)]
pub struct Redaction {
    pattern: Option<Arc<Pattern>>,
    places: Arc<AtomicU64>,
    /// For the dearest coding that the request asks for.
    reserved: Option<OwnedSemaphorePermit>,
}

impl Redaction {
    /// For a request that gets this credential. The request asks for nothing that could not be read in the answer, and for
    /// the whole of it: a part that the agent chose can cut a credential in two.
    /// `places` counts what is masked, and `decoders` has the memory for answers that are decoded.
    pub fn of(
        rule: &Rule,
        lease: &Lease,
        head: &mut request::Parts,
        places: &Arc<AtomicU64>,
        decoders: &Arc<Semaphore>,
    ) -> Self {
        let injection = rule
            .injection
            .as_ref()
            .filter(|_| rule.redact == Redact::Mask);
        let pattern = injection.and_then(|injection| match &injection.scheme {
            AuthScheme::Basic { user } => lease.pattern(Some(user)),
            AuthScheme::Bearer | AuthScheme::Token | AuthScheme::Raw => lease.pattern(None),
        });
        let mut reserved = None;
        if pattern.is_some() {
            for name in [RANGE, IF_RANGE, X_MS_RANGE] {
                head.headers.remove(name);
            }
            reserved = reserve_dearest(&head.headers, decoders);
            let most = reserved
                .as_ref()
                .map_or(0, OwnedSemaphorePermit::num_permits)
                * UNIT;
            ask_for_readable(&mut head.headers, most.max(Coding::Gzip.cost()));
        }
        Self {
            pattern,
            places: places.clone(),
            reserved,
        }
    }

    /// Masks an answer's head, and says what happens to its body; `None` where that passes as it is. `decoders` has the
    /// memory for bodies that are decoded.
    ///
    /// # Errors
    ///
    /// [`Cause::UpstreamCoding`] for a body in which nothing could be found or that is a part of one, [`Cause::Decoders`] where too little is left.
    pub fn rewrite(
        &mut self,
        method: &Method,
        head: &mut response::Parts,
        decoders: &Arc<Semaphore>,
    ) -> Result<Option<Rewriter>, Reject> {
        let Some(pattern) = self.pattern.clone() else {
            return Ok(None);
        };
        self.mask_head(head);
        let masker = Masker::new(pattern.clone());
        // Their headers tell of a body that is not there. Should there be one all the same, it is in no coding.
        let is_bare = method == Method::HEAD
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let rewriter = match is_bare {
            true => Rewriter::plain(masker),
            false => self.read(masker, head, decoders)?,
        };
        Ok(Some(rewriter.counting(pattern, self.places.clone())))
    }

    /// Reads a body's coding.
    fn read(
        &mut self,
        masker: Masker,
        head: &mut response::Parts,
        decoders: &Arc<Semaphore>,
    ) -> Result<Rewriter, Reject> {
        if head.status == StatusCode::PARTIAL_CONTENT {
            return Err(Reject::new(Cause::UpstreamCoding).because("a part of an answer"));
        }
        head.headers.remove(ACCEPT_RANGES);
        let coding = Coding::of(&head.headers)
            .map_err(|error| Reject::new(Cause::UpstreamCoding).because(error))?;
        let reserved = self.reserved.take();
        let permit = match coding {
            Coding::Identity => None,
            _ => Some(afford(coding, reserved, decoders)),
        };
        let permit = permit
            .transpose()
            .map_err(|error| Reject::new(Cause::Decoders).because(error))?;
        let codec = codec(coding).map_err(|error| Reject::new(Cause::Decoders).because(error))?;
        Ok(match codec {
            None if is_grpc(&head.headers) => Rewriter::messages(masker),
            None => Rewriter::plain(masker),
            Some(codec) => {
                frame_anew(&mut head.headers);
                Rewriter::coded(masker, codec, permit)
            }
        })
    }

    /// Masks the head of a 101, and says what happens to the frames behind it; `None` where they pass as they are: where
    /// nothing is masked, and where an extension was negotiated, which may have changed what a payload is.
    pub fn rewrite_frames(&self, head: &mut response::Parts) -> Option<Frames> {
        let pattern = self.pattern.as_ref()?;
        self.mask_head(head);
        if head.headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return None;
        }
        Some(Frames::new(pattern.clone(), self.places.clone()))
    }

    fn mask_head(&self, head: &mut response::Parts) {
        let Some(pattern) = &self.pattern else { return };
        head.extensions.remove::<ReasonPhrase>();
        let places = mask_headers(pattern, &mut head.headers);
        self.places.fetch_add(places, Ordering::Relaxed);
    }
}

/// Azure's own name for `Range`.
const X_MS_RANGE: HeaderName = HeaderName::from_static("x-ms-range");

/// Memory for the dearest coding that a request asks for, where as much is left over for answers in gzip, which cost little:
/// no answer is then refused for its coding.
fn reserve_dearest(headers: &HeaderMap, decoders: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    [Coding::Brotli, Coding::Zstd]
        .into_iter()
        .filter(|coding| asked(headers).any(|asked| asked == *coding))
        .filter(|coding| decoders.available_permits() >= 2 * units(*coding))
        .find_map(|coding| reserve(coding, decoders).ok())
}

fn reserve(
    coding: Coding,
    decoders: &Arc<Semaphore>,
) -> Result<OwnedSemaphorePermit, TryAcquireError> {
    let units = units(coding) as u32;
    decoders.clone().try_acquire_many_owned(units)
}

/// What a coding costs, of what was reserved or of what is left.
fn afford(
    coding: Coding,
    reserved: Option<OwnedSemaphorePermit>,
    decoders: &Arc<Semaphore>,
) -> Result<OwnedSemaphorePermit, TryAcquireError> {
    let part = reserved.and_then(|mut reserved| reserved.split(units(coding)));
    part.map_or_else(|| reserve(coding, decoders), Ok)
}

fn units(coding: Coding) -> usize {
    coding.cost().div_ceil(UNIT)
}

/// Memory that is reserved at once, in bytes.
const UNIT: usize = 64 * 1024;

type Codec = (Box<dyn Decode>, Box<dyn Encode>);

fn codec(coding: Coding) -> Result<Option<Codec>, Corrupt> {
    Ok(match coding {
        Coding::Identity => None,
        Coding::Gzip => Some((
            Box::new(gzip::Reader::default()),
            Box::new(gzip::Writer::default()),
        )),
        Coding::Brotli => Some((
            Box::new(brotli::Reader::default()),
            Box::new(brotli::Writer::default()),
        )),
        Coding::Zstd => Some((
            Box::new(zstd::Reader::new()?),
            Box::new(zstd::Writer::default()),
        )),
    })
}

/// Masks every value, and takes off each header whose name holds the credential. Returns how many places that were.
fn mask_headers(pattern: &Pattern, headers: &mut HeaderMap) -> u64 {
    let mut places = remove_all(headers, |name| pattern.is_in_name(name.as_bytes())) as u64;
    for value in headers.values_mut() {
        if let Some((masked, found)) = pattern.masked(value.as_bytes()) {
            // What was a value is one with some of its bytes replaced.
            *value = HeaderValue::from_bytes(&masked).unwrap_or(HeaderValue::from_static("*"));
            places += found;
        }
    }
    places
}

/// Takes off what is not true of a body any more that has the same content in other bytes (RFC 9110, sections 8.8.1 and
/// 14.3; RFC 9530).
fn frame_anew(headers: &mut HeaderMap) {
    for name in [
        CONTENT_LENGTH,
        HeaderName::from_static("digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("content-md5"),
    ] {
        headers.remove(name);
    }
    let weak = headers
        .get(ETAG)
        .filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak = weak.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
    if let Some(weak) = weak {
        headers.insert(ETAG, weak);
    }
}

/// The memory for decoders, of a number of bytes.
pub fn decoders(bytes: usize) -> Arc<Semaphore> {
    let most = Semaphore::MAX_PERMITS;
    Arc::new(Semaphore::new((bytes / UNIT).min(most)))
}

/// Tells the operator of each slot whose value will not be masked although a route asks for it.
pub fn warn_of_short_values(policy: &Policy) {
    for slot in policy
        .slots
        .iter()
        .filter(|slot| slot.is_short() == Some(true))
    {
        let asked = policy.routes.iter().any(|route| {
            let injection = route.rule.injection.as_ref();
            route.rule.redact == Redact::Mask
                && injection.is_some_and(|injection| injection.slot == *slot.name())
        });
        if asked {
            tracing::warn!(slot = %slot.name(), "the value has less than {SHORTEST} bytes and is not masked in answers");
        }
    }
}

#[cfg(test)]
mod tests;
