//! A defect on purpose: a panic in the middle of a request, whose message holds the credential. It is for tests of what a
//! panic shows: only builds with debug assertions have it, and `docker/build` looks that no other has.

use crate::credential::Secret;

/// The path of the request that it happens to.
const VARIABLE: &str = "EGRESS_DEBUG_PANIC_PATH";

/// Panics, where the environment names this path.
pub(super) fn strike(path: &str, secret: &Secret) {
    let named = std::env::var(VARIABLE).unwrap_or_default();
    assert!(path != named, "a secret: {}", secret.expose());
}
