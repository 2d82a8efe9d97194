//! A queue: the supervisor of its workers, the owner of its backlog, the keeper of its promise.
//!
//! It alone decides what starts next (by [`core::Queue`](crate::core::Queue)). The broker pushes deliveries up to the
//! prefetch; a start needs a worker slot, so no more bodies run at once than there are slots, whatever the broker
//! does. A slot is free again when its run has told its end. Workers that die are built anew under a restart
//! intensity; when it is exceeded the queue halts, says why, and tries again after a pause.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::body::Stuck;
use super::run::{Ended, Report, Run, settle};
use super::runtime::Runtime;
use super::status::QueueStatus;
use super::supervisor::{self, Exit};
use super::worker::{Retire, Start, Worker};
use crate::app::catalogue::QueueRow;
use crate::broker::{Consumer, Counts, Delivery};
use crate::core::{self, Intensity, RestartVerdict, Restarts, TimeToStart};
use crate::task::clock::now;
use crate::task::{self, Interrupt, Judge, Next, State, TaskId, Verdict};

/// A halted queue tries again after this long.
const HALT: Duration = Duration::from_secs(30);

/// The actor.
pub(crate) struct Queue {
    row: QueueRow,
    runtime: Arc<Runtime>,
    backlog: core::Queue<Delivery>,
    workers: HashMap<usize, Slot>,
    idle: Vec<usize>,
    runs: HashMap<u64, Going>,
    restarts: Restarts,
    time_to_start: TimeToStart,
    counters: Counters,
    consumer: Option<Box<dyn Consumer>>,
    stuck: Arc<Stuck>,
    force: CancellationToken,
    halted: Option<String>,
    closing: Option<Vec<oneshot::Sender<usize>>>,
    generations: u64,
}

struct Slot {
    worker: Addr<Worker>,
    generation: u64,
}

/// A run going on.
struct Going {
    context: task::Context,
}

#[derive(Default)]
struct Counters {
    done: u64,
    failed: u64,
    retried: u64,
    rejected: u64,
    revoked: u64,
    requeued: u64,
    panics: u64,
    timed_out: u64,
    replaced: u64,
}

impl Queue {
    pub(crate) fn new(row: QueueRow, runtime: Arc<Runtime>) -> Self {
        let intensity =
            Intensity { max_restarts: row.max_restarts, window: row.restart_window, ..Intensity::default() };
        Self {
            backlog: core::Queue::new(row.workers),
            time_to_start: TimeToStart::new(row.target),
            restarts: Restarts::new(intensity),
            row,
            runtime,
            workers: HashMap::new(),
            idle: Vec::new(),
            runs: HashMap::new(),
            counters: Counters::default(),
            consumer: None,
            stuck: Arc::default(),
            force: CancellationToken::new(),
            halted: None,
            closing: None,
            generations: 0,
        }
    }

    /// Starts what may start.
    fn pump(&mut self) {
        if self.halted.is_some() || self.closing.is_some() {
            return;
        }
        while let Some(slot) = self.idle.pop() {
            if !self.workers.contains_key(&slot) {
                continue; // retired
            }
            match self.backlog.release(now()) {
                Some((tag, delivery)) => {
                    if !self.start(slot, tag, delivery) {
                        self.idle.push(slot);
                    }
                }
                None => {
                    self.idle.push(slot);
                    return;
                }
            }
        }
    }

    /// Starts a delivery on a slot; `false`: it was settled without a run, and the slot is free.
    fn start(&mut self, slot: usize, tag: u64, mut delivery: Delivery) -> bool {
        let now = now();
        let message = Arc::clone(delivery.message());
        let judge =
            Judge { message: &message, now, started_at: None, worker: None, entropy: 0, revoked: false };
        if let Some(at) = message.expires.filter(|at| *at <= now) {
            self.end_unstarted(tag, delivery, judge.expired(at));
            return false;
        }
        let Some(definition) = self.runtime.registry.get(&message.task) else {
            let hint = self.runtime.registry.nearest(&message.task);
            let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            let reason = format!("no task named `{}` in this program{hint}", message.task);
            self.end_unstarted(tag, delivery, judge.dead(&reason));
            return false;
        };
        let Some(worker) = self.workers.get(&slot) else {
            self.backlog.finish(tag);
            return false; // the delivery drops and goes back
        };
        if message.first_started_at.is_none() && message.crashes == 0 {
            self.time_to_start.record(now.since(message.due()), now);
        }
        if message.acks_late {
            delivery.started();
        }
        let context = task::Context::new(Arc::clone(&message), format!("{}#{slot}", self.row.name));
        self.runs.insert(tag, Going { context: context.clone() });
        let run = Run {
            delivery,
            definition,
            context,
            pool: self.row.pool,
            force: self.force.clone(),
            stuck: Arc::clone(&self.stuck),
            runtime: Arc::clone(&self.runtime),
            started_at: now,
        };
        worker.worker.do_send(Start(Box::new(run)));
        true
    }

