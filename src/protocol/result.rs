//! What became of a task, as Celery's backends keep it: the meta document.
//!
//! One document for all states. A record of a task that is over is a [`TaskResult`] here, everything before that a
//! [`TrackedState`].

mod children;
mod document;
mod exception;

pub use children::{children, group};
pub use document::{Detail, Meta, MetaError, decode, encode, encode_tracked};
pub use exception::Exception;

#[allow(unused_imports)]
use crate::task::{TaskResult, TrackedState};
