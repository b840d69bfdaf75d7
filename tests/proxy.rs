//! What the sidecar must do on the wire, with an agent of our own that can misbehave.

mod dialling;
mod identity;
mod lifecycle;
mod passthrough;
mod paths;
mod pooling;
mod protocols;
mod streaming;
mod transport;
mod upstream_proxy;
mod websocket;
