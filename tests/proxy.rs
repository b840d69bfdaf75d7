//! What the sidecar must do on the wire, with an agent of our own that can misbehave.

mod access;
mod credentials;
mod framing;
mod identity;
mod identity_http2;
mod lifecycle;
mod paths;
mod refusals;
mod reloading;
mod routes_file;
mod slots;
mod stopping;
mod transport;
