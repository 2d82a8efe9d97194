//! The application: configuration, start, handle, shutdown.
