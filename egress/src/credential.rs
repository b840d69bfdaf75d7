//! What the sidecar holds for the agent: secrets, where they come from, and whether they are still good.
//!
//! A secret never leaves this module but through [`Secret::expose`], which is called where the header is made, and where
//! a launcher writes the line that hands its sidecar the slots.

pub mod codex;
mod environment;
pub mod handed;
pub mod jwt;
mod salt;
mod secret;
mod slot;

pub use environment::{Environment, Shown, UPSTREAM_PROXY};
pub use salt::Salt;
pub use secret::Secret;
pub use slot::{
    Generation, Lease, Refreshed, Slot, SlotName, Slots, Source, Unusable, check_value, time_left,
    unix_seconds,
};
