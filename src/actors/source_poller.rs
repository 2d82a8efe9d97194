//! A source poller: an actor for each `Source` of the program. It asks the source for rows that are due, enqueues a
//! task for each, and sleeps. The root builds it, and operators reach it through [`PollerParts`].
//!
//! Invariants:
//! - When it asks, and for how many rows, is decided by [`core::poll_schedule`](crate::core::poll_schedule), from
//!   the time and the pressure on its queues.
//! - Where several processes share a broker, one of them runs each loop and the others stand by. If two run for a
//!   moment, the unique windows keep a row from having two tasks.
//! - A source that fails or panics costs one round, and the loop goes on after a pause.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::beat::TickPublisher;
use super::patience::{PATIENCE, answered};
use super::queue::BrokerBacklog;
use super::queues::Queues;
use crate::core::poll_schedule::{PollSchedule, PollStep, Pressure, Why, round_robin};
use crate::core::time_to_start::OutsideView;
use crate::core::{Timestamp, blockage};
use crate::runtime::Runtime;
use crate::store::{Leadership, StoreError};
use crate::task::clock::now;
use crate::task::{Client, Due, Receipt, SourcePoller, TaskError, TaskId, panic_message};

/// How long a leader leads without renewing its lease, and how often it renews it.
const LEASE: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
/// The longest sleep. The loop wakes this often to see whether it was paused in another process, and whether its
/// queue has room again.
const LOOK: Duration = Duration::from_secs(1);
/// How many enqueues are under way at a time. They begin in order, and share commits of the broker.
const AT_A_TIME: usize = 64;
/// How often in a round the source is asked for the rows of further tenants: so many tenants with long backlogs cannot hide
/// the others.
const QUESTIONS: usize = 8;

/// What a loop is made of. It outlives the actor, which the root builds from it each time.
pub(crate) struct PollerParts {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) poller: SourcePoller,
    pub(crate) queues: Queues,
    /// The runtime, which enqueues. It owns the loop, so the loop must not own it.
    pub(crate) client: Weak<dyn TickPublisher>,
    /// This process's name in the election of the loop's leader.
    pub(crate) candidate: String,
    pub(super) address: Mutex<Option<Addr<PollerLoop>>>,
    /// What the loop has done so far. It outlives the actor.
    status: Mutex<PollerStatus>,
    /// What the loop has seen of its queues, where the broker does not say since when messages are ready.
    seen: Mutex<BTreeMap<String, OutsideView>>,
}

/// A source poller as it is now. The numbers count from the start of this process.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PollerStatus {
    /// The name of the poller, as the program gave it.
    pub name: String,
    /// Whether the loop runs in this process; otherwise another one may run it.
    pub leads: bool,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Why it does nothing just now; `None`: it works, or it does not lead.
    pub waits: Option<Why>,
    /// The time at which the last round began.
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub last_look: Option<Timestamp>,
    /// The number of times that the poller has asked the source.
    pub looks: u64,
    /// The number of rows that the source gave.
    pub found: u64,
    /// The number of tasks that the poller has enqueued for them.
    pub enqueued: u64,
    /// The number of rows that had a task already, by their unique windows.
    pub joined: u64,
    /// The number of rows that the poller left out because the source skips their tenant.
    pub skipped: u64,
    /// The number of rounds in which the source or an enqueue failed.
    pub failures: u64,
    /// The last failure of the last round; `None`: that round went well.
    pub last_error: Option<String>,
}

