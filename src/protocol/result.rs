//! The outcome of a task as Celery's backends keep it and as `rpc://` sends it back: the meta document.
//!
//! All states share one document: `status`, `result` (a value, or an exception), `traceback`, `children`, `date_done`
//! and the id of the task. A task that is over is a [`TaskResult`](crate::task::TaskResult) here, and a task in any
//! other state is a [`TrackedState`](crate::task::TrackedState).

mod children;
mod document;
mod exception;

pub use children::{children, group, read_children};
pub use document::{Detail, Meta, MetaError, decode, encode, encode_tracked, outcome, status};
pub use exception::Exception;
