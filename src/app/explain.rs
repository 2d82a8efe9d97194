//! Why a task does not run, and when it will: who is asked, and in which order.
//!
//! A task may be over, wait in the broker, be in a queue of this process, or be elsewhere. The store is asked first, then
//! the broker, the queue and the lane. Invariants:
//! - Looking holds nothing up and costs nothing that grows with the backlog: places are counted up to [`COUNTED`], and who
//!   does not answer in time is named as silent.
//! - What nobody could say is said so, and is not guessed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handle::{Celeriac, CeleriacInner, ControlError};
use crate::actors::queue::{Explain, Sighting, WaitingInBroker};
use crate::actors::queues::NoAnswer;
use crate::broker::{Broker, LaneFacts, MessageLocation};
use crate::core::explanation::{
    BoundedCount, EndFacts, Explanation, ExplanationScope, LaneWait, NotServed, RunFacts, Service, TaskFacts,
    WaitFacts, explain,
};
use crate::task::clock::now;
use crate::task::{DEMOTED, Message, State, TaskId, TaskResult, TrackedState};

/// Places in line are counted up to this number.
const COUNTED: usize = 10_000;
/// How long a queue may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a task is looked for that is on its way from one place to another, and the pause between two looks.
const LOOKS: u32 = 3;
const MOVING: Duration = Duration::from_millis(5);

impl Celeriac {
    /// Why a task does not run: *the* reason, all reasons that apply, what was ruled out, what would help and who can do it,
    /// and when it will start. Of a task that runs or is over it says that.
    ///
    /// It asks the store, the broker, and the queue and the lane of the task, each within a second. It holds up no start, and
    /// costs nothing that grows with the backlog: places in line are counted up to 10,000. What could not be asked, and what
    /// nobody can know, is in the [scope](Explanation::scope) of the explanation: on RabbitMQ nobody can look into a queue.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// let explanation = celeriac.explain(&"9f0c".into()).await?;
    /// println!("{explanation}"); // It waits because its queue `email` is paused.
    /// for remedy in explanation.remedies(explanation.reason()) {
    ///     println!("{}: {}", remedy.by.as_str(), remedy.says);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The broker does not answer; or the store does not, and nobody else has the task.
    pub async fn explain(&self, id: &TaskId) -> Result<Explanation, ControlError> {
        self.inner.explain(id, PATIENCE).await
    }
}

