//! The injected credential in what an upstream answers: it is masked in headers, bodies, trailers and WebSockets.
//!
//! It is defence in depth: an upstream is honest, and may still say back what it was sent. The forms and the search are
//! [`crate::redact`]'s; here is what HTTP has to say about it.

pub mod coding;
pub mod frames;
pub mod gzip;
pub mod rewriter;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue,
    SEC_WEBSOCKET_EXTENSIONS,
};
use http::{Method, StatusCode, request, response};
use hyper::ext::ReasonPhrase;
use tokio::sync::Semaphore;

use self::coding::{Coding, ask_for_readable};
use self::frames::Frames;
use self::rewriter::Rewriter;
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
}

impl Redaction {
    /// For a request that gets this credential. The request asks for nothing that could not be read in the answer.
    /// `places` counts what is masked.
    pub fn of(
        rule: &Rule,
        lease: &Lease,
        head: &mut request::Parts,
        places: &Arc<AtomicU64>,
    ) -> Self {
        let injection = rule
            .injection
            .as_ref()
            .filter(|_| rule.redact == Redact::Mask);
        let pattern = injection.and_then(|injection| match &injection.scheme {
            AuthScheme::Basic { user } => lease.pattern(Some(user)),
            AuthScheme::Bearer | AuthScheme::Token | AuthScheme::Raw => lease.pattern(None),
        });
        if pattern.is_some() {
            ask_for_readable(&mut head.headers);
        }
        Self {
            pattern,
            places: places.clone(),
        }
    }

    /// Masks an answer's head, and says what happens to its body; `None` where that passes as it is. `decoders` has a permit for
    /// each body that may be decoded at once.
    ///
    /// # Errors
    ///
    /// [`Cause::UpstreamCoding`] for a body in which nothing could be found, [`Cause::Decoders`] where no permit is left.
    pub fn rewrite(
        &self,
        method: &Method,
        head: &mut response::Parts,
        decoders: &Arc<Semaphore>,
    ) -> Result<Option<Rewriter>, Reject> {
        let Some(pattern) = &self.pattern else {
            return Ok(None);
        };
        self.mask_head(head);
        // Their headers tell of a body that is not there.
        if method == Method::HEAD
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            )
        {
            return Ok(None);
        }
        let is_range = head.status == StatusCode::PARTIAL_CONTENT;
        let coding = Coding::of(&head.headers);
        let rewriter = match coding
            .map_err(|error| Reject::new(Cause::UpstreamCoding).because(error))?
        {
            Coding::Identity if is_range => Rewriter::plain(Masker::of_range(pattern.clone())),
            Coding::Identity => Rewriter::plain(Masker::new(pattern.clone())),
            Coding::Gzip if is_range => {
                return Err(Reject::new(Cause::UpstreamCoding).because("a range of a gzip answer"));
            }
            Coding::Gzip => {
                let permit = decoders.clone().try_acquire_owned();
                let permit = permit.map_err(|error| Reject::new(Cause::Decoders).because(error))?;
                frame_anew(&mut head.headers);
                Rewriter::gzip(Masker::new(pattern.clone()), permit)
            }
        };
        Ok(Some(
            rewriter.counting(pattern.clone(), self.places.clone()),
        ))
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

/// Masks every value, and takes off each header whose name holds the credential. Returns how many places that were.
fn mask_headers(pattern: &Pattern, headers: &mut HeaderMap) -> u64 {
    let names = headers.keys();
    let named = names.filter(|name| pattern.masked(name.as_str().as_bytes()).is_some());
    let named: Vec<HeaderName> = named.cloned().collect();
    let mut places = named.len() as u64;
    for name in named {
        headers.remove(name);
    }
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
        ACCEPT_RANGES,
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

/// As many decoders as a number of bytes allows.
pub fn decoders(bytes: usize) -> Arc<Semaphore> {
    let most = Semaphore::MAX_PERMITS;
    Arc::new(Semaphore::new((bytes / rewriter::DECODER).min(most)))
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
