//! What a task is: its trait, options, arguments, context, outcome, signature, and the registry that finds it.

mod arguments;
pub mod canvas;
mod client;
pub(crate) mod clock;
mod context;
mod current;
mod definition;
mod dispatch;
mod download;
mod error;
mod id;
mod message;
mod options;
mod panic;
pub mod periodic;
mod permit;
pub mod producer;
mod progress;
mod result;
#[cfg(feature = "testing")]
pub(crate) mod scope;
mod serial;
mod signature;
mod tracked;
mod unique;
mod untyped;
mod verdict;
mod workflow;

pub mod envelope;
pub mod registry;

pub use arguments::{Arguments, ArgumentsError};
pub use client::{
    AsyncResult, Client, EnqueueError, GetError, Keeper, NewTask, Receipt, current, install, uninstall,
};
pub use context::{Context, UpdateStateError};
pub(crate) use context::{Sinks, StateSink};
pub(crate) use current::Entered;
pub use definition::{Body, BodyFuture, Hook, HookEvent, Hooks, Outcome, SerialFn, TaskDefinition, UniqueFn};
#[doc(hidden)]
pub use definition::{decode_args, encode_output};
pub(crate) use dispatch::{Departure, Dispatcher, Origin, Route};
pub(crate) use download::{About, ByteStream, DownloadSink, Keeping, Kept, Source};
pub use download::{Download, DownloadError, DownloadFacts, DownloadRecord};
pub use envelope::Typed;
pub(crate) use error::{Ending, ErrorName, Until};
pub use error::{Interrupt, TaskError};
pub use id::TaskId;
pub use message::{Headers, Message, ONCE};
pub use options::{Durability, TaskKind, TaskOptions};
pub(crate) use panic::panic_message;
pub use periodic::{PerTenant, Periodic, PeriodicDefinition, PeriodicFault, TenantSource, TenantsFuture};
pub use permit::{Asked, Limits, Permit, PermitError, PermitHolder, PermitKeeper, Want};
pub use producer::{Due, Producer};
pub(crate) use progress::{ProgressCell, ProgressSink, meta as progress_meta, read_meta as read_progress};
pub use result::{State, TaskResult};
pub(crate) use serial::Pass;
pub use serial::{AfterFailure, LaneName, Newcomer, Refusal, Serial};
#[doc(hidden)]
pub use serial::{KeyPart, serial_of};
pub use signature::{Enqueue, Signature};
pub use tracked::TrackedState;
#[doc(hidden)]
pub use unique::unique_of;
pub use unique::{Unique, UniqueKey, UniqueUntil};
pub use untyped::UntypedResult;
pub(crate) use verdict::{Judge, Next, Verdict};
pub use workflow::{Child, Lineage, RawSignature, Workflow};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A task as the compiler knows it; `#[task]` writes the implementation.
pub trait Task: 'static {
    /// The parameters as a tuple, without the context.
    type Args: Serialize + DeserializeOwned + 'static;
    /// What the body returns when all goes well.
    type Output: Serialize + DeserializeOwned + 'static;
    /// Its name, by default the module path and the function: `commcare::email::send_email`.
    const NAME: &'static str;
    /// The parameters' names, in order, without the context.
    const PARAMS: &'static [&'static str];
    /// Its options.
    fn options() -> TaskOptions;
    /// The lane of a call with these arguments, if the task is serial.
    fn serial(_args: &Self::Args) -> Option<Serial> {
        None
    }
    /// The dedupe window of a call with these arguments, if the task has one.
    fn unique(_args: &Self::Args) -> Option<Unique> {
        None
    }
}

/// The two parts of a `Result`, for the macro, which sees only its name.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is named `Result`, but is none",
    note = "a task returns nothing, a value, or a `Result` (also by an alias such as `io::Result<T>`)"
)]
pub trait Fallible {
    /// The value.
    type Ok;
    /// The error.
    type Err;
    /// As a plain result.
    fn into_result(self) -> Result<Self::Ok, Self::Err>;
}

impl<T, E> Fallible for Result<T, E> {
    type Ok = T;
    type Err = E;

    fn into_result(self) -> Self {
        self
    }
}

/// What a task may fail with: all that is `Into<TaskError>`. It exists for what the compiler says otherwise.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a task cannot fail with `{Self}`",
    label = "this error has no way into a `TaskError`",
    note = "implement `std::error::Error` for it, or `From<{Self}> for TaskError`",
    note = "or return `celeriac::TaskError` and write `.map_err(TaskError::from_display)?` in the body; that suits `anyhow::Error` and `String`"
)]
pub trait IntoTaskError {
    /// The conversion.
    fn into_task_error(self) -> TaskError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<TaskError>> IntoTaskError for E {
    fn into_task_error(self) -> TaskError {
        self.into()
    }
}
