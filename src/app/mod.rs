//! The application: configuration, start, handle, shutdown.

pub mod catalogue;
