//! The sidecar as a container: its image, and the network that leaves an agent no way but through it.

mod compose;
mod image;
mod launch;
