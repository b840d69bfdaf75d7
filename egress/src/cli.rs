//! To be written.

pub mod check;
pub mod codex;
pub mod explain;
