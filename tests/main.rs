//! The black-box tests: one binary that drives the built `egress` from outside, over real sockets and real TLS.
//! It is wired in `egress/Cargo.toml`. This file only lists the modules; `harness` holds what they share.

#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod attack;
mod cli;
mod clients;
mod demo;
mod docker;
mod docs;
mod harness;
mod launch;
mod layers;
mod proxy;
mod suites;
mod ui;