impl PollerParts {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        poller: SourcePoller,
        queues: Queues,
        client: Weak<dyn TickPublisher>,
    ) -> Self {
        let status = PollerStatus {
            name: poller.name.clone(),
            leads: false,
            paused: false,
            waits: None,
            last_look: None,
            looks: 0,
            found: 0,
            enqueued: 0,
            joined: 0,
            skipped: 0,
            failures: 0,
            last_error: None,
        };
        Self {
            runtime,
            poller,
            queues,
            client,
            candidate: TaskId::new().to_string(),
            address: Mutex::new(None),
            status: Mutex::new(status),
            seen: Mutex::default(),
        }
    }

    /// The address of the actor that was built last. It may have died since; then it does not answer.
    pub(super) fn living(&self) -> Option<Addr<PollerLoop>> {
        self.address.lock().clone()
    }

    /// The status of the loop. `None`: its actor did not answer within the deadline.
    pub(crate) async fn ask(&self) -> Option<PollerStatus> {
        let status = answered(PATIENCE, self.living()?.send(GetPoller)).await.ok()?;
        status.ok().map(|status| *status)
    }

    /// Has the loop look now, even if its interval is not over. `false`: it does not answer.
    pub(crate) async fn look_now(&self) -> bool {
        match self.living() {
            Some(actor) => actor.send(LookNow { hurry: true }).await.is_ok(),
            None => false,
        }
    }

    /// Tells the loop that something has changed. It looks again, and asks its source if its interval is over.
    pub(crate) fn stir(&self) {
        if let Some(actor) = self.living() {
            actor.do_send(LookNow { hurry: false });
        }
    }

    /// The key of the note that exists while an operator has paused the loop. All processes read it.
    pub(crate) fn pause_key(&self) -> String {
        format!("producer/{}/paused", self.poller.name)
    }

    fn election(&self) -> String {
        format!("producer/{}", self.poller.name)
    }

    fn change(&self, change: impl FnOnce(&mut PollerStatus)) {
        change(&mut self.status.lock());
    }

    /// Finds out whether this process leads, whether the loop is paused, and how loaded these queues are. The load
    /// is asked for only if the loop may work.
    async fn facts(&self, queues: BTreeSet<String>) -> Result<Facts, String> {
        let notes = self.runtime.notes();
        let read = |error: StoreError| error.to_string();
        let leads = match self.runtime.broker.facts().is_shared {
            true => {
                let led = notes.lead(&self.election(), &self.candidate, LEASE, now()).await;
                matches!(led.map_err(read)?, Leadership::Leader { .. })
            }
            false => true,
        };
        let paused = notes.note(&self.pause_key()).await.map_err(read)?.is_some();
        let mut pressure = Pressure::default();
        let looks = leads && !paused;
        // What was seen of a queue counts only while the loop looks at it.
        self.seen.lock().retain(|queue, _| looks && queues.contains(queue));
        if looks {
            for queue in queues {
                let waiting = BrokerBacklog::in_broker(&*self.runtime.broker, &queue).await;
                let waiting = waiting.map_err(|error| error.to_string())?;
                let counts = waiting.counts;
                let here = counts.ready.saturating_add(counts.in_line).saturating_add(counts.unsettled);
                pressure.backlog = pressure.backlog.saturating_add(here);
                // The age is asked for only where the rule uses it, because it takes a question to the queue's actor.
                if self.poller.rule.max_age.is_some() {
                    pressure.age = pressure.age.max(self.blockage(&queue, waiting).await);
                }
            }
        }
        Ok(Facts { leads, paused, pressure })
    }

    /// The blockage of a queue. When another program serves the queue, it is not known when it last started a task;
    /// then what the broker knows counts, or what this loop has seen.
    async fn blockage(&self, queue: &str, waiting: BrokerBacklog) -> Duration {
        let outside = self.blockage_from_outside(queue, waiting);
        let status = self.queues.status(queue, waiting).await;
        status.map_or(outside, |status| status.blockage)
    }

    /// The blockage of a queue that does not tell it: the age of its oldest task, if the broker knows it, and otherwise
    /// for how long this loop has found ready tasks there whose number never fell.
    fn blockage_from_outside(&self, queue: &str, waiting: BrokerBacklog) -> Duration {
        let now = now();
        if !waiting.untold {
            return blockage(waiting.oldest, None, now);
        }
        let mut seen = self.seen.lock();
        let view = seen.entry(queue.to_owned()).or_default();
        if let Some(ready) = waiting.watched() {
            view.look(ready, now);
        }
        view.blockage(now)
    }

    /// The rows that are due, and how many of them may be enqueued. While the source gives as many as it was asked for, it is
    /// asked for those of tenants that it gave none of.
    async fn due(&self, limit: usize) -> Result<(Vec<Due>, usize), String> {
        let source = &self.poller.source;
        let mut due = asked(source.due(limit)).await?;
        let most = due.len().max(limit);
        let mut is_full = due.len() >= limit;
        for _ in 0..QUESTIONS {
            if !is_full {
                break;
            }
            let tenants: BTreeSet<String> = due.iter().map(|due| due.tenant.clone()).collect();
            let tenants: Vec<String> = tenants.into_iter().collect();
            let others = asked(source.due_of_others(&tenants, limit)).await?;
            is_full = others.len() >= limit;
            due.extend(others);
        }
        Ok((due, most))
    }

    /// One round: asks the source for at most `limit` rows and enqueues a task for each. Rows of different tenants
    /// take turns, so that one tenant with many rows does not hold the others up.
    async fn round(&self, limit: usize) -> PollRound {
        let mut round = PollRound::default();
        let (mut due, most) = match self.due(limit).await {
            Ok(found) => found,
            Err(error) => return round.failed(error),
        };
        round.found = due.len();
        // Skipped tenants go before the others take turns, and before they take up enqueues.
        if let Err(error) = self.skip(&mut due).await {
            return round.failed(error);
        }
        round.skipped = round.found - due.len();
        let order = round_robin(due.iter().map(|due| due.tenant.as_str()));
        let mut due: Vec<Option<Due>> = due.into_iter().map(Some).collect();
        let due: Vec<Due> = order.into_iter().filter_map(|place| due[place].take()).take(most).collect();
        let mut new = Vec::new();
        let mut receipts = stream::iter(due).map(|due| self.enqueue(due)).buffered(AT_A_TIME);
        let mut failure = None;
        while let Some(receipt) = receipts.next().await {
            match receipt {
                Ok((key, receipt)) => {
                    if receipt.joined {
                        round.joined += 1;
                    } else {
                        round.enqueued += 1;
                        new.push(key);
                    }
                    round.queues.insert(receipt.queue);
                }
                // The fault is this row's own, so the rows behind it are enqueued all the same.
                Err((error, true)) => drop(round.error.get_or_insert(error)),
                Err((error, false)) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // A failure that is not a row's own would meet the next rows as well, so the enqueues that are still under
        // way are dropped.
        drop(receipts);
        // The source is told even after a failure: these rows have tasks, and it need not find them again.
        if !new.is_empty()
            && let Err(error) = self.tell(&new).await
        {
            failure = failure.or(Some(error));
        }
        match failure {
            Some(error) => round.failed(error),
            None => round,
        }
    }

    /// Tells the source which of its rows have a task now. A panic of the source is a failure.
    async fn tell(&self, keys: &[String]) -> Result<(), String> {
        match AssertUnwindSafe(self.poller.source.enqueued(keys)).catch_unwind().await {
            Ok(told) => told.map_err(|error| format!("the source could not note what was enqueued: {error}")),
            Err(panic) => Err(format!("the source's `enqueued` panicked: {}", panic_message(panic))),
        }
    }

    /// The status, with what the loop has done so far.
    pub(crate) fn status(&self) -> PollerStatus {
        self.status.lock().clone()
    }

    /// Adds a round that has ended to the status.
    fn count(&self, began: Timestamp, round: PollRound) {
        self.change(|status| {
            status.last_look = Some(began);
            status.looks += 1;
            status.found += round.found as u64;
            status.enqueued += round.enqueued as u64;
            status.joined += round.joined as u64;
            status.skipped += round.skipped as u64;
            status.failures += u64::from(round.error.is_some());
            status.last_error = round.error;
        });
    }

    /// One look without an actor, for a test, which decides itself when a poller looks.
    #[cfg(feature = "testing")]
    pub(crate) async fn look_once(&self) {
        let queues = self.poller.queue.iter().cloned().collect();
        match self.facts(queues).await {
            Ok(facts) => {
                let mut decides = PollSchedule::new(self.poller.rule.clone());
                decides.pause(facts.paused);
                let began = now();
                let step = decides.step(began, facts.pressure);
                let waits = if let PollStep::Wait(_, why) = step { Some(why) } else { None };
                self.change(|status| {
                    (status.leads, status.paused, status.waits) = (true, facts.paused, waits)
                });
                if let PollStep::Ask(limit) = step {
                    let round = self.round(limit).await;
                    self.count(began, round);
                }
            }
            Err(error) => self.change(|status| status.last_error = Some(error)),
        }
    }

    /// Takes the rows of skipped tenants out. It asks the source once for each tenant.
    async fn skip(&self, due: &mut Vec<Due>) -> Result<(), String> {
        let mut skipped: BTreeMap<String, bool> = BTreeMap::new();
        for tenant in due.iter().map(|due| &due.tenant) {
            if !skipped.contains_key(tenant) {
                let asked = AssertUnwindSafe(self.poller.source.skips(tenant)).catch_unwind().await;
                let skips = asked
                    .map_err(|panic| format!("the source's `skips` panicked: {}", panic_message(panic)))?;
                skipped.insert(tenant.clone(), skips);
            }
        }
        due.retain(|due| !skipped.get(&due.tenant).copied().unwrap_or(false));
        Ok(())
    }

    /// Enqueues the task of a row and returns the row's key. The error has the reason, and whether it is this row's
    /// own, so that further rows may be enqueued.
    async fn enqueue(&self, due: Due) -> Result<(String, Receipt), (String, bool)> {
        let (task, key) = (due.task, due.key.clone());
        let told = |error: String, own: bool| (format!("`{task}` for `{key}`: {error}"), own);
        let call = self.poller.call(due).map_err(|error| told(error, true))?;
        let client = self.client.upgrade().ok_or_else(|| ("the runtime has ended".to_owned(), false))?;
        // A panic is caught here, because the task's unique key is made by the program's own code.
        match AssertUnwindSafe(Client::enqueue(&*client, Box::new(call))).catch_unwind().await {
            Ok(Ok(receipt)) => Ok((key, receipt)),
            Ok(Err(error)) => Err(told(error.to_string(), error.is_permanent())),
            Err(panic) => Err(told(format!("its enqueue panicked: {}", panic_message(panic)), true)),
        }
    }
}

/// Awaits an answer of the source. A panic of the source is an error.
async fn asked(answer: impl Future<Output = Result<Vec<Due>, TaskError>>) -> Result<Vec<Due>, String> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the source panicked: {}", panic_message(panic))),
    }
}

