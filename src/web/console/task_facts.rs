//! What is known of one task: where it is if it is not over, its record if it is, and how it is kept if it has failed.

use actix_web::HttpRequest;
use serde::Serialize;

use super::address::LONGEST;
use super::arguments::ShownArguments;
use super::board::FRESH;
use super::problem::ConsoleProblem;
use super::rights::Permission;
use super::shared_looks::Looked;
use super::visit::ConsoleVisit;
use super::{Console, words};
use crate::app::{ControlError, TaskSighting};
use crate::broker::{FailedTask, TaskFilter};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::run_log::LogExcerpt;
use crate::task::{
    Child, FailedAttempt, GetError, Lineage, LogLine, Message, State, TaskId, TaskResult, Workflow,
};

/// The most bytes of an error, and of a value, on the page.
const TEXT: usize = 2_000;
/// The most bytes of a name, such as that of an error's type, a place or a worker.
const NAME: usize = 200;
/// The most errors of a record on the page.
const ERRORS: usize = 20;
/// The most bytes of what a run that goes on has logged, on the page.
const LOG: usize = 8_000;
/// The most relatives of one kind on the page.
pub(super) const RELATIVES: usize = 40;

/// All that is known of a task. It has nothing that is large.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TaskPageFacts {
    pub(super) id: String,
    pub(super) task: String,
    pub(super) queue: String,
    pub(super) state: State,
    pub(super) tenant: Option<String>,
    /// Whether it is kept as a failed task or a dead letter, so that it can be tried again.
    pub(super) kept: Option<Kept>,
    /// The process that runs it, if it runs here.
    pub(super) pid: Option<u32>,
    /// Whether another process has it.
    pub(super) is_elsewhere: bool,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) enqueued_at: Option<Timestamp>,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) eta: Option<Timestamp>,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) started_at: Option<Timestamp>,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) finished_at: Option<Timestamp>,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) expires_at: Option<Timestamp>,
    pub(super) worker: Option<String>,
    /// The runs that were started, as far as the record or the message counts them.
    pub(super) attempts: u32,
    /// The attempts that failed, as far as the message carries them.
    pub(super) failed_attempts: Vec<ShownAttempt>,
    /// The last lines that the run which goes on here has logged; `None`: it does not run here, or they are not kept.
    pub(super) log: Option<Vec<ShownLogLine>>,
    /// How many lines came before them.
    pub(super) log_left_out: u64,
    pub(super) max_retries: Option<u32>,
    pub(super) errors: Vec<String>,
    pub(super) error_type: Option<String>,
    pub(super) traceback: Option<String>,
    /// The value, or the beginning of it.
    pub(super) result: Option<String>,
    pub(super) lane: Option<(String, String)>,
    pub(super) priority: Option<u8>,
    pub(super) relatives: Relatives,
    pub(super) arguments: Option<ShownArguments>,
    /// The name of the file that the task made.
    pub(super) download: Option<String>,
}

/// An attempt that failed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShownAttempt {
    pub(super) attempt: u32,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub(super) at: Timestamp,
    pub(super) error_type: Option<String>,
    pub(super) error: String,
    /// The place of a panic in the source.
    pub(super) place: Option<String>,
    pub(super) worker: Option<String>,
    /// The last lines that its body has logged, if the program keeps them.
    pub(super) log: Vec<ShownLogLine>,
    /// How many lines came before them.
    pub(super) log_left_out: u64,
}

/// A line that a body has logged.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShownLogLine {
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub(super) at: Timestamp,
    pub(super) level: String,
    pub(super) text: String,
}

impl From<LogLine> for ShownLogLine {
    fn from(LogLine { at, level, text }: LogLine) -> Self {
        Self { at, level: words::line(&level, 10), text: words::line(&text, TEXT) }
    }
}

impl From<FailedAttempt> for ShownAttempt {
    fn from(failed: FailedAttempt) -> Self {
        let FailedAttempt { attempt, at, error_type, error, place, worker, log, log_left_out } = failed;
        let log = log.into_iter().map(ShownLogLine::from).collect();
        let [error_type, place, worker] =
            [error_type, place, worker].map(|text| text.map(|text| words::line(&text, NAME)));
        Self { attempt, at, error_type, error: words::line(&error, TEXT), place, worker, log, log_left_out }
    }
}

