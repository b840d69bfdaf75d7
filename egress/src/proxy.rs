//! The data path. To be written.

pub mod gate;