/// The facts that a look decides by.
struct Facts {
    leads: bool,
    paused: bool,
    pressure: Pressure,
}

/// What came of a round.
#[derive(Default)]
struct PollRound {
    found: usize,
    enqueued: usize,
    joined: usize,
    skipped: usize,
    queues: BTreeSet<String>,
    error: Option<String>,
}

impl PollRound {
    fn failed(self, error: String) -> Self {
        Self { error: Some(error), ..self }
    }
}

/// The actor of one source poller: its loop.
pub(crate) struct PollerLoop {
    parts: Arc<PollerParts>,
    decides: PollSchedule,
    /// The queues whose load counts: the poller's own, or those that the last round's tasks went to.
    queues: BTreeSet<String>,
    /// A look is under way. Looks do not pile up.
    busy: bool,
    /// Somebody wants a look at once. It stays set until a round that began later, for the round under way may have
    /// asked too early.
    hurried: bool,
    timer: Option<actix::SpawnHandle>,
}

impl PollerLoop {
    pub(super) fn new(parts: Arc<PollerParts>) -> Self {
        let decides = PollSchedule::new(parts.poller.rule.clone());
        let queues = parts.poller.queue.iter().cloned().collect();
        Self { parts, decides, queues, busy: false, hurried: false, timer: None }
    }