/// How a task that has failed is kept.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Kept {
    pub(super) is_dead_letter: bool,
    pub(super) reason: String,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub(super) failed_at: Timestamp,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) until: Option<Timestamp>,
    /// The arguments as they can be edited; `None`: they are hidden, or too large for a form.
    #[serde(skip)]
    pub(super) editable: Option<(String, String)>,
}

/// The tasks before, beside and after a task, as far as the message or the record names them.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Relatives {
    pub(super) root: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) group: Option<String>,
    /// The tasks that it has sent.
    pub(super) children: Vec<String>,
    /// The names of the tasks that follow in its chain, in order.
    pub(super) next: Vec<String>,
    /// The name of the body of its chord.
    pub(super) chord: Option<String>,
    pub(super) on_success: Vec<String>,
    pub(super) on_failure: Vec<String>,
}

/// The most failed tasks of one id.
const OF_ONE_ID: usize = 1_000;
/// The most bytes of arguments that a form has.
const EDITABLE: usize = 16_000;

type SeenFacts = Result<Option<TaskPageFacts>, FactsError>;

/// Why nothing could be found out.
#[derive(Clone, Debug)]
enum FactsError {
    Control(ControlError),
    Get(GetError),
}

impl From<ControlError> for FactsError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

impl From<GetError> for FactsError {
    fn from(error: GetError) -> Self {
        Self::Get(error)
    }
}

impl TaskPageFacts {
    /// What is known of the task of this id; `None`: nothing.
    pub(super) async fn of(visit: &ConsoleVisit, id: &TaskId) -> Result<Option<Self>, ConsoleProblem> {
        let console = &visit.console;
        let name = format!("task {id}");
        let Looked { seen, .. } =
            console.shared.looks.look::<SeenFacts>(&name, FRESH, find(console, id)).await;
        match &*seen {
            Ok(facts) => Ok(facts.clone()),
            Err(FactsError::Control(error)) => Err(error.into()),
            Err(FactsError::Get(error)) => Err(error.clone().into()),
        }
    }
}

async fn find(console: &Console, id: &TaskId) -> SeenFacts {
    let celeriac = &console.celeriac;
    let record = celeriac.client().result(id).await?;
    let sighting = match &record {
        Some(_) => None,
        None => celeriac.sight(id).await?,
    };
    // It may have ended between the two looks.
    let record =
        if record.is_none() && sighting.is_none() { celeriac.client().result(id).await? } else { record };
    let may_be_kept =
        record.as_ref().is_none_or(|record| matches!(record.state, State::Failure | State::Rejected));
    let failed = match sighting {
        None if may_be_kept => failed_task(console, id).await?,
        _ => None,
    };
    let tracked = match &record {
        None => celeriac.client().tracked(id).await?,
        Some(_) => None,
    };
    if record.is_none() && sighting.is_none() && failed.is_none() {
        // On a broker that cannot be searched, a task that reports is known by what it reports.
        return Ok(tracked.map(|tracked| of_report(id, &tracked.state)));
    }
    let message =
        sighting.as_ref().and_then(TaskSighting::message).or(failed.as_ref().map(|failed| &failed.message));
    let mut facts = of_message(console, id, message);
    if let Some(sighting) = &sighting {
        add_sighting(&mut facts, sighting);
    }
    if let Some(failed) = &failed {
        facts.state = if failed.is_dead_letter() { State::Rejected } else { State::Failure };
        facts.finished_at = Some(failed.failed_at);
        facts.kept = Some(kept(console, failed));
    }
    if let Some(record) = record {
        add_record(&mut facts, record);
    }
    Ok(Some(facts))
}

/// The queue of a task and its tenant, as far as its message is there; `None`: nothing is known of the task.
pub(super) async fn owner_of(
    console: &Console,
    id: &TaskId,
) -> Result<Option<(String, Option<String>)>, ConsoleProblem> {
    match find(console, id).await {
        Ok(facts) => Ok(facts.map(|facts| (facts.queue, facts.tenant))),
        Err(FactsError::Control(error)) => Err(error.into()),
        Err(FactsError::Get(error)) => Err(error.into()),
    }
}

