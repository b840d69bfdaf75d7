//! Interim answers (RFC 9110, section 15.2), and an end to them.
//!
//! hyper takes as many of them over HTTP/1.1 as there are, in one step, and holds up whatever else its thread has to do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Request;

/// How many interim answers came to the latest request on an HTTP/1.1 connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Interim(Arc<AtomicU32>);

/// More than [`MOST`] interim answers came.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interim answers without end")]
pub(super) struct WithoutEnd;

/// An upstream that works for an hour and says so every ten seconds sends fewer.
pub(super) const MOST: u32 = 1000;

impl Interim {
    /// Counts those to a request that is about to be sent.
    pub(super) fn count<B>(&self, request: &mut Request<B>) {
        self.0.store(0, Ordering::Relaxed);
        let seen = self.0.clone();
        hyper::ext::on_informational(request, move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Fails where there were too many.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) <= MOST {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, WithoutEnd))
    }
}