    /// Settles a delivery that is not to run.
    fn end_unstarted(&mut self, tag: u64, delivery: Delivery, verdict: Verdict) {
        self.backlog.finish(tag);
        let ended = match &verdict {
            Verdict::Over(record) | Verdict::Dead { record, .. } => Ended::Over(record.state),
            Verdict::Again { next, .. } => Ended::Again(*next),
            Verdict::HandBack => Ended::HandedBack,
        };
        self.count(ended);
        let runtime = Arc::clone(&self.runtime);
        actix_rt::spawn(async move {
            let message = Arc::clone(delivery.message());
            settle(verdict, Some(delivery), &message, &runtime, false).await;
        });
    }

    fn count(&mut self, ended: Ended) {
        let c = &mut self.counters;
        let counter = match ended {
            Ended::Over(State::Success | State::Ignored) => &mut c.done,
            Ended::Over(State::Revoked) => &mut c.revoked,
            Ended::Over(State::Rejected) => &mut c.rejected,
            Ended::Over(_) => &mut c.failed,
            Ended::Again(Next::Retry) => &mut c.retried,
            Ended::Again(_) | Ended::HandedBack => &mut c.requeued,
        };
        *counter += 1;
    }

    /// Builds workers for the slots that have none.
    fn fill(&mut self, ctx: &mut Context<Self>) {
        for slot in 0..self.row.workers {
            if !self.workers.contains_key(&slot) {
                self.hire(slot, ctx);
            }
        }
    }

    fn hire(&mut self, slot: usize, ctx: &mut Context<Self>) {
        self.generations += 1;
        let generation = self.generations;
        let queue = ctx.address();
        let worker = Worker {
            queue: queue.clone(),
            name: self.row.name.clone(),
            slot,
            generation,
            runtime: Arc::clone(&self.runtime),
        };
        let worker =
            supervisor::spawn(|_| worker, move |exit| queue.do_send(WorkerDown { slot, generation, exit }));
        self.workers.insert(slot, Slot { worker, generation });
        self.idle.push(slot);
    }

    /// Lets a worker go; what it runs goes on to its end.
    fn retire(&mut self, slot: usize) {
        if let Some(slot) = self.workers.remove(&slot) {
            slot.worker.do_send(Retire);
        }
        self.idle.retain(|idle| *idle != slot);
    }

    fn halt(&mut self, reason: String, ctx: &mut Context<Self>) {
        tracing::error!(queue = %self.row.name, reason, "the queue has stopped itself; it tries again in {HALT:?}");
        self.halted = Some(reason);
        ctx.run_later(HALT, |queue, ctx| {
            queue.halted = None;
            queue.fill(ctx);
            queue.pump();
        });
    }

    fn prefetch(&self) -> usize {
        self.row.max_deliveries().max(self.row.workers)
    }

    fn check_closed(&mut self) {
        if self.runs.is_empty()
            && let Some(closing) = &mut self.closing
        {
            for waiting in closing.drain(..) {
                let _ = waiting.send(0);
            }
        }
    }