    /// Begins a look, unless one is under way.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        let (parts, queues) = (Arc::clone(&self.parts), self.queues.clone());
        let facts = async move { parts.facts(queues).await };
        ctx.spawn(facts.into_actor(self).map(|facts, this, ctx| match facts {
            Ok(facts) => this.decide(&facts, ctx),
            Err(error) => {
                tracing::warn!(poller = this.parts.poller.name, %error, "a source poller cannot look");
                this.parts.change(|status| status.last_error = Some(error));
                this.sleep(RENEW, ctx);
            }
        }));
    }

    fn decide(&mut self, facts: &Facts, ctx: &mut Context<Self>) {
        self.decides.pause(facts.paused);
        let now = now();
        let step = self.decides.step(now, facts.pressure);
        let waits = match step {
            PollStep::Wait(_, why) if facts.leads => Some(why),
            _ => None,
        };
        self.parts.change(|status| {
            (status.leads, status.paused, status.waits) = (facts.leads, facts.paused, waits);
        });
        match step {
            _ if !facts.leads => self.sleep(RENEW, ctx),
            PollStep::Wait(until, _) => self.sleep(until.since(now).min(LOOK), ctx),
            PollStep::Ask(limit) => {
                self.hurried = false;
                let parts = Arc::clone(&self.parts);
                let round = async move { parts.round(limit).await };
                let ended = round.into_actor(self).map(move |round, this, ctx| {
                    this.ended(now, limit, round);
                    // The schedule says how long to wait, so the loop asks it at once.
                    this.sleep(Duration::ZERO, ctx);
                });
                ctx.spawn(ended);
            }
        }
    }

    fn ended(&mut self, began: Timestamp, asked: usize, round: PollRound) {
        let name = &self.parts.poller.name;
        match &round.error {
            Some(error) => {
                let pause = self.decides.failed(now());
                tracing::error!(poller = name, %error, ?pause, "a source poller failed; it goes on after a pause");
            }
            None => {
                self.decides.looked(began, asked, round.found, round.enqueued);
                tracing::debug!(
                    poller = name,
                    found = round.found,
                    enqueued = round.enqueued,
                    joined = round.joined,
                    skipped = round.skipped,
                    "a source poller has looked"
                );
            }
        }
        if self.hurried {
            self.decides.hurry();
        }
        if self.parts.poller.queue.is_none() && !round.queues.is_empty() {
            self.queues.clone_from(&round.queues);
        }
        self.parts.count(began, round);
    }

    fn sleep(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.busy = false;
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = Some(ctx.run_later(pause, |this, ctx| {
            this.timer = None;
            this.look(ctx);
        }));
    }
}

