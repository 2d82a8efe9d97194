//! What a running Celeriac promises, shown on the memory and on the embedded form of it.
//!
//! Several runtimes live in this process at a time, so tasks are sent with `.send(client)`; where a test needs to
//! know how far a body has come it holds it at a [`kit::Gate`].

mod kit;

#[cfg(feature = "s3")]
use celeriac_test_support as services;

mod autoscale;
mod bad_input;
mod blockage;
mod brakes;
mod builder_options;
mod bulk;
mod commit_table;
mod concurrency;
mod demotion;
mod durations;
mod embedding;
mod endings;
mod events;
mod explain;
mod failed;
mod for_ever;
mod fragile;
mod healing;
mod health;
mod history;
mod hooks;
mod layers;
mod limits;
mod log_lines;
mod many;
mod metrics;
mod options;
mod order;
mod overlap;
mod panics;
mod permits;
mod persistent;
mod refused_rows;
mod results;
mod revocation;
mod running;
mod serial;
mod shutdown;
mod slots;
mod soil;
mod source_pollers;
mod spans;
mod status;
mod time_limits;
mod traces;
mod unique;
mod words;
