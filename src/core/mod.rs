//! The pure core: every decision of the runtime, as state machines without I/O, clocks or randomness.
//!
//! The rule of the room is `(state, input, now) -> effects`. Nothing here reads a clock, opens a file, waits or draws
//! a random number. The caller of a machine passes the [`Timestamp`] and the entropy in, and carries out the answer.
//! So the same code decides in the actors, in the in-memory broker and in the tests, which run days of virtual time
//! in milliseconds and can repeat any run exactly.
//!
//! The rule of the floors: this is floor 0. It uses the standard library and crates that only compute, and no other
//! room of Celeriac; every other room may use it.

pub mod accounts;
pub mod address;
pub mod autoscale;
mod backoff;
pub mod brake;
pub mod calendar;
pub(crate) mod canonical;
pub mod child_life;
pub mod counted_wait;
pub(crate) mod did_you_mean;
pub mod duration_histogram;
pub mod durations;
mod error_text;
pub mod explanation;
pub mod fair_lines;
pub mod forecast;
pub(crate) mod glob;
pub mod health;
pub mod history;
pub mod hold;
pub(crate) mod instant;
pub mod intensity;
mod io_failure;
pub(crate) mod json_time;
pub mod key;
pub mod known_revocations;
pub mod lane;
pub mod look_pauses;
pub mod partition;
pub mod permits;
pub mod poll_schedule;
pub mod progress;
pub mod rate;
pub mod report;
pub mod resting_rows;
pub mod retry;
pub mod return_times;
pub mod run_queue;
pub mod sending_rates;
pub mod simulation;
pub mod slots;
pub mod start_limit;
pub mod tag_map;
pub mod text;
pub mod time;
pub mod time_to_start;
pub mod token_bucket;

pub(crate) use backoff::Backoff;
pub use child_life::ChildLife;
pub(crate) use error_text::debug_as_display;
pub use intensity::{Intensity, RestartVerdict, Restarts};
pub use io_failure::IoFailure;
pub use lane::Lane;
pub use progress::Progress;
pub use retry::{RetryPolicy, RetryVerdict};
pub use run_queue::RunQueue;
pub use time::Timestamp;
pub use time_to_start::{TimeToStart, TimeToStartSnapshot, blockage};
