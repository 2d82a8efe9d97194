//! Running one task, without actors: admission, the body, the judgement of its outcome, the settlement, and the
//! hooks. The queue's actor and the testing kit call this module.
//!
//! `Runtime` has what all runs of a program share: the broker and the store, the tasks, and the program's own
//! hooks. Invariant: this module does not name actix.

pub(crate) mod admission;
mod again;
pub(crate) mod body;
pub(crate) mod brakes;
pub(crate) mod children;
pub(crate) mod conclusion;
pub(crate) mod enqueue;
mod events;
mod follow_ups;
pub(crate) mod forwarding;
pub(crate) mod gates;
pub(crate) mod history_inbox;
pub(crate) mod hooks;
pub(crate) mod keep_failed;
mod limit_keeper;
#[cfg(feature = "log-lines")]
pub(crate) mod log_lines;
pub(crate) mod own_process;
#[cfg(unix)]
pub(crate) mod process;
#[cfg(not(unix))]
#[path = "no_processes.rs"]
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod revoked_stamps;
pub(crate) mod rule_count;
pub(crate) mod run;
pub(crate) mod run_inbox;
mod run_span;
pub(crate) mod run_times;
pub(crate) mod start_limits;
mod states;
pub(crate) mod task_levers;
pub(crate) mod task_location;
mod unique_window;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use self::brakes::Brakes;
use self::children::ChildCount;
use self::events::traceback;
use self::history_inbox::HistoryInbox;
use self::hooks::ProgramHooks;
use self::keep_failed::KeepFailed;
use self::progress::{BarSink, LocalProgressHub, ProgressHub};
use self::revoked_stamps::RevokedStamps;
use self::run::ActivityMeter;
use self::run_inbox::RunInbox;
use self::run_times::RunTimeKeeper;
use self::start_limits::StartLimits;
use self::states::StateWriter;
use self::task_levers::{TaskLevers, TimeLimits};
use crate::broker::completer::{Completer, PlanFollowUps};
use crate::broker::{
    Broker, BrokerError, BrokerNotes, LaneFacts, LaneLever, MessageLocation, Results, Settle, refusal_reason,
    refused_result,
};
use crate::protocol::result::Exception;
use crate::store::{Decision, MemoryStore, Notes, Payloads, Store, StoreError};
use crate::task::clock::now;
use crate::task::{
    Client, Context, DataMap, Dispatcher, DownloadSink, EventFunnel, LaneName, Layers, Message, PermitKeeper,
    ProgressSink, Sinks, State, StateSink, TaskDefinition, TaskId, TaskResult, TrackedState, progress_meta,
    read_progress,
};

/// The default of the most bytes that a task's value may take: more than anybody reads, and little enough to be read.
pub(crate) const MAX_RESULT_SIZE: usize = 16 << 20;

/// What all runs of one program share.
pub(crate) struct Runtime {
    /// Where messages wait.
    pub(crate) broker: Arc<dyn Broker>,
    /// Where results are kept.
    pub(crate) store: Arc<dyn Store>,
    /// The notes of last resort, if neither broker nor store keeps any: they last as long as the process.
    pub(crate) own_notes: MemoryStore,
    /// Whether the store is told of the start of every task (STARTED), and not only of tasks that ask for it.
    pub(crate) track_started: bool,
    /// Whether the store is told of each task that is sent, so that an id which nobody ever sent differs from one that waits.
    pub(crate) marks_sent: bool,
    /// The most that a task's value may take, in bytes of JSON.
    pub(crate) max_result_size: usize,
    /// Writes the states that bodies report to the store.
    pub(crate) states: Arc<StateWriter>,
    /// What happens to tasks, for whoever listens.
    pub(crate) events: Arc<EventFunnel>,
    /// How many bodies run and have run.
    pub(crate) activity: ActivityMeter,
    /// Keeps the progress bars of what runs here, and knows who watches.
    pub(crate) progress_hub: Arc<dyn ProgressHub>,
    bars: Arc<BarSink>,
    /// What all runs report by, once the client is set.
    shared_sinks: OnceLock<Arc<Sinks>>,
    /// Keeps the files of downloads.
    pub(crate) payloads: Arc<Payloads>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The client that bodies here send their calls by. It is set when the runtime has started.
    pub(crate) client: OnceLock<Weak<dyn Client>>,
    /// What operators have changed for single tasks.
    pub(crate) levers: TaskLevers,
    /// The limits on the starts of tasks, by their keys.
    pub(crate) limits: Arc<StartLimits>,
    /// Whether there are any such limits.
    has_limits: bool,
    /// What operators keep from starting, by rules.
    pub(crate) brakes: Brakes,
    /// The stamps whose tasks do not start.
    pub(crate) revoked_stamps: RevokedStamps,
    /// Who keeps the permits for all processes that share the broker; `None`: nobody.
    pub(crate) permits: Option<Arc<dyn PermitKeeper>>,
    /// How long failed tasks are kept.
    pub(crate) keep_failed: KeepFailed,
    /// What the program has given to its tasks.
    pub(crate) data: Arc<DataMap>,
    /// What the program wants to be told of.
    pub(crate) hooks: ProgramHooks,
    /// Whether any of these hooks is called around runs.
    pub(crate) has_run_hooks: bool,
    /// The program's code around every body.
    pub(crate) layers: Layers,
    /// The queues whose pause is kept for the next start, as far as this process has kept them or found them kept.
    pub(crate) kept_pauses: Mutex<HashSet<String>>,
    /// How many child processes there are.
    pub(crate) children: ChildCount,
    /// What the history has not taken yet.
    pub(crate) history: HistoryInbox,
    /// The runs that simulations begin with, as far as the historian has not taken them yet.
    pub(crate) recorded: RunInbox,
    /// How long runs of tasks took.
    pub(crate) run_times: Arc<RunTimeKeeper>,
}

