//! The application: configuration, start, handle, shutdown.

mod attendant;
mod backend;
mod beat;
mod builder;
pub mod catalogue;
mod handle;
mod lanes;
mod routing;
mod schedule;
mod shutdown;
mod soil;

pub use beat::Beat;
pub use builder::{Builder, StartError};
pub use handle::{Celeriac, ControlError};
pub use schedule::{ScheduleError, ScheduleErrors};
pub use shutdown::ShutdownReport;