impl Actor for PollerLoop {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

/// Asks for the status.
#[derive(Message)]
#[rtype(result = "Box<PollerStatus>")]
struct GetPoller;

impl Handler<GetPoller> for PollerLoop {
    type Result = actix::MessageResult<GetPoller>;

    fn handle(&mut self, _: GetPoller, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(Box::new(self.parts.status()))
    }
}

/// Look now: something has changed, or an operator wants it.
#[derive(Message)]
#[rtype(result = "()")]
struct LookNow {
    /// Look even if the interval is not over.
    hurry: bool,
}

impl Handler<LookNow> for PollerLoop {
    type Result = ();

    fn handle(&mut self, LookNow { hurry }: LookNow, ctx: &mut Self::Context) {
        if hurry {
            self.decides.hurry();
            self.hurried = true;
        }
        self.look(ctx);
    }
}

/// A shutdown has begun: the loop enqueues nothing more and gives its lead back, so that another process can have it.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EndLoop;

impl Handler<EndLoop> for PollerLoop {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: EndLoop, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            if parts.runtime.broker.facts().is_shared {
                let notes = parts.runtime.notes();
                if let Err(error) = notes.resign(&parts.election(), &parts.candidate).await {
                    tracing::debug!(%error, "a source poller could not give its lead back; it ends with the lease");
                }
            }
        })
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DieLoop;

#[cfg(test)]
impl Handler<DieLoop> for PollerLoop {
    type Result = ();

    fn handle(&mut self, _: DieLoop, _: &mut Self::Context) {
        panic!("asked to die");
    }
}
