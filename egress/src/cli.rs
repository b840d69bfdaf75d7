//! To be written.

pub mod codex;
