//! A producer loop: one actor each, which asks the source, enqueues what it gives, and sleeps.
//!
//! When it looks, and for how much, is for [`core::producer`](crate::core::producer). Where several processes share a broker one
//! of them runs each loop, the rest stand by; should two run for a moment, the dedupe windows keep their tasks apart. A source
//! that fails or panics costs a round.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};

use super::beat::Publisher;
use super::queue::GetStatus;
use super::root::Queues;
use super::runtime::Runtime;
use crate::core::Timestamp;
use crate::core::producer::{Pressure, Producer as Loop, Step, Why, round_robin};
use crate::store::{Leadership, StoreError};
use crate::task::clock::now;
use crate::task::{Client, Due, Producer, Receipt, TaskId, panic_message};

/// How long a leader leads without saying so again, and how often it says so.
const LEASE: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
/// It looks at least so often whether somebody in another process has paused it, and whether the queue has room again.
const LOOK: Duration = Duration::from_secs(1);
/// So many enqueues are on their way at a time; they begin in order, and share commits.
const AT_A_TIME: usize = 64;

/// What a loop is made of, for each time that its actor is built.
pub(crate) struct ProducerParts {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) producer: Producer,
    pub(crate) queues: Queues,
    /// The runtime owns the loop, so the loop does not own the runtime.
    pub(crate) client: Weak<dyn Publisher>,
    pub(crate) candidate: String,
    pub(crate) address: Mutex<Option<Addr<ProducerLoop>>>,
    /// What it did so far, through the deaths of its actor.
    status: Mutex<ProducerStatus>,
}

/// A producer loop as it is now, counted since the start of this process.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ProducerStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs in this process; else another one's does.
    pub leads: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// Why it does nothing just now.
    pub waits: Option<Why>,
    /// When the source was asked last.
    pub last_look: Option<Timestamp>,
    /// How often the source was asked.
    pub looks: u64,
    /// How many rows it gave.
    pub found: u64,
    /// How many tasks were enqueued for them.
    pub enqueued: u64,
    /// How many rows had a task already.
    pub joined: u64,
    /// How many rows were left out, because their tenant is skipped.
    pub skipped: u64,
    /// How often the source, or an enqueue, failed or panicked.
    pub failures: u64,
    /// What the last failure said, until a round goes well.
    pub last_error: Option<String>,
}

