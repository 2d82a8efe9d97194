//! A task: its trait, options, arguments, context, outcome and signature, and the registry that finds it.

mod any_error;
mod arguments;
mod attempts;
pub mod canvas;
mod client;
pub(crate) mod clock;
mod context;
mod current;
mod data;
mod defaults;
mod definition;
mod dispatch;
mod download;
mod error;
mod event_funnel;
mod event_stream;
mod events;
mod finite;
mod id;
mod json;
mod layer;
mod limit_key;
mod message;
mod on_commit;
pub(crate) mod option_value;
mod options;
#[cfg(feature = "otel")]
pub(crate) mod otel;
pub(crate) mod panic;
pub mod periodic;
mod permit;
mod progress;
mod properties;
mod rest;
mod result;
pub(crate) mod run_log;
#[cfg(feature = "testing")]
pub(crate) mod scope;
mod search;
mod sender_counts;
#[cfg(feature = "otel")]
mod sending;
mod serial;
mod signature;
mod sinks;
pub mod source_poller;
pub(crate) mod tenant;
pub(crate) mod token;
mod trace;
mod tracked;
mod unique;
mod untyped;
mod verdict;
pub(crate) mod wire_names;
mod workflow;

mod enqueue_many;
pub mod envelope;
pub mod registry;

#[doc(hidden)]
pub use crate::core::key::joined;
pub use crate::core::key::key_of;
#[doc(hidden)]
pub use any_error::{ErrorOf, PlainError};
pub use arguments::{Arguments, ArgumentsError};
#[doc(hidden)]
pub use arguments::{ParamDefault, param_default};
pub use attempts::FailedAttempt;
pub use client::{
    AcceptedBy, AsyncResult, Client, EnqueueError, GetError, NewTask, Receipt, current, install, uninstall,
};
pub use context::{Context, UpdateStateError};
pub(crate) use context::{LentSlot, RunSetup, SlotOwner};
pub(crate) use current::{CurrentGuard, ParentTask, current_message, inside};
pub(crate) use data::DataMap;
pub use data::{Data, NeededData};
pub use defaults::TaskDefaults;
pub use definition::{Body, BodyFuture, Hook, HookEvent, Hooks, Outcome, SerialFn, TaskDefinition, UniqueFn};
#[doc(hidden)]
pub use definition::{decode_args, encode_output};
#[cfg(test)]
pub(crate) use dispatch::OneQueue;
pub(crate) use dispatch::{CanvasPlan, Dispatcher, RoutedQueue, Router};
pub(crate) use download::{About, ByteStream, DownloadSink, DownloadSource, KeepPayload, KeptPayload};
pub use download::{Download, DownloadError, DownloadFacts, DownloadRecord};
pub use enqueue_many::EnqueueMany;
pub use envelope::Typed;
pub(crate) use error::{Ending, ErrorName, NextAttempt, Until};
pub use error::{Interrupt, TaskError};
pub use event_funnel::{EventFunnel, EventGroup};
pub use event_stream::EventStream;
pub use events::{EventKind, SendEventError, TaskEvent};
pub(crate) use id::{BadId, check_id};
pub use id::{LONGEST_ID, TaskId};
pub(crate) use json::look;
pub use json::{Json, JsonMap};
pub use layer::{Layer, LayeredBody};
pub(crate) use layer::{Layers, layered};
pub use limit_key::LimitKeyFn;
pub(crate) use limit_key::shortened_key;
#[doc(hidden)]
pub use limit_key::{limit_key_of, rate_key_of};
pub(crate) use message::{CONFIRM, DEMOTED, DIVERTED, HELD, HeldMark, PROPERTIES, REQUEUES, SHOWN_AS_LIST};
pub use message::{Headers, Message, RUN_ONCE_HEADER, SENDING, TENANT};
pub(crate) use on_commit::writes;
pub use on_commit::{CommitRow, CommitTableError, CommitTransaction, OnCommit, WriteRow};
#[doc(hidden)]
pub use options::StatedOptions;
pub use options::{Durability, TaskKind, TaskOptions};
pub(crate) use panic::panic_message;
pub use periodic::{PerTenant, Periodic, PeriodicDefinition, PeriodicFault, TenantSource, TenantsFuture};
pub(crate) use permit::{HandedOver, HandedPermit};
pub use permit::{Limits, Permit, PermitAnswer, PermitError, PermitHolder, PermitKeeper, Want};
pub(crate) use progress::{ProgressCell, ProgressSink, meta as progress_meta, read_meta as read_progress};
pub use rest::{Rest, RestByName};
pub use result::{State, TaskResult};
pub use run_log::LogLine;
pub use search::SEARCH;
pub(crate) use search::is_searchable;
pub(crate) use sender_counts::SenderCount;
pub(crate) use serial::Pass;
pub use serial::{AfterFailure, LaneName, Newcomer, Refusal, SerialHeader};
#[doc(hidden)]
pub use serial::{KeyPart, serial_of};
pub use signature::{Enqueue, Signature};
pub(crate) use sinks::{Sinks, StateSink};
pub use source_poller::{Due, SourcePoller};
#[doc(hidden)]
pub use tenant::tenant_of;
pub use tenant::{LONGEST_TENANT, TenantFn, TenantRules};
pub(crate) use trace::span_headers;
pub use tracked::TrackedState;
#[doc(hidden)]
pub use unique::unique_of;
pub use unique::{Unique, UniqueKey, UniqueUntil};
pub use untyped::UntypedResult;
pub(crate) use verdict::{Judge, Next, Verdict};
pub use workflow::{Child, Lineage, RawSignature, Workflow};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A task as the compiler knows it. `#[task]` writes the implementation.
pub trait Task: 'static {
    /// The parameters of the body as a tuple, without the context.
    type Args: Serialize + DeserializeOwned + 'static;
    /// The value that the body returns when it succeeds.
    type Output: Serialize + DeserializeOwned + 'static;
    /// The task's name; by default the module path and the function, as in `commcare::email::send_email`.
    const NAME: &'static str;
    /// The names of the parameters, in order, without the context. A [`Rest`] and a [`RestByName`] have the stars of
    /// Python before their names: `*lines`, `**options`.
    const PARAMS: &'static [&'static str];
    /// The task's options, as its attribute states them.
    fn options() -> TaskOptions;
    /// The value of the parameter at this place, as JSON, for a call that leaves it out. It is `None` unless the parameter
    /// has a default.
    fn default_of(_param: usize) -> ParamDefault {
        None
    }
    /// The lane of a call with these arguments. It is `None` unless the task is serial.
    fn serial(_args: &Self::Args) -> Option<SerialHeader> {
        None
    }
    /// The unique window of a call with these arguments. It is `None` unless the task has one.
    fn unique(_args: &Self::Args) -> Option<Unique> {
        None
    }
    /// The key of the task's rate limit for a call with these arguments. It is `None` if all calls share one.
    fn rate_key(_args: &Self::Args) -> Option<String> {
        None
    }
    /// The key by which the task's `max_running` and `breaker` count a call with these arguments. It is `None` if all calls
    /// share one.
    fn limit_key(_args: &Self::Args) -> Option<String> {
        None
    }
    /// The tenant of a call with these arguments. It is `None` unless the task names one.
    fn tenant(_args: &Self::Args) -> Option<String> {
        None
    }
}

