//! Celeriac: background tasks as a tree of supervised actix actors.

// `#[task]` writes `::celeriac::…`; this lets it do so inside this crate too.
extern crate self as celeriac;

pub mod actors;
pub mod app;
pub mod broker;
pub mod core;
pub mod store;
pub mod task;

#[cfg(feature = "cli")]
pub mod cli;

pub use app::{Builder, Celeriac};
pub use celeriac_macros::task;
pub use task::{AsyncResult, Context, EnqueueError, GetError, Receipt, State, TaskError, TaskId};

#[doc(hidden)]
pub use inventory as __inventory;
