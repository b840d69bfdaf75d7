//! `egress`: a forward proxy that stands beside an AI agent, admits only what its routes name, and puts the real
//! credential on requests whose sender never holds it.
//!
//! The modules stand in layers. Each imports only from itself and from those above it in this list, which `tests/layers.rs`
//! reads:
//!
//! 1. [`os`]: what has no safe form elsewhere: inherited descriptors and variables, namespaces.
//! 2. [`addr`]: classes of IP addresses.
//! 3. [`file`](mod@file): files that a running sidecar reads.
//! 4. [`roots`]: the platform's root certificates.
//! 5. [`confine`]: what the process gives up before it listens.
//! 6. [`redact`]: the forms of a secret, and how they are masked in a stream of bytes.
//! 7. [`credential`]: secrets and slots. Below the routes, because a route names a slot and not the other way round.
//! 8. [`outcome`]: what becomes of requests, counted.
//! 9. [`route`]: routes, and the decision about a request.
//! 10. [`policy`]: routes and slots, checked as a whole.
//! 11. [`config`]: the operator's files, read into a policy.
//! 12. [`launch`]: agents and what they are given, up to the sidecar's start.
//! 13. [`audit`]: what is kept of each request.
//! 14. [`advice`]: what a policy would do with requests, told to the operator: differences of two, and routes that refusals
//!     call for.
//! 15. [`proxy`]: the data path.
//! 16. [`admin`]: the operator's socket.
//! 17. [`ui`]: the operator's page.
//! 18. [`cli`]: the commands.
//!
//! The way of one request is told in `docs/architecture.md`.

pub mod addr;
pub mod admin;
pub mod advice;
pub mod audit;
pub mod cli;
pub mod config;
pub mod confine;
pub mod credential;
pub mod file;
pub mod launch;
pub mod os;
pub mod outcome;
pub mod policy;
pub mod proxy;
pub mod redact;
pub mod roots;
pub mod route;
pub mod ui;
