//! What the sidecar must do on the wire, with an agent of our own that can misbehave.

mod identity;
mod lifecycle;
mod paths;
mod transport;