    fn status(&self, counts: Counts) -> QueueStatus {
        let c = &self.counters;
        QueueStatus {
            name: self.row.name.clone(),
            pool: self.row.pool.as_str(),
            workers: self.row.workers,
            running: self.runs.len(),
            ready: counts.ready + self.backlog.ready() as u64,
            scheduled: counts.scheduled + self.backlog.scheduled() as u64,
            dead: counts.dead,
            time_to_start: self.time_to_start.snapshot(),
            blockage: core::blockage(
                self.backlog.oldest_ready_since(),
                self.time_to_start.last_start(),
                now(),
            ),
            done: c.done,
            failed: c.failed,
            retried: c.retried,
            rejected: c.rejected,
            revoked: c.revoked,
            requeued: c.requeued,
            panics: c.panics,
            timed_out: c.timed_out,
            stuck: self.stuck.now.load(Ordering::Relaxed),
            refused: self.stuck.refused.load(Ordering::Relaxed),
            replaced: c.replaced,
            paused: self.backlog.is_paused(),
            halted: self.halted.clone(),
        }
    }
}

impl Drop for Queue {
    /// A queue that dies takes its runs with it, so that its successor has all slots for itself.
    fn drop(&mut self) {
        self.force.cancel();
    }
}

impl Actor for Queue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.fill(ctx);
        let address = ctx.address();
        // Called from the broker's threads. A mailbox is not bounded by actix; the prefetch bounds what is sent.
        let sink = Arc::new(move |deliveries| address.do_send(Deliveries(deliveries)));
        match self.runtime.broker.consume(&self.row.name, self.prefetch(), sink) {
            Ok(consumer) => self.consumer = Some(consumer),
            Err(error) => {
                tracing::error!(queue = %self.row.name, %error, "the queue cannot consume");
                ctx.stop(); // its parent tries again
            }
        }
    }
}

/// Messages from the broker.
#[derive(Message)]
#[rtype(result = "()")]
struct Deliveries(Vec<Delivery>);

impl Handler<Deliveries> for Queue {
    type Result = ();

    fn handle(&mut self, Deliveries(deliveries): Deliveries, _: &mut Self::Context) {
        if self.closing.is_some() {
            return; // dropped, and so back in the broker
        }
        let now = now();
        for delivery in deliveries {
            let priority = delivery.message().priority;
            self.backlog.arrive(delivery.tag(), delivery, priority, None, now);
        }
        self.pump();
    }
}

/// A run has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Finished {
    pub(super) tag: u64,
    pub(super) slot: usize,
    pub(super) generation: u64,
    pub(super) report: Report,
}

impl Handler<Finished> for Queue {
    type Result = ();

    fn handle(&mut self, finished: Finished, ctx: &mut Self::Context) {
        let Finished { tag, slot, generation, report } = finished;
        self.runs.remove(&tag);
        self.backlog.finish(tag);
        self.count(report.ended);
        self.counters.panics += u64::from(report.panicked);
        self.counters.timed_out += u64::from(report.timed_out);
        if self.workers.get(&slot).is_some_and(|s| s.generation == generation) {
            if report.panicked {
                // The task's fault, not the worker's: replaced at once, and not counted by the intensity.
                self.counters.replaced += 1;
                self.retire(slot);
                self.hire(slot, ctx);
            } else {
                self.idle.push(slot);
            }
        }
        self.check_closed();
        self.pump();
    }
}

/// A worker is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct WorkerDown {
    slot: usize,
    generation: u64,
    exit: Exit,
}

impl Handler<WorkerDown> for Queue {
    type Result = ();

    fn handle(&mut self, down: WorkerDown, ctx: &mut Self::Context) {
        let WorkerDown { slot, generation, exit } = down;
        if self.workers.get(&slot).is_none_or(|s| s.generation != generation) {
            return; // one that was retired
        }
        self.workers.remove(&slot);
        self.idle.retain(|idle| *idle != slot);
        self.counters.replaced += 1;
        let cause = match exit {
            Exit::Stopped => "it stopped".to_owned(),
            Exit::Panicked(text) => text,
        };
        match self.restarts.failed(now()) {
            RestartVerdict::Restart { after } => {
                tracing::warn!(queue = %self.row.name, slot, cause, ?after, "a worker died and is built anew");
                ctx.run_later(after, move |queue, ctx| {
                    if slot < queue.row.workers
                        && !queue.workers.contains_key(&slot)
                        && queue.halted.is_none()
                    {
                        queue.hire(slot, ctx);
                        queue.pump();
                    }
                });
            }
            RestartVerdict::GiveUp { restarts, window } => {
                if self.halted.is_none() {
                    self.halt(
                        format!("its workers died {restarts} times within {window:?}, last of: {cause}"),
                        ctx,
                    );
                }
            }
        }
    }
}

