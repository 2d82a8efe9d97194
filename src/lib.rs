//! Celeriac: background tasks as a tree of supervised actix actors.

pub mod app;
pub mod core;

#[cfg(feature = "cli")]
pub mod cli;