/// The failed tasks that are kept under this id, if whoever asks may do that with each of them. An id may have been used again, so
/// whose task has it now does not say whose they are.
pub(super) async fn failed_of(
    console: &Console,
    request: &HttpRequest,
    permission: Permission,
    id: &TaskId,
) -> Result<Vec<FailedTask>, ConsoleProblem> {
    let kept = console.celeriac.failed_tasks(&TaskFilter::new().ids([id.clone()]), OF_ONE_ID).await?;
    for message in kept.iter().map(|task| &task.message) {
        console.permit_with(request, permission, Some(&message.queue), message.tenant()).await?;
    }
    Ok(kept)
}

/// The task as it is kept, if it has failed. A broker that keeps none has none.
async fn failed_task(console: &Console, id: &TaskId) -> Result<Option<FailedTask>, ControlError> {
    let filter = TaskFilter::new().ids([id.clone()]);
    match console.celeriac.failed_tasks(&filter, 1).await {
        Ok(mut tasks) => Ok(tasks.pop()),
        Err(ControlError::NoAbility { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn kept(console: &Console, failed: &FailedTask) -> Kept {
    let arguments = &failed.message.arguments;
    let can_be_edited = !console.hides(&failed.message) && arguments.len() <= EDITABLE;
    Kept {
        is_dead_letter: failed.is_dead_letter(),
        reason: words::line(&failed.reason, TEXT),
        failed_at: failed.failed_at,
        until: failed.expires_at,
        editable: can_be_edited.then(|| (arguments.args.clone(), arguments.kwargs.clone())),
    }
}

/// A task of which only a report is known.
fn of_report(id: &TaskId, state: &str) -> TaskPageFacts {
    let state = if state == "RETRY" { State::Retry } else { State::Started };
    TaskPageFacts { state, is_elsewhere: true, ..nothing(id) }
}

fn nothing(id: &TaskId) -> TaskPageFacts {
    TaskPageFacts {
        id: id.to_string(),
        task: String::new(),
        queue: String::new(),
        state: State::Unknown,
        tenant: None,
        kept: None,
        pid: None,
        is_elsewhere: false,
        enqueued_at: None,
        eta: None,
        started_at: None,
        finished_at: None,
        expires_at: None,
        worker: None,
        attempts: 0,
        failed_attempts: Vec::new(),
        log: None,
        log_left_out: 0,
        max_retries: None,
        errors: Vec::new(),
        error_type: None,
        traceback: None,
        result: None,
        lane: None,
        priority: None,
        relatives: Relatives::default(),
        arguments: None,
        download: None,
    }
}

fn of_message(console: &Console, id: &TaskId, message: Option<&Message>) -> TaskPageFacts {
    let Some(message) = message else { return nothing(id) };
    TaskPageFacts {
        task: words::line(&message.task, LONGEST),
        queue: message.queue.clone(),
        tenant: message.tenant().map(str::to_owned),
        enqueued_at: Some(message.enqueued_at),
        eta: message.eta,
        expires_at: message.expires,
        attempts: message.tries(),
        failed_attempts: message.failed_attempts().into_iter().map(ShownAttempt::from).collect(),
        max_retries: Some(message.retry.max_retries).filter(|most| *most != u32::MAX),
        errors: bounded(&message.last_errors),
        lane: message.lane().map(|lane| (lane.scope().to_owned(), lane.key().to_owned())),
        priority: Some(message.priority),
        relatives: message.workflow.as_deref().map(Relatives::of_workflow).unwrap_or_default(),
        arguments: Some(console.arguments(message)),
        ..nothing(id)
    }
}

fn add_sighting(facts: &mut TaskPageFacts, sighting: &TaskSighting) {
    match sighting {
        TaskSighting::Waiting(message) => {
            facts.state = if message.retries > 0 { State::Retry } else { State::Pending };
        }
        TaskSighting::Held { started_at, pid, log, .. } => {
            facts.state = if started_at.is_some() { State::Started } else { State::Received };
            (facts.started_at, facts.pid) = (*started_at, *pid);
            if let Some(log) = log {
                let (lines, left_out) = last_lines(log);
                (facts.log, facts.log_left_out) = (Some(lines), left_out);
            }
        }
        TaskSighting::Elsewhere { queue } => {
            (facts.state, facts.is_elsewhere) = (State::Received, true);
            facts.queue.clone_from(queue);
        }
    }
}

fn add_record(facts: &mut TaskPageFacts, record: TaskResult) {
    if facts.task.is_empty() {
        facts.task.clone_from(&record.task);
    }
    if facts.queue.is_empty() {
        facts.queue.clone_from(&record.queue);
    }
    facts.state = record.state;
    facts.enqueued_at = facts.enqueued_at.or(Some(record.enqueued_at).filter(|at| *at != Timestamp::ZERO));
    facts.started_at = record.started_at;
    facts.finished_at = Some(record.finished_at);
    facts.expires_at = Some(record.expires_at);
    facts.attempts = record.attempts.max(facts.attempts);
    facts.errors = bounded(&record.errors);
    facts.worker = record.worker.map(|worker| words::line(&worker, 100));
    facts.error_type = record.error_type.map(|error| words::line(&error, 200));
    facts.traceback = record.traceback.map(|text| crate::core::text::shortened(&text, TEXT).into_owned());
    facts.result = record.result.map(|text| crate::core::text::shortened(&text, TEXT).into_owned());
    facts.download = record.download.map(|download| words::line(&download.facts.name, 200));
    if let Some(lineage) = record.lineage {
        facts.relatives.add(&lineage);
    }
}

/// The last lines of a log for which there is room on the page, and how many came before them.
fn last_lines(log: &LogExcerpt) -> (Vec<ShownLogLine>, u64) {
    let mut room = LOG;
    let fit = log.lines.iter().rev().take_while(|line| {
        let fits = line.text.len() <= room;
        room = room.saturating_sub(line.text.len());
        fits
    });
    let before = log.lines.len() - fit.count();
    let lines = log.lines.iter().skip(before).cloned().map(ShownLogLine::from).collect();
    (lines, log.left_out.saturating_add(before as u64))
}

fn bounded(errors: &[String]) -> Vec<String> {
    errors.iter().take(ERRORS).map(|error| crate::core::text::shortened(error, TEXT).into_owned()).collect()
}

impl Relatives {
    fn of_workflow(workflow: &Workflow) -> Self {
        let names = |signatures: &[crate::task::RawSignature]| {
            signatures
                .iter()
                .take(RELATIVES)
                .map(|signature| words::line(&signature.task, 100))
                .collect::<Vec<_>>()
        };
        // On the wire the last signature of a chain is its next step.
        let mut next = names(&workflow.chain);
        next.reverse();
        Self {
            root: workflow.root_id.as_ref().map(ToString::to_string),
            parent: workflow.parent_id.as_ref().map(ToString::to_string),
            group: workflow.group.clone(),
            children: Vec::new(),
            next,
            chord: workflow.chord.as_ref().map(|body| words::line(&body.task, 100)),
            on_success: names(&workflow.callbacks),
            on_failure: names(&workflow.errbacks),
        }
    }

    fn add(&mut self, lineage: &Lineage) {
        self.parent = self.parent.take().or_else(|| lineage.parent_id.as_ref().map(ToString::to_string));
        self.group = self.group.take().or_else(|| lineage.group_id.clone());
        let ids = lineage.children.iter().flat_map(|child| match child {
            Child::Task(id) => std::slice::from_ref(id),
            Child::Group(_, ids) => ids.as_slice(),
        });
        self.children = ids.take(RELATIVES).map(ToString::to_string).collect();
    }

    /// Whether the task stands alone.
    pub(super) fn is_alone(&self) -> bool {
        let Self { root: _, parent, group, children, next, chord, on_success, on_failure } = self;
        let none = children.is_empty() && next.is_empty() && on_success.is_empty() && on_failure.is_empty();
        none && parent.is_none() && group.is_none() && chord.is_none()
    }
}

impl TaskPageFacts {
    /// Whether the task is not over.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.state.is_finished() && self.state != State::Unknown
    }

    /// How long ago it began to run, if it runs.
    pub(super) fn runs_for(&self) -> Option<std::time::Duration> {
        let started_at = self.started_at.filter(|_| self.is_unfinished())?;
        Some(now().since(started_at))
    }
}