impl ProducerParts {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        producer: Producer,
        queues: Queues,
        client: Weak<dyn Publisher>,
    ) -> Self {
        let status = ProducerStatus {
            name: producer.name.clone(),
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
            producer,
            queues,
            client,
            candidate: TaskId::new().to_string(),
            address: Mutex::new(None),
            status: Mutex::new(status),
        }
    }

    pub(crate) fn living(&self) -> Option<Addr<ProducerLoop>> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of the note that says that it is paused.
    pub(crate) fn pause_key(&self) -> String {
        format!("producer/{}/paused", self.producer.name)
    }

    fn election(&self) -> String {
        format!("producer/{}", self.producer.name)
    }

    fn change(&self, change: impl FnOnce(&mut ProducerStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether it is this process's turn, whether it is paused, and how its queue is.
    async fn facts(&self, queues: BTreeSet<String>) -> Result<Facts, String> {
        let notes = self.runtime.notes();
        let read = |error: StoreError| error.to_string();
        let leads = match self.runtime.broker.is_shared() {
            true => {
                let led = notes.lead(&self.election(), &self.candidate, LEASE, now()).await;
                matches!(led.map_err(read)?, Leadership::Leader { .. })
            }
            false => true,
        };
        let paused = notes.note(&self.pause_key()).await.map_err(read)?.is_some();
        let mut pressure = Pressure::default();
        if leads && !paused {
            for queue in queues {
                let counts = self.runtime.broker.counts(&queue).await.map_err(|error| error.to_string())?;
                pressure.backlog += counts.ready + counts.in_line + counts.unsettled;
                let address = self.queues.get(&queue).map(|address| address.clone());
                if let (Some(_), Some(address)) = (self.producer.rule.max_age, address)
                    && let Ok(status) = address.send(GetStatus(counts)).await
                {
                    pressure.age = pressure.age.max(status.blockage);
                }
            }
        }
        Ok(Facts { leads, paused, pressure })
    }

    /// Asks the source, and enqueues what it gives.
    async fn round(&self, limit: usize) -> Round {
        let mut round = Round::default();
        let asked = AssertUnwindSafe(self.producer.source.due(limit)).catch_unwind().await;
        let mut due = match asked {
            Ok(Ok(due)) => due,
            Ok(Err(error)) => return round.failed(error.to_string()),
            Err(panic) => return round.failed(format!("the source panicked: {}", panic_message(panic))),
        };
        round.found = due.len();
        if let Err(error) = self.skip(&mut due).await {
            return round.failed(error);
        }
        round.skipped = round.found - due.len();
        let order = round_robin(due.iter().map(|due| due.tenant.as_str()));
        let mut due: Vec<Option<Due>> = due.into_iter().map(Some).collect();
        let due: Vec<Due> = order.into_iter().filter_map(|place| due[place].take()).collect();
        let mut receipts = stream::iter(due).map(|due| self.enqueue(due)).buffered(AT_A_TIME);
        while let Some(receipt) = receipts.next().await {
            match receipt {
                Ok(receipt) => {
                    *(if receipt.joined { &mut round.joined } else { &mut round.enqueued }) += 1;
                    round.queues.insert(receipt.queue);
                }
                Err(error) => {
                    drop(receipts);
                    return round.failed(error);
                }
            }
        }
        drop(receipts);
        round
    }

    /// Leaves out what is of tenants that are skipped.
    async fn skip(&self, due: &mut Vec<Due>) -> Result<(), String> {
        let mut skipped: BTreeMap<String, bool> = BTreeMap::new();
        for tenant in due.iter().map(|due| &due.tenant) {
            if !skipped.contains_key(tenant) {
                let asked = AssertUnwindSafe(self.producer.source.skips(tenant)).catch_unwind().await;
                let skips = asked
                    .map_err(|panic| format!("the source's `skips` panicked: {}", panic_message(panic)))?;
                skipped.insert(tenant.clone(), skips);
            }
        }
        due.retain(|due| !skipped.get(&due.tenant).copied().unwrap_or(false));
        Ok(())
    }

    async fn enqueue(&self, due: Due) -> Result<Receipt, String> {
        let (task, key) = (due.task, due.key.clone());
        let told = |error: String| format!("`{task}` for `{key}`: {error}");
        let call = self.producer.call(due).map_err(told)?;
        let client = self.client.upgrade().ok_or_else(|| "the runtime has ended".to_owned())?;
        Client::enqueue(&*client, call).await.map_err(|error| told(error.to_string()))
    }
}

/// What a look depends on.
struct Facts {
    leads: bool,
    paused: bool,
    pressure: Pressure,
}

/// What a round came to.
#[derive(Default)]
struct Round {
    found: usize,
    enqueued: usize,
    joined: usize,
    skipped: usize,
    queues: BTreeSet<String>,
    error: Option<String>,
}

impl Round {
    fn failed(self, error: String) -> Self {
        Self { error: Some(error), ..self }
    }
}

/// The actor.
pub(crate) struct ProducerLoop {
    parts: Arc<ProducerParts>,
    decides: Loop,
    /// Those that the last batch went to.
    queues: BTreeSet<String>,
    /// A look is under way.
    busy: bool,
    /// Somebody wants it to look, and it may have looked too early for that.
    hurried: bool,
    timer: Option<actix::SpawnHandle>,
}

impl ProducerLoop {
    pub(super) fn new(parts: Arc<ProducerParts>) -> Self {
        let decides = Loop::new(parts.producer.rule.clone());
        let queues = parts.producer.queue.iter().cloned().collect();
        Self { parts, decides, queues, busy: false, hurried: false, timer: None }
    }

    /// Looks, if nothing is under way.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        let (parts, queues) = (Arc::clone(&self.parts), self.queues.clone());
        let facts = async move { parts.facts(queues).await };
        ctx.spawn(facts.into_actor(self).map(|facts, this, ctx| match facts {
            Ok(facts) => this.decide(&facts, ctx),
            Err(error) => {
                tracing::warn!(producer = this.parts.producer.name, %error, "a producer loop cannot look");
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
            Step::Wait(_, why) if facts.leads => Some(why),
            _ => None,
        };
        self.parts.change(|status| {
            (status.leads, status.paused, status.waits) = (facts.leads, facts.paused, waits);
        });
        match step {
            _ if !facts.leads => self.sleep(RENEW, ctx),
            Step::Wait(until, _) => self.sleep(until.since(now).min(LOOK), ctx),
            Step::Ask(limit) => {
                self.hurried = false;
                let parts = Arc::clone(&self.parts);
                let round = async move { parts.round(limit).await };
                let ended = round.into_actor(self).map(move |round, this, ctx| {
                    this.ended(now, limit, round);
                    this.sleep(Duration::ZERO, ctx);
                });
                ctx.spawn(ended);
            }
        }
    }

    fn ended(&mut self, began: Timestamp, asked: usize, round: Round) {
        let name = &self.parts.producer.name;
        match &round.error {
            Some(error) => {
                let pause = self.decides.failed(now());
                tracing::error!(producer = name, %error, ?pause, "a producer loop failed; it goes on after a pause");
            }
            None => {
                self.decides.looked(began, asked, round.found, round.enqueued);
                tracing::debug!(
                    producer = name,
                    found = round.found,
                    enqueued = round.enqueued,
                    joined = round.joined,
                    skipped = round.skipped,
                    "a producer loop has looked"
                );
            }
        }
        if self.hurried {
            self.decides.hurry();
        }
        self.parts.change(|status| {
            status.last_look = Some(began);
            status.looks += 1;
            status.found += round.found as u64;
            status.enqueued += round.enqueued as u64;
            status.joined += round.joined as u64;
            status.skipped += round.skipped as u64;
            status.failures += u64::from(round.error.is_some());
            status.last_error = round.error;
        });
        if self.parts.producer.queue.is_none() && !round.queues.is_empty() {
            self.queues = round.queues;
        }
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

impl Actor for ProducerLoop {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

/// How the loop is.
#[derive(Message)]
#[rtype(result = "Box<ProducerStatus>")]
pub(crate) struct GetProducer;

impl Handler<GetProducer> for ProducerLoop {
    type Result = actix::MessageResult<GetProducer>;

    fn handle(&mut self, _: GetProducer, _: &mut Self::Context) -> Self::Result {
        let status = self.parts.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        actix::MessageResult(Box::new(status))
    }
}

/// Look now: something has changed, or somebody wants it so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LookNow {
    /// Also if the interval is not over.
    pub(crate) hurry: bool,
}

impl Handler<LookNow> for ProducerLoop {
    type Result = ();

    fn handle(&mut self, LookNow { hurry }: LookNow, ctx: &mut Self::Context) {
        if hurry {
            self.decides.hurry();
            self.hurried = true;
        }
        self.look(ctx);
    }
}

/// A shutdown has begun: enqueue no more, and let another process have the loop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndLoop;

impl Handler<EndLoop> for ProducerLoop {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: EndLoop, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            if parts.runtime.broker.is_shared() {
                let notes = parts.runtime.notes();
                if let Err(error) = notes.resign(&parts.election(), &parts.candidate).await {
                    tracing::debug!(%error, "a producer loop's lead goes with its lease");
                }
            }
        })
    }
}

/// For tests: dies.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DieLoop;

#[cfg(test)]
impl Handler<DieLoop> for ProducerLoop {
    type Result = ();

    fn handle(&mut self, _: DieLoop, _: &mut Self::Context) {
        panic!("asked to die");
    }
}
