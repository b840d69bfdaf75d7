//! What the sidecar holds for the agent: secrets, where they come from, and whether they are still good.
//!
//! A secret never leaves this module but through [`Secret::expose`], which is called where the header is made.

pub mod codex;
pub mod jwt;
mod secret;

pub use secret::Secret;