/// Asks for the status.
#[derive(Message)]
#[rtype(result = "Box<QueueStatus>")]
pub(crate) struct GetStatus(pub(crate) Counts);

impl Handler<GetStatus> for Queue {
    type Result = actix::MessageResult<GetStatus>;

    fn handle(&mut self, GetStatus(counts): GetStatus, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(Box::new(self.status(counts)))
    }
}

/// Steers the queue while it runs.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Steer {
    /// Start nothing more; what runs goes on.
    Pause,
    /// Go on.
    Resume,
    /// So many workers.
    Resize(usize),
}

impl Handler<Steer> for Queue {
    type Result = ();

    fn handle(&mut self, steer: Steer, ctx: &mut Self::Context) {
        match steer {
            Steer::Pause => self.backlog.pause(),
            Steer::Resume => self.backlog.resume(),
            Steer::Resize(workers) => {
                let before = std::mem::replace(&mut self.row.workers, workers);
                self.backlog.resize(workers);
                for slot in workers..before {
                    self.retire(slot);
                }
                if self.halted.is_none() {
                    self.fill(ctx);
                }
                if let Some(consumer) = &self.consumer {
                    consumer.set_prefetch(self.prefetch());
                }
            }
        }
        self.pump();
    }
}

/// Where a task of this queue is; whether its result will be kept.
#[derive(Message)]
#[rtype(result = "Option<(State, bool)>")]
pub(crate) struct Look(pub(crate) TaskId);

impl Handler<Look> for Queue {
    type Result = Option<(State, bool)>;

    fn handle(&mut self, Look(id): Look, _: &mut Self::Context) -> Self::Result {
        if let Some(going) = self.runs.values().find(|going| *going.context.id() == id) {
            return Some((State::Started, !going.context.message().ignore_result));
        }
        let tag = self.backlog.find(|delivery| delivery.message().id == id)?;
        let (_, delivery) = self.backlog.waiting().find(|(t, _)| *t == tag)?;
        Some((State::Received, !delivery.message().ignore_result))
    }
}

/// Revokes a task that this queue has; says whether it had it.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Revoke {
    pub(crate) id: TaskId,
    pub(crate) terminate: bool,
}

impl Handler<Revoke> for Queue {
    type Result = bool;

    fn handle(&mut self, Revoke { id, terminate }: Revoke, _: &mut Self::Context) -> bool {
        if let Some(tag) = self.backlog.find(|delivery| delivery.message().id == id)
            && let Some(delivery) = self.backlog.remove(tag)
        {
            let message = Arc::clone(delivery.message());
            let judge = Judge {
                message: &message,
                now: now(),
                started_at: None,
                worker: None,
                entropy: 0,
                revoked: true,
            };
            self.end_unstarted(tag, delivery, judge.revoked("the task was revoked before it started"));
            return true;
        }
        match self.runs.values().find(|going| *going.context.id() == id) {
            Some(going) => {
                going.context.revoke(terminate);
                true
            }
            None => false,
        }
    }
}

/// Start nothing more, hand back what has not started, and answer with the runs left as soon as none is left.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) oneshot::Sender<usize>);

impl Handler<Close> for Queue {
    type Result = ();

    fn handle(&mut self, Close(done): Close, _: &mut Self::Context) {
        self.consumer = None;
        drop(self.backlog.clear()); // each goes back as it drops
        self.closing.get_or_insert_default().push(done);
        self.check_closed();
    }
}

/// The patience of a shutdown is running out: `Ask` tells the bodies, `Force` hands their tasks back.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Hurry {
    Ask,
    Force,
}

impl Handler<Hurry> for Queue {
    type Result = ();

    fn handle(&mut self, hurry: Hurry, _: &mut Self::Context) {
        for going in self.runs.values() {
            going.context.interrupt_with(Interrupt::Shutdown);
        }
        if matches!(hurry, Hurry::Force) {
            self.force.cancel();
        }
    }
}

/// Ends the actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl Handler<Stop> for Queue {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.consumer = None;
        ctx.stop();
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Die;

#[cfg(test)]
impl Handler<Die> for Queue {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Self::Context) {
        panic!("asked to die");
    }
}
