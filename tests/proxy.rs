//! What the sidecar must do on the wire, with an agent of our own that can misbehave.

mod lifecycle;
mod transport;
