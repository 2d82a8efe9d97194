//! The pure core: every decision of the runtime, as state machines without I/O, clocks or randomness.

pub mod retry;
pub mod time;

pub use retry::RetryPolicy;
pub use time::Timestamp;
