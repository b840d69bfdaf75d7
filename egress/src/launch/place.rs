//! Places where an agent runs behind its sidecar.

pub mod docker;
#[cfg(target_os = "linux")]
pub mod local;
#[cfg(target_os = "linux")]
pub mod smolvm;
#[cfg(target_os = "linux")]
pub mod unboxed;
