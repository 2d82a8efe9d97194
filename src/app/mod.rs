//! The application: configuration, start, handle, shutdown.

mod attendant;
mod backend;
mod builder;
pub mod catalogue;
mod handle;
mod lanes;
mod routing;
mod shutdown;

pub use builder::{Builder, StartError};
pub use handle::{Celeriac, ControlError};
pub use shutdown::ShutdownReport;