impl CeleriacInner {
    /// As [`Celeriac::explain`]; each queue may take as long as `patience`.
    pub(super) async fn explain(&self, id: &TaskId, patience: Duration) -> Result<Explanation, ControlError> {
        let mut facts = TaskFacts::new(id.as_str(), now());
        let broker = &*self.runtime.broker;
        facts.scope.node = broker.events().and_then(|events| events.node());
        if !id.is_usable() {
            return Ok(explain(facts));
        }
        // What the store cannot say does not matter if somebody has the task.
        if self.look_for_end(id, &mut facts).await.is_err() {
            facts.scope.silent.push("store".to_owned());
        }
        if facts.over.is_some() {
            return Ok(explain(facts));
        }
        facts.scope.asked.push(format!("broker {}", broker.name()));
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(MOVING).await;
            }
            match self.runtime.find(id).await? {
                Some(MessageLocation::Waiting(message)) => {
                    self.waits_in_broker(message, &mut facts, patience).await;
                    return Ok(explain(facts));
                }
                Some(MessageLocation::Delivered { queue }) => {
                    facts.queue = Some(queue.clone());
                    let asked = Explain { id: id.clone(), waiting: None };
                    match self.queues.sighting(&queue, asked, patience).await {
                        Ok(Some(sighting)) => {
                            self.seen_here(&mut facts, *sighting);
                            return Ok(explain(facts));
                        }
                        Ok(None) => facts.is_moving = true,
                        Err(NoAnswer) => {
                            self.has_unseen(&queue, &mut facts);
                            return Ok(explain(facts));
                        }
                    }
                }
                // A task that is acknowledged before its run is in its queue, and the broker does not know it.
                None => {
                    facts.is_moving = false;
                    let (sighting, silent) = self.queues.sighting_anywhere(id, patience).await;
                    if let Some(sighting) = sighting {
                        self.seen_here(&mut facts, *sighting);
                        return Ok(explain(facts));
                    }
                    if !silent.is_empty() {
                        facts.scope.silent.extend(silent.iter().map(|queue| format!("queue `{queue}`")));
                        break;
                    }
                }
            }
        }
        if !facts.is_moving {
            // It may have ended since the first look.
            self.look_for_end(id, &mut facts).await?;
            self.look_elsewhere(id, &mut facts).await?;
        }
        Ok(explain(facts))
    }

    /// Adds what a queue of this process knows of a task that was delivered to it.
    fn seen_here(&self, facts: &mut TaskFacts, sighting: Sighting) {
        let broker = &*self.runtime.broker;
        if sighting.is_by_rule && !broker.facts().knows_all {
            facts.scope.cannot_know.push(format!(
                "The broker {} lets nobody look into a queue, so what waits there and goes before this task by the rule of its pool is not counted.",
                broker.name()
            ));
        }
        seen(facts, sighting);
    }

    /// Looks whether the task is over.
    async fn look_for_end(&self, id: &TaskId, facts: &mut TaskFacts) -> Result<(), ControlError> {
        let record = self.runtime.store.get(id, now()).await?;
        if !facts.scope.asked.iter().any(|asked| asked == "store") {
            facts.scope.asked.insert(0, "store".to_owned());
        }
        if let Some(record) = record {
            ended(facts, record);
        }
        Ok(())
    }

    /// Looks for traces of a task that nobody here has.
    async fn look_elsewhere(&self, id: &TaskId, facts: &mut TaskFacts) -> Result<(), ControlError> {
        let broker = &*self.runtime.broker;
        if facts.over.is_some() || broker.facts().knows_all {
            return Ok(());
        }
        facts.scope.cannot_know.push(format!(
            "The broker {} lets nobody look into a queue: which tasks wait there, and what other programs have, is not known here. `celeriac why` asks the other programs as well.",
            broker.name()
        ));
        // Those that came here and were put back until their time; their number is bounded.
        if let Some(events) = broker.events() {
            let mut scheduled = events.scheduled(COUNTED).await.into_iter();
            if let Some(task) = scheduled.find(|task| task.message.id == *id) {
                of_message(facts, &task.message);
                let tries = task.message.tries();
                facts.wait = Some(WaitFacts { due: Some(task.eta), tries, ..WaitFacts::default() });
                return Ok(());
            }
        }
        if let Some(tracked) = self.runtime.store.tracked(id).await? {
            told(facts, &tracked);
        }
        Ok(())
    }

    /// What is known of a task that waits in the broker.
    async fn waits_in_broker(&self, message: Box<Message>, facts: &mut TaskFacts, patience: Duration) {
        let broker = &*self.runtime.broker;
        let message: Arc<Message> = message.into();
        of_message(facts, &message);
        let mut wait = wait_in_broker(broker, &message, &mut facts.scope).await;
        // The testing kit runs the tasks itself, so no queue holds them up.
        #[cfg(feature = "testing")]
        if self.front.get().is_some() {
            facts.wait = Some(wait);
            return;
        }
        let queue = &message.queue;
        if self.queues.has(queue) {
            let line_before = self.runtime.line_before(&message.id, COUNTED).await;
            let waiting =
                Some(WaitingInBroker { message: Arc::clone(&message), before: wait.ahead, line_before });
            let asked = Explain { id: message.id.clone(), waiting };
            if let Ok(Some(sighting)) = self.queues.sighting(queue, asked, patience).await {
                facts.wait = Some(wait);
                seen(facts, *sighting);
                return;
            }
            facts.scope.silent.push(format!("queue `{queue}`"));
        }
        wait.service = self.unseen(queue);
        facts.wait = Some(wait);
    }

    /// The queue has the task, by what the broker says, and does not answer.
    fn has_unseen(&self, queue: &str, facts: &mut TaskFacts) {
        #[cfg(feature = "testing")]
        if self.front.get().is_some() {
            facts.run = Some(RunFacts::default()); // the test runs it just now
            return;
        }
        facts.scope.silent.push(format!("queue `{queue}`"));
        facts.wait = Some(WaitFacts { service: self.unseen(queue), ..WaitFacts::default() });
    }

    /// What is to be said of a queue that has not answered.
    fn unseen(&self, queue: &str) -> Service {
        if self.queues.has(queue) {
            return Service::Silent;
        }
        match self.catalogue().queue(queue) {
            Some(row) if !row.served => Service::NotHere(NotServed::ByCatalogue),
            _ if self.closing.load(Ordering::Acquire) => Service::Ended,
            // Its actor is not built yet.
            Some(_) => Service::Silent,
            None => Service::NotHere(NotServed::NoSuchQueue),
        }
    }
}

