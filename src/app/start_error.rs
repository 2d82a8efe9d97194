//! Why a runtime does not start.

use super::schedule::ScheduleErrors;
use crate::broker::BrokerError;
use crate::catalogue::CatalogueErrors;
use crate::core::did_you_mean;
use crate::runtime::start_limits::LimitFault;
use crate::store::StoreError;
use crate::task::CommitTableError;
use crate::task::registry::DuplicateTask;
use crate::task::{NeededData, TaskDefinition};

/// Why a runtime did not start. The text says what to do.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The catalogue has mistakes.
    #[error(transparent)]
    Catalogue(#[from] CatalogueErrors),
    /// Two tasks of the program have the same name.
    #[error(transparent)]
    DuplicateTask(#[from] DuplicateTask),
    /// Periodic entries are not valid.
    #[error(transparent)]
    Schedule(#[from] ScheduleErrors),
    /// A task takes data that the program did not give. Nothing is checked where no queue is served.
    #[error(
        "task `{task}` ({location}) takes `Data<{data}>`, which nobody gave: add `.data(..)` with such a value to the builder"
    )]
    DataNotGiven {
        /// The name of the task.
        task: &'static str,
        /// The file and line of the task.
        location: &'static str,
        /// The type of the data.
        data: &'static str,
    },
    /// A limit on the starts of tasks cannot be kept.
    #[error("the limit `{name}` cannot be kept: {fault}")]
    Limit {
        /// The name of the limit.
        name: String,
        /// What is wrong with it, and what to do.
        fault: String,
    },
    /// A queue cannot have the child processes that its row wants.
    #[error("queue `{queue}` has pool = \"process\", but {problem}")]
    Processes {
        /// The name of the queue.
        queue: String,
        /// What is in the way, and what to do.
        problem: &'static str,
    },
    /// The queue of a task is a broadcast, and the task needs one run.
    #[error(
        "task `{task}` ({location}) {what}, and its queue `{queue}` is a broadcast, which every process that serves it runs: route the task to a queue of its own"
    )]
    Broadcast {
        /// The name of the task.
        task: &'static str,
        /// The file and line of the task.
        location: &'static str,
        /// The queue.
        queue: String,
        /// Why the task needs one run.
        what: &'static str,
    },
    /// A row of the catalogue names the tenants of a task by an argument that the task does not have.
    #[error(
        "[tenants.tasks] says that the argument `{argument}` of `{task}` names its tenant, but the task has no such parameter; {parameters}{hint}"
    )]
    TenantArgument {
        /// The name of the task.
        task: String,
        /// The argument that the row names.
        argument: String,
        /// The parameters that the task has, in a sentence.
        parameters: String,
        /// The text "; did you mean ...?", or an empty text.
        hint: String,
    },
    /// Two source pollers have the same name.
    #[error(
        "two source pollers are named `{0}`; each needs a name of its own, by which it is paused and told apart"
    )]
    DuplicatePoller(String),
    /// A command that the program adds to remote control cannot have this name.
    #[error("the command of remote control `{name}` cannot be added: {why}")]
    ControlCommand {
        /// The name that was given.
        name: String,
        /// What is wrong with the name, and what to do.
        why: &'static str,
    },
    /// There is a source poller, and neither broker nor store keeps unique windows.
    #[error(
        "source poller `{0}` needs unique windows, and neither the broker nor the result store keeps any: with RabbitMQ, keep results in Redis (`.result_backend(\"redis://…\")`)"
    )]
    PollerWithoutWindows(String),
    /// The broker, or the embedded store, did not open.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The result store did not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The commit table cannot be used.
    #[error(transparent)]
    CommitTable(CommitTableError),
    /// The place for downloads cannot be used.
    #[error("{0}")]
    Downloads(String),
    /// An environment variable has a value that means nothing.
    #[error("{variable} in the environment: {problem}")]
    Variable {
        /// The name of the variable.
        variable: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The start failed at something that an environment variable names.
    #[error("{error} ({variable} in the environment names it)")]
    OfVariable {
        /// The name of the variable.
        variable: &'static str,
        /// Why the runtime did not start.
        error: Box<StartError>,
    },
    /// This process is a child of a process pool, and cannot reach the program that has started it.
    #[error(
        "this process is a child of a process pool, and cannot serve the program that has started it: {0}"
    )]
    Child(std::io::Error),
    /// A thread of the actors could not be started, or the queues did not come up.
    #[error("the actor system did not start: {0}")]
    System(std::io::Error),
}

crate::core::debug_as_display!(StartError);

impl From<LimitFault> for StartError {
    fn from(LimitFault { name, fault }: LimitFault) -> Self {
        Self::Limit { name, fault }
    }
}

impl StartError {
    /// The error of a row that names the tenants of a task by an argument that the task does not have.
    pub(super) fn tenant_argument(task: &str, argument: &str, params: &[&'static str]) -> Self {
        let hint = did_you_mean::hint(argument, params.iter().copied());
        let parameters = match params {
            [] => "it has no parameters: take the row away".to_owned(),
            names => format!("its parameters are: {}", names.join(", ")),
        };
        Self::TenantArgument { task: task.to_owned(), argument: argument.to_owned(), hint, parameters }
    }

    /// The error of a task that takes data which the program did not give.
    pub(super) fn data_not_given(task: &'static TaskDefinition, data: &NeededData) -> Self {
        Self::DataNotGiven { task: task.name, location: task.location, data: data.type_name() }
    }
}
