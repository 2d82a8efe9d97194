//! The pure core: every decision of the runtime, as state machines without I/O, clocks or randomness.

pub mod time;

pub use time::Timestamp;
