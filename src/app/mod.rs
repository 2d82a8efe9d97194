//! The application: configuration, start, handle, shutdown.

mod attendant;
mod backend;
mod beat;
mod builder;
pub mod catalogue;
mod client;
mod handle;
mod lanes;
mod producers;
mod revival;
mod routing;
mod schedule;
mod shutdown;
mod soil;

#[cfg(feature = "cli")]
pub(crate) use backend::Backend;
pub use beat::Beat;
pub use builder::{Builder, StartError};
pub use handle::{Celeriac, ControlError};
#[cfg(feature = "cli")]
pub(crate) use revival::revive_with_records;
pub use schedule::{ScheduleError, ScheduleErrors};
pub use shutdown::ShutdownReport;