impl Runtime {
    /// Whether all processes that share the broker see the same notes.
    pub(crate) fn shares_notes(&self) -> bool {
        let store_does = self.store.is_shared() || !self.broker.facts().is_shared;
        self.broker.notes().is_some() || (store_does && self.store.notes().is_some())
    }

    /// Whether other processes may change the notes.
    pub(crate) fn others_change_notes(&self) -> bool {
        match self.broker.notes() {
            Some(_) => self.broker.facts().is_shared,
            None => self.store.notes().is_some() && self.store.is_shared(),
        }
    }

    /// Where notes are kept: in the broker if it keeps any (then they change in one step with messages), else in
    /// the store, else in this process.
    pub(crate) fn notes(&self) -> &dyn Notes {
        self.broker.notes().map(BrokerNotes::notes).or_else(|| self.store.notes()).unwrap_or(&self.own_notes)
    }

    /// Where a task is, as far as the broker knows. `None`: it does not know.
    pub(crate) async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        match self.broker.inspect() {
            Some(inspect) => inspect.find(id).await,
            None => Ok(None),
        }
    }

    /// How many tasks of its queue are before this one, counted up to `limit`. `None`: the broker does not know.
    pub(crate) async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.broker.inspect() {
            Some(inspect) => inspect.position(id, limit).await,
            None => Ok(None),
        }
    }

    /// How many tasks of its own tenant are before this one in its queue, counted up to `limit`. `None`: that is not known.
    pub(crate) async fn line_before(&self, id: &TaskId, limit: usize) -> Option<usize> {
        self.broker.tenant_backlog()?.line_before(id, limit).await.ok().flatten()
    }

    /// The facts of a lane. `None`: the lane is idle, or the broker keeps no lanes.
    pub(crate) async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        match self.broker.lanes() {
            Some(lanes) => lanes.lane(lane).await,
            None => Ok(None),
        }
    }

    /// The lanes that are not idle, ordered by name, at most `limit`.
    pub(crate) async fn busy_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        match self.broker.lanes() {
            Some(lanes) => lanes.busy_lanes(limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Moves a lever of a lane. `false`: there was nothing to move.
    pub(crate) async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        match self.broker.lanes() {
            Some(lanes) => lanes.steer_lane(lane, lever).await,
            None => Ok(false),
        }
    }

    /// A runtime without hooks, whose bars it keeps itself. Permits are kept only where all who share the broker
    /// share the keeper.
    pub(crate) fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>, dispatcher: Arc<Dispatcher>) -> Self {
        // A store of this process alone cannot keep permits for others who share the broker.
        let is_apart = broker.facts().is_shared && !store.is_shared();
        let permits = if is_apart { None } else { store.permits() };
        let progress_hub: Arc<dyn ProgressHub> = Arc::new(LocalProgressHub::default());
        let bars = BarSink { store: Arc::clone(&store), progress_hub: Arc::clone(&progress_hub) };
        Self {
            own_notes: MemoryStore::default(),
            client: OnceLock::new(),
            track_started: false,
            marks_sent: false,
            max_result_size: MAX_RESULT_SIZE,
            states: Arc::new(StateWriter::new(Arc::clone(&store), Arc::clone(&progress_hub))),
            events: Arc::default(),
            activity: ActivityMeter::default(),
            progress_hub,
            bars: Arc::new(bars),
            shared_sinks: OnceLock::new(),
            payloads: Arc::new(Payloads::nowhere()),
            broker,
            store,
            levers: TaskLevers::of(&dispatcher.registry),
            limits: Arc::default(),
            has_limits: false,
            dispatcher,
            brakes: Brakes::default(),
            revoked_stamps: RevokedStamps::default(),
            permits,
            keep_failed: KeepFailed::default(),
            data: Arc::default(),
            hooks: ProgramHooks::default(),
            has_run_hooks: false,
            layers: Layers::default(),
            kept_pauses: Mutex::default(),
            children: ChildCount::default(),
            history: HistoryInbox::default(),
            recorded: RunInbox::default(),
            run_times: Arc::default(),
        }
    }

    /// Has these limits on starts hold. Must be called before anything runs.
    pub(crate) fn limit_starts(&mut self, limits: StartLimits) {
        self.has_limits = limits.any();
        self.limits = Arc::new(limits);
    }

    /// Has `progress_hub` keep the bars instead. Must be called before anything runs.
    pub(crate) fn show_on(&mut self, progress_hub: Arc<dyn ProgressHub>) {
        self.states = Arc::new(StateWriter::new(Arc::clone(&self.store), Arc::clone(&progress_hub)));
        self.bars =
            Arc::new(BarSink { store: Arc::clone(&self.store), progress_hub: Arc::clone(&progress_hub) });
        self.progress_hub = progress_hub;
        self.shared_sinks = OnceLock::new();
    }

    /// The limits of a run of this message.
    pub(crate) fn time_limits(&self, message: &Message) -> TimeLimits {
        let options = || self.dispatcher.registry.options(&message.task).unwrap_or_default();
        self.levers.time_limits(message, options)
    }

    /// The sinks by which bodies report states, progress and downloads, and send calls.
    pub(crate) fn sinks(&self) -> Arc<Sinks> {
        if let Some(sinks) = self.shared_sinks.get() {
            return Arc::clone(sinks);
        }
        let sinks = Arc::new(Sinks {
            states: Some(Arc::clone(&self.states) as Arc<dyn StateSink>),
            progress: Some(Arc::clone(&self.bars) as Arc<dyn ProgressSink>),
            downloads: Some(Arc::clone(&self.payloads) as Arc<dyn DownloadSink>),
            events: Some(Arc::clone(&self.events)),
            client: self.client.get().cloned(),
            data: Arc::clone(&self.data),
        });
        // Until the client is set, what is made here is not what later runs have to have.
        if sinks.client.is_some() {
            let _ = self.shared_sinks.set(Arc::clone(&sinks));
        }
        sinks
    }

    /// The name by which the other programs of the cluster know this process: Celery's node name.
    fn node(&self) -> Option<String> {
        if self.store.is_shared() { self.broker.events()?.node() } else { None }
    }

    /// A body is about to start. A bar that other processes have shown of the task goes on from there, and the
    /// store is told of the start if somebody wants to know; the body does not wait for that. `pid` answers with the process
    /// that runs the body.
    pub(crate) async fn begin(
        &self,
        context: &Context,
        definition: &TaskDefinition,
        pid: impl FnOnce() -> u32,
    ) {
        let message = context.message();
        let before = context.is_redelivered() || message.retries > 0 || message.continuations > 0;
        let shown = before && self.store.is_shared() && Box::pin(self.recall(context)).await;
        self.progress_hub.changed(context.id());
        if self.store.is_shared() && !message.ignore_result {
            let wanted = self.track_started || (definition.options)().track_started;
            // STARTED would take the place of the bar in the store.
            if wanted && !shown {
                let meta = serde_json::json!({ "pid": pid(), "hostname": self.node().unwrap_or_else(|| context.worker().to_owned()) });
                context.report(State::Started.as_str(), meta);
            }
        }
    }

    /// Reads what other processes have shown of this task. Returns whether they have shown a bar; it goes on from
    /// there.
    async fn recall(&self, context: &Context) -> bool {
        let id = context.id();
        match self.store.tracked(id).await {
            Ok(Some(state)) if read_progress(&state.meta).0.is_some() => {
                context.resume_bar(state);
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%id, %error, "the shown progress of a task cannot be read; its bar starts over");
                false
            }
        }
    }

    /// The state that the store gets for an attempt that failed and is tried again (RETRY).
    pub(crate) fn state_of_retry(&self, context: &Context, failed: TaskResult) -> TrackedState {
        let exception = Exception::of(&failed);
        // Celery stores a traceback with each retry, and its tools print it.
        let traceback = Some(traceback(&exception, &failed));
        let mut meta = serde_json::to_value(exception).unwrap_or_default();
        if let Some(shown) = context.progress_shown() {
            // RETRY takes the place of PROGRESS in the store, so it carries the bar along for the next attempt.
            // Celery ignores the key.
            meta["progress"] = progress_meta(Some(shown), None);
        }
        let TaskResult { id, lineage, .. } = failed;
        TrackedState { id, state: State::Retry.as_str().to_owned(), meta: meta.into(), traceback, lineage }
    }

    /// Whether a download's payload may be deleted, by what the broker and the records say of its task.
    async fn decide(&self, id: &TaskId, key: &str) -> Option<Decision> {
        // The broker is asked first: if the task ends between the two questions, its record is there for the second.
        if self.find(id).await.ok()?.is_some() {
            return Some(Decision::Stays);
        }
        Some(match self.store.get(id, now()).await.ok()? {
            Some(record) if record.download.as_ref().is_some_and(|download| download.key == key) => {
                Decision::Named
            }
            Some(_) => Decision::Orphan,
            None => Decision::Unknown,
        })
    }

    /// Deletes the payloads of downloads that no record names, nor ever will.
    pub(crate) async fn sweep_payloads(&self) -> Result<(), StoreError> {
        let swept = self.payloads.sweep(now(), async |id, key| self.decide(id, key).await).await;
        let swept = swept.map_err(|error| StoreError::io_because(error.to_string(), error))?;
        if swept != Default::default() {
            tracing::debug!(?swept, "payloads of downloads that nobody will see are deleted");
        }
        Ok(())
    }

    /// The steps of an end for tasks that have no delivery to settle.
    fn completer<'a>(&'a self, plan_follow_ups: &'a PlanFollowUps<'a>) -> Completer<'a> {
        let windows = self.broker.unique_windows();
        let (store, broker) = (&*self.store, &*self.broker);
        Completer { store, broker, marks_sent: self.marks_sent, windows, plan_follow_ups }
    }

    /// Ends a task that was acknowledged before it ran.
    pub(crate) async fn end_undelivered(&self, message: &Message, settle: Settle) {
        let plan_follow_ups = |message: &Message, record: &mut TaskResult| self.follow_ups(message, record);
        self.completer(&plan_follow_ups).end(message, settle).await;
    }

    /// Ends a task that was never delivered, with this record. `message` is there if it could be read.
    pub(crate) async fn over(&self, message: Option<&Message>, record: TaskResult) {
        self.tell_over(message, &record);
        let told = message.and_then(|message| self.end_for_hooks(message, &record));
        let plan_follow_ups = |message: &Message, record: &mut TaskResult| self.follow_ups(message, record);
        self.completer(&plan_follow_ups).over(message, record).await;
        self.tell_hooks(told);
    }

    /// Fails a task that was promised to run, but that the broker refuses for good.
    pub(crate) async fn give_up(&self, message: &Message, error: &BrokerError) {
        let plan_follow_ups = |message: &Message, record: &mut TaskResult| self.follow_ups(message, record);
        let record = refused_result(message, refusal_reason(error));
        self.tell_over(Some(message), &record);
        self.completer(&plan_follow_ups).give_up(message, error).await;
        self.tell_hooks(self.end_for_hooks(message, &record));
    }

    /// The broker's part that keeps results.
    ///
    /// # Errors
    /// The broker keeps none.
    pub(crate) fn results(&self) -> Result<&dyn Results, BrokerError> {
        self.broker.results().ok_or_else(|| {
            let name = self.broker.name();
            BrokerError::Refused(format!(
                "the broker `{name}` keeps no results: put a `SplitBroker` around it"
            ))
        })
    }
}
