//! What a running Celeriac promises, shown on the memory and on the embedded form of it.
//!
//! Several runtimes live in this process at a time, so tasks are sent with `.send(client)`; where a test needs to
//! know how far a body has come it holds it at a [`kit::Gate`].

mod kit;
#[cfg(feature = "s3")]
#[path = "../services/mod.rs"]
mod services;

mod bad_input;
mod concurrency;
mod embedding;
mod endings;
mod healing;
mod hooks;
mod order;
mod panics;
mod permits;
mod producers;
mod results;
mod revocation;
mod serial;
mod shutdown;
mod soil;
mod time_limits;
mod unique;