/// Adds what a queue knows of a task.
fn seen(facts: &mut TaskFacts, sighting: Sighting) {
    let Sighting {
        message, run, is_unchecked, ahead, ahead_of_tenant, holds, pause, queue, forecast, ..
    } = sighting;
    of_message(facts, &message);
    facts.scope.asked.push(format!("queue `{}`", message.queue));
    (facts.run, facts.forecast, facts.is_moving) = (run, forecast, false);
    let as_of = facts.as_of;
    let wait = facts.wait.get_or_insert_with(|| WaitFacts {
        due: message.eta.filter(|eta| *eta > as_of),
        tries: message.tries(),
        is_serial: Some(message.lane().is_some()),
        ..WaitFacts::default()
    });
    (wait.ahead, wait.ahead_of_tenant, wait.is_unchecked) = (ahead, ahead_of_tenant, is_unchecked);
    // What a gate holds back may have been put back until it opens: then its time is not the reason.
    wait.due = wait.due.filter(|_| holds.is_empty() || message.held().is_none());
    (wait.holds, wait.pause, wait.service) = (holds, pause, Service::Here(queue));
}

/// Adds what the message of a task says.
pub(crate) fn of_message(facts: &mut TaskFacts, message: &Message) {
    facts.task = Some(message.task.clone());
    facts.queue = Some(message.queue.clone());
    facts.tenant = message.tenant().map(str::to_owned);
    facts.demoted_from =
        message.headers.0.get(DEMOTED).and_then(serde_json::Value::as_str).map(str::to_owned);
}

/// Adds the record of a task that is over.
pub(crate) fn ended(facts: &mut TaskFacts, record: TaskResult) {
    facts.task = Some(record.task).filter(|task| !task.is_empty());
    facts.queue = Some(record.queue).filter(|queue| !queue.is_empty());
    facts.over = Some(EndFacts { state: record.state.as_str().to_owned(), at: record.finished_at });
}

/// Adds the last state that the store was told of a task that nobody here has.
pub(crate) fn told(facts: &mut TaskFacts, tracked: &TrackedState) {
    let state = tracked.state.as_str();
    let is_waiting = [State::Pending, State::Received, State::Retry].iter().any(|it| it.as_str() == state);
    if is_waiting {
        facts.told = Some(state.to_owned());
        return;
    }
    // STARTED, or a state that the body has reported.
    let worker = tracked.meta.get("hostname").and_then(serde_json::Value::as_str);
    facts.run = Some(RunFacts { worker: worker.map(str::to_owned), ..RunFacts::default() });
}

/// What a broker says of a task that waits in it: its time, its lane, and how many are before it, those that run among them.
pub(crate) async fn wait_in_broker(
    broker: &dyn Broker,
    message: &Message,
    scope: &mut ExplanationScope,
) -> WaitFacts {
    let due = message.eta.filter(|eta| *eta > now());
    let mut wait = WaitFacts {
        due,
        tries: message.tries(),
        is_serial: Some(message.lane().is_some()),
        ..WaitFacts::default()
    };
    let unknown = |what: &str, error: String| format!("{what} is not known: {error}.");
    if let Some(inspect) = broker.inspect() {
        match inspect.position(&message.id, COUNTED).await {
            Ok(before) => {
                wait.ahead =
                    before.map(|before| BoundedCount { count: before as u64, or_more: before >= COUNTED });
            }
            Err(error) => scope.cannot_know.push(unknown("How many are before it", error.to_string())),
        }
    }
    if let (Some(name), None, Some(lanes)) = (message.lane(), due, broker.lanes()) {
        match lanes.lane(name).await {
            Ok(facts) => {
                scope.asked.push(format!("lane `{}`", name.key()));
                wait.lane = facts.and_then(|facts| lane_wait(facts, &message.id));
            }
            Err(error) => {
                scope.silent.push(format!("lane `{}`", name.key()));
                scope.cannot_know.push(unknown("Whether its lane lets it in", error.to_string()));
            }
        }
    }
    wait
}

/// How a task waits for its lane. `None`: the lane has let it in.
fn lane_wait(facts: LaneFacts, id: &TaskId) -> Option<LaneWait> {
    if facts.holders.iter().any(|holder| holder.id == *id) {
        return None;
    }
    // The broker shows the front of the line only.
    let ahead = match facts.next.iter().position(|waiting| waiting.id == *id) {
        Some(ahead) => BoundedCount::exactly(ahead as u64),
        None => {
            BoundedCount { count: facts.next.len() as u64, or_more: facts.waiting > facts.next.len() as u64 }
        }
    };
    let holders = facts.holders.into_iter().map(|holder| (holder.id.to_string(), holder.since));
    Some(LaneWait {
        scope: facts.name.scope().to_owned(),
        key: facts.name.key().to_owned(),
        concurrency: facts.concurrency,
        holders: holders.collect(),
        ahead,
        blocked: facts.blocked.map(|block| (block.by.to_string(), block.since, block.reason)),
    })
}
