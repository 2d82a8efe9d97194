//! The pure core: every decision of the runtime, as state machines without I/O, clocks or randomness.
//!
//! The rule of the room: `(state, input, now) -> effects`. Nothing here reads a clock, opens a file, waits or
//! draws a random number; whoever drives a machine passes the [`Timestamp`] and the entropy in and carries the
//! answer out. So the same code decides in the actors, in the in-memory broker and in the tests, which run days
//! of virtual time in milliseconds and can repeat any run exactly.
//!
//! The rule of the floors: this is floor 0. It uses the standard library and crates that only compute, and no
//! other room of Celeriac; every other room may use it.

mod backoff;
pub mod calendar;
pub mod intensity;
pub mod lane;
pub mod permits;
pub mod producer;
pub mod progress;
pub mod queue;
pub mod retry;
pub mod time;
pub mod time_to_start;

pub use intensity::{Intensity, RestartVerdict, Restarts};
pub use lane::Lane;
pub use progress::Progress;
pub use queue::Queue;
pub use retry::{RetryPolicy, RetryVerdict};
pub use time::Timestamp;
pub use time_to_start::{TimeToStart, TimeToStartSnapshot, blockage};
