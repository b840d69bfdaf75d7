//! Places where an agent runs behind its sidecar.

#[cfg(target_os = "linux")]
pub mod local;
#[cfg(target_os = "linux")]
pub mod smolvm;
#[cfg(target_os = "linux")]
pub mod unboxed;
