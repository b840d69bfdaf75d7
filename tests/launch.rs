//! Launchers: from a manifest to an agent at work, whose only way out is its sidecar.

mod host;
mod local;
mod smolvm;
mod smolvm_refusals;
mod smolvm_stand_in;
