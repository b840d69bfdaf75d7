//! Places where an agent runs behind its sidecar.

#[cfg(target_os = "linux")]
pub mod local;
pub mod unboxed;
