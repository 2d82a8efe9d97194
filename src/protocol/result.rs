//! What became of a task, as Celery's backends keep it and as it goes back over `rpc://`: the meta document.
//!
//! One document for all states: `status`, `result` (a value, or an exception), `traceback`, `children`, `date_done` and
//! whose it is. A task that is over is a [`TaskResult`](crate::task::TaskResult) here, everything before that a
//! [`TrackedState`](crate::task::TrackedState).

mod children;
mod document;
mod exception;

pub use children::{children, group, read_children};
pub use document::{Detail, Meta, MetaError, decode, encode, encode_tracked, outcome, status};
pub use exception::Exception;
