//! What the sidecar must do on the wire, with an agent of our own that can misbehave.

mod access;
mod audit;
mod credentials;
mod dialling;
mod dns;
mod events;
mod explaining;
mod framing;
mod handed;
mod hostile;
mod interceptor;
mod lifecycle;
mod metrics;
mod observe;
mod passthrough;
mod paths;
mod pooling;
mod protocols;
pub(crate) mod refusals;
mod reloading;
mod routes_file;
mod service_manager;
mod slots;
mod steer;
mod stopping;
mod streaming;
mod tail;
#[cfg(feature = "top")]
mod top;
mod transport;
mod ui;
mod upstream_http2;
mod upstream_proxy;
mod websocket;