/// The two parts of a `Result`. The macro needs this trait, because it sees only the name of the return type.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is named `Result`, but is none",
    note = "a task returns nothing, a value, or a `Result` (also by an alias such as `io::Result<T>`)"
)]
pub trait Fallible {
    /// The type of the value.
    type Ok;
    /// The type of the error.
    type Err;
    /// Converts the value to a plain `Result`.
    fn into_result(self) -> Result<Self::Ok, Self::Err>;
}

impl<T, E> Fallible for Result<T, E> {
    type Ok = T;
    type Err = E;

    fn into_result(self) -> Self {
        self
    }
}

/// An error that a task may fail with: every type that is `Into<TaskError>`. The trait exists for the compiler's
/// message when a type is not.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a task cannot fail with `{Self}`",
    label = "this error has no way into a `TaskError`",
    note = "implement `std::error::Error` for it, or `From<{Self}> for TaskError`",
    note = "or return `celeriac::TaskError` and write `.map_err(TaskError::from_display)?` in the body; that suits `String`",
    note = "`anyhow::Error` is taken with celeriac's feature `anyhow`, `Box<dyn Error + Send + Sync>` always"
)]
pub trait IntoTaskError {
    /// Converts the error to a [`TaskError`].
    fn into_task_error(self) -> TaskError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<TaskError>> IntoTaskError for E {
    fn into_task_error(self) -> TaskError {
        self.into()
    }
}
