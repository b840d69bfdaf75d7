//! `egress`: a forward proxy that stands beside an AI agent, admits only what its routes name, and puts the real
//! credential on requests whose sender never holds it.
//!
//! The modules stand in layers, lowest first; each imports only from those above it in this list. The way of one
//! request is told in `docs/architecture.md`.

pub mod addr;
pub mod admin;
pub mod audit;
pub mod cli;
pub mod config;
pub mod confine;
pub mod credential;
pub mod policy;
pub mod proxy;
pub mod route;
