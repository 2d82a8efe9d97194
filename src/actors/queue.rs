//! The actor of one queue: it supervises the queue's workers, holds the backlog of deliveries, and keeps the
//! queue's promise (its target for time-to-start). The root builds it, and the broker pushes deliveries to it up to
//! the prefetch.
//!
//! Invariants:
//! - Only this actor decides what starts next, by [`core::RunQueue`](crate::core::RunQueue).
//! - A start needs a free worker slot, so no more bodies run at once than there are slots, whatever the broker
//!   delivers. A slot is free again when its run has reported its end.
//! - Workers that die are built anew under a restart intensity. When that is exceeded, the queue halts, says why,
//!   and tries again after a pause.
//! - A queue that dies takes its runs along: their tasks go back to the broker, and its successor has all slots.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::queue_stats::{CountedStart, QueueStats};
use super::retained::RetainedState;
use super::serial::{SerialCandidate, Serials};
use super::slot_pool::{PoolMember, SlotBatch, SlotPermit, SlotPools};
use super::worker::{SlotGuard, Start, Unstarted, Worker};
use crate::broker::{Consumer, Delivery, DeliveryInfo};
use crate::catalogue::QueueRow;
use crate::core::accounts::TaskPlace;
use crate::core::counted_wait::WaitTimes;
use crate::core::duration_histogram::Edges;
use crate::core::number_map::TagMap;
use crate::core::{self, Intensity, Restarts, Timestamp};
use crate::runtime::Runtime;
use crate::runtime::admission::admit;
use crate::runtime::children::ChildSettings;
use crate::runtime::gates::GateAdmission;
use crate::runtime::run::{AfterRun, Report, Run};
use crate::task::clock::now;
use crate::task::{self, Interrupt, Judge, RunSetup, TaskId};
use autoscale::LoadWatch;
use brakes::StartsOfQueue;
use release::{HeldBack, run_end};
use revocation::Unchecked;
use slots::Released;
use waiting::SeenBacklog;
use worker_pool::WorkerSlot;

mod arrivals;
mod autoscale;
mod brakes;
mod control;
mod explain;
mod hasten;
mod held;
mod lookup;
mod release;
mod revocation;
mod slots;
mod stamps;
mod surrender;
mod turns;
mod unstarted;
mod waiting;
mod worker_pool;

pub(crate) use control::{Close, GetAccounts, GetStatus, HandInMinutes, Hurry, Steer, StopQueue};
pub(crate) use explain::{Explain, Sighting, WaitingInBroker};
pub(super) use held::{GetHeld, GetHolds};
pub(super) use lookup::{GetRunning, TellBars};
pub(crate) use lookup::{LanesLost, Locate, LocateTask, Revoke, Revoked};
pub(super) use slots::Granted;
pub(super) use stamps::TerminateStamped;
pub(super) use surrender::Surrender;
pub(crate) use surrender::Surrendered;
pub(crate) use waiting::BrokerBacklog;
pub(super) use worker_pool::{ChildDown, WorkerReady};

/// How many serial tasks that did not start the queue remembers. Beyond that, the first start of a task may be
/// counted twice.
const MOST_COUNTED: usize = 1_000;

/// The actor of one queue. What must survive it is in `retained`; all other state begins anew with its successor.
pub(crate) struct Queue {
    row: QueueRow,
    /// The settings of the child processes of its workers; `None`: its bodies run in this process.
    children: Option<Arc<ChildSettings>>,
    runtime: Arc<Runtime>,
    backlog: core::RunQueue<Delivery>,
    /// Deliveries of which the store has not said yet whether they are revoked.
    unchecked: Unchecked,
    /// The workers by their slots; `None`: the slot has none now.
    workers: Vec<Option<WorkerSlot>>,
    idle: Vec<usize>,
    /// The runs that go on, by the tags of their deliveries.
    runs: TagMap<GivenRun>,
    /// Serial tasks whose first start is counted already, although their lane then refused it: their
    /// next start is not counted once more.
    counted: HashSet<TaskId>,
    restarts: Restarts,
    /// The statistics of the queue.
    stats: QueueStats,
    /// The starts of its tasks, by which an operator sees what a brake would have held.
    starts: Option<StartsOfQueue>,
    /// When a run of any kind, first or further, started last. The blockage is counted from here.
    last_start: Option<Timestamp>,
    /// What the queue has seen of the tasks that wait in the broker.
    seen: SeenBacklog,
    consumer: Option<Box<dyn Consumer>>,
    /// The tasks that the gates keep from starting.
    held_back: HeldBack,
    load: LoadWatch,
    pools: Arc<SlotPools>,
    /// The pool that the queue gets its slots from, if it has one.
    pool: Option<PoolMember>,
    /// What goes to the pool at the next pump, and what it has granted for the one that goes on.
    batch: SlotBatch,
    own_address: Option<Addr<Queue>>,
    retained: Arc<RetainedState>,
    serials: Arc<Serials>,
    /// Cancelling it ends all runs at once and hands their tasks back.
    force: CancellationToken,
    /// Why the queue has stopped itself; `None`: it has not.
    halted: Option<String>,
    /// Set during a shutdown: who waits for the end of the last run.
    closing: Option<Vec<oneshot::Sender<usize>>>,
    /// The number of runs that were handed back since the shutdown began.
    handed_back: usize,
    generations: u64,
    /// Runs that the current pump has lined up, and starts at its end.
    starting: Vec<(Rc<Addr<Worker>>, Start)>,
    /// A [`Pump`] is in the mailbox already. All runs that end before it comes share it.
    pump_due: bool,
}

/// A run that this queue has begun: its context, by which it can be told to end, and its worker, which may have
/// been let go meanwhile.
struct GivenRun {
    context: task::Context,
    worker: Rc<Addr<Worker>>,
    delivery_info: Option<Arc<DeliveryInfo>>,
    started_at: Timestamp,
    /// The id of the child process that runs the body; `None`: this process does.
    child: Option<u32>,
    /// The place of its task in the accounts.
    account: TaskPlace,
    /// What the gates counted for it, which they get back when this drops.
    admission: GateAdmission,
}

impl Queue {
    pub(super) fn new(
        mut row: QueueRow,
        runtime: Arc<Runtime>,
        retained: Arc<RetainedState>,
        serials: Arc<Serials>,
        pools: Arc<SlotPools>,
        time_to_start: Edges,
    ) -> Self {
        let intensity = Intensity::within(row.max_restarts, row.restart_window);
        row.workers = retained.workers();
        let mut backlog = core::RunQueue::new(row.workers);
        if retained.is_paused() {
            backlog.pause();
        }
        let stats =
            retained.take_stats().map_or_else(|| QueueStats::new(row.target, time_to_start), |stats| *stats);
        Self {
            backlog,
            unchecked: Unchecked::default(),
            stats,
            starts: None,
            last_start: None,
            seen: SeenBacklog::default(),
            restarts: Restarts::new(intensity),
            children: ChildSettings::of(&row).map(Arc::new),
            row,
            runtime,
            workers: Vec::new(),
            idle: Vec::new(),
            runs: TagMap::default(),
            counted: HashSet::new(),
            consumer: None,
            held_back: HeldBack::default(),
            load: LoadWatch::default(),
            pools,
            pool: None,
            batch: SlotBatch::default(),
            own_address: None,
            retained,
            serials,
            force: CancellationToken::new(),
            halted: None,
            closing: None,
            handed_back: 0,
            generations: 0,
            starting: Vec::new(),
            pump_due: false,
        }
    }

    /// Starts what may start, after all messages that are in the mailbox by now. So many ends of runs share one pump.
    fn pump_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.pump_due, true) {
            ctx.notify(Pump);
        }
    }

    /// Starts what may start: it lines runs up for idle slots, notes their starts in one step, and sends them to
    /// their workers.
    fn pump(&mut self, now: Timestamp) {
        let is_over = self.halted.is_some() || self.closing.is_some();
        // Who asks the pool what starts next reports by the way.
        if self.pool.is_some() && (is_over || self.idle.is_empty()) {
            self.report_to_pool(now);
        }
        if is_over {
            return;
        }
        self.line_up(now);
        if !self.held_back.returns.is_empty() {
            self.hasten(now);
        }
        // The broker notes all these starts in one write, and before any of them happens: if the process dies now,
        // each counts as a crash. Tasks that are acknowledged before they run leave the broker instead.
        let late = |(_, start): &'_ &mut (_, Start)| start.run.context.message().settles_late();
        Delivery::note_starts(self.starting.iter_mut().filter(late).map(|(_, start)| &mut start.delivery));
        for (worker, start) in self.starting.drain(..) {
            // The actor of its lane has the last word on a serial task.
            match start.run.context.message().serial.as_ref().map(|serial| serial.lane.clone()) {
                Some(lane) => {
                    let candidate = SerialCandidate { worker: Addr::clone(&worker), start };
                    self.serials.enter(lane, candidate, &self.runtime);
                }
                None => worker.do_send(start),
            }
        }
    }

    /// Takes deliveries from the broker into the backlog.
    fn line_up_all(&mut self, deliveries: Vec<Delivery>, now: Timestamp) {
        let brakes_send_away = self.runtime.brakes.send_away();
        for delivery in deliveries {
            let passed = if brakes_send_away { self.past_brakes(delivery) } else { Some(delivery) };
            let Some(delivery) = passed else { continue };
            // One that was put back because a limit holds it has come before.
            let is_back = delivery.message().held().is_some();
            if !is_back {
                self.note_received(&delivery, now);
            }
            let (tag, priority) = (delivery.tag(), delivery.message().priority);
            // Its time in the broker counts as well.
            let since = delivery.message().counts_from(now);
            // Only a pool, which the first tenant makes, has to know what comes.
            let is_pooled = self.pool.is_some() || delivery.message().tenant().is_some();
            let noted = is_pooled.then(|| (tag, Arc::clone(delivery.message())));
            if self.backlog.arrive_ready(tag, delivery, priority, since, now) {
                self.batch.arrived.extend(noted);
            }
            if !is_back {
                self.note_arrival(tag, priority, now);
            }
        }
        if self.pool.is_none() && !self.batch.arrived.is_empty() {
            self.make_own_pool();
        }
    }

    /// Lines runs up for the idle slots.
    fn line_up(&mut self, now: Timestamp) {
        if self.idle.is_empty() {
            return;
        }
        let has_gates = self.runtime.has_gates();
        if !has_gates && self.held_back.bell.is_some() {
            self.pass_by_gates();
        }
        while let Some(slot) = self.idle.last().copied()
            && let Some(released) = self.release(has_gates, now)
        {
            if self.start(slot, released, now) {
                self.idle.pop();
            }
        }
    }

    /// Lets the first one run that may: the first of the backlog, unless the program has gates or the queue a pool, which then
    /// have their say.
    fn release(&mut self, has_gates: bool, now: Timestamp) -> Option<Released> {
        if has_gates {
            return self.release_through_gates(now);
        }
        if self.pool.is_some() {
            return self.release_by_pool(None, now);
        }
        let (tag, delivery) = self.backlog.release(now)?;
        Some(Released { tag, delivery, admission: GateAdmission::default(), permit: None })
    }

    /// Starts a delivery on an idle slot. `false`: it was settled or dropped without a run, and the slot is still
    /// idle.
    fn start(&mut self, slot: usize, released: Released, now: Timestamp) -> bool {
        let Released { tag, delivery, admission, permit } = released;
        if delivery.has_lapsed() {
            self.backlog.finish(tag); // the delivery drops here, and so goes back to the broker
            self.stats.forecasts.left(tag);
            return false;
        }
        // A delivery that has expired, has crashed too often, or is of an unknown task ends here without a worker.
        let message = Arc::clone(delivery.message());
        let judge = Judge::unstarted(&message, now);
        let definition = match admit(&self.runtime, &judge) {
            Ok(definition) => definition,
            Err(verdict) => {
                self.end_unstarted(delivery, *verdict);
                return false;
            }
        };
        // The promise is about the first start of a task only.
        let is_first = message.first_started_at.is_none() && message.crashes == 0;
        // No id is hashed while no such task is known.
        let was_counted = !self.counted.is_empty() && self.counted.remove(&message.id);
        let is_first = is_first && !was_counted;
        // No queue could have started it while a limit held it.
        let held = admission.held();
        let free_since = held.map(|held| held.until);
        // Nor could it while its tenant had more than its share; the pool says when that was over.
        let owed_since = permit.as_ref().map(SlotPermit::counts_from);
        let times = WaitTimes { since: message.due(), free_since, owed_since, ..WaitTimes::default() };
        let start = CountedStart {
            tag,
            task: definition.name,
            tenant: message.tenant(),
            wait: now.since(times.counts_from()),
            is_first,
            held: held.map(|held| held.until.since(held.since)),
        };
        let account = self.stats.started(&start, now);
        self.last_start = Some(now);
        self.runtime.levers.accept(&message);
        self.note_start(&message, now);
        // A slot is idle only while its worker is there. Without one the delivery drops here, and goes back.
        let Some(staffed) = self.workers.get(slot).and_then(Option::as_ref) else {
            self.backlog.finish(tag);
            return true;
        };
        let context = task::Context::of_run(RunSetup {
            message: Arc::clone(&message),
            worker: staffed.name(),
            sinks: self.runtime.sinks(),
            fence: delivery.fence(),
            again: delivery.is_again(),
            keeper: self.runtime.permits.clone(),
        });
        if let Some(permit) = &permit {
            context.lend(permit.lent());
        }
        let run = Run {
            definition,
            context,
            pool: self.row.pool,
            child: None, // its worker has one, in the process pool
            // A run is ended by its worker's token, so a worker that dies takes it along.
            force: staffed.force(),
            stuck: Arc::clone(&self.retained.stuck),
            runtime: Arc::clone(&self.runtime),
            started_at: now,
            time_limits: self.runtime.time_limits(&message),
            place: None,
        };
        let (given, start) = staffed.assign(slot, run, delivery, (account, admission, permit));
        self.runs.insert(tag, given);
        self.starting.push((staffed.worker(), start));
        true
    }

    /// Takes what the broker has for this queue from now on.
    fn consume(&mut self, ctx: &mut Context<Self>) {
        let address = ctx.address();
        // Called from the broker's threads. A mailbox is not bounded by actix; the prefetch bounds what is sent.
        let sink = Arc::new(move |deliveries| address.do_send(Deliveries(deliveries)));
        match self.runtime.broker.consume(&self.row.name, self.deliveries_wanted(), sink) {
            Ok(consumer) => self.consumer = Some(consumer),
            Err(error) => {
                tracing::error!(queue = %self.row.name, %error, "the queue cannot consume");
                ctx.stop(); // its parent tries again
            }
        }
    }

    fn prefetch(&self) -> usize {
        let workers = self.row.workers;
        match self.runtime.broker.facts().is_shared {
            // Of a partition RabbitMQ gives half of it, and all that waits may be in one.
            true if self.row.setup.partitions.is_some() => {
                self.row.max_deliveries().max(workers.saturating_mul(2))
            }
            true => self.row.max_deliveries().max(workers),
            false => self.row.max_deliveries_alone().max(workers),
        }
    }

    fn tell_bodies(&self, interrupt: Interrupt) {
        self.runs.values().for_each(|run| run.context.interrupt_with(interrupt));
    }

    fn check_closed(&mut self) {
        if self.runs.is_empty()
            && let Some(waiting) = &mut self.closing
        {
            for waiting in waiting.drain(..) {
                let _ = waiting.send(self.handed_back);
            }
        }
    }
}

impl Drop for Queue {
    /// A queue that dies takes its runs along, so that its successor has all slots for itself, and leaves it what it has
    /// counted.
    fn drop(&mut self) {
        self.tell_bodies(Interrupt::Shutdown);
        self.force.cancel();
        self.stats.forecasts.forget_made(); // what waits here goes back
        self.retained.keep_stats(self.stats.take());
    }
}

impl Actor for Queue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.fill(ctx);
        self.watch_backlog(ctx);
        self.watch_load(ctx);
        self.own_address = Some(ctx.address());
        self.pool = self.pools.of_row(&self.row).map(|pool| pool.join(&self.row, ctx.address()));
        if !self.retained.is_cancelled() {
            self.consume(ctx);
        }
    }
}

/// Deliveries that the broker has pushed.
#[derive(Message)]
#[rtype(result = "()")]
struct Deliveries(Vec<Delivery>);

impl Handler<Deliveries> for Queue {
    type Result = ();

    fn handle(&mut self, Deliveries(deliveries): Deliveries, ctx: &mut Self::Context) {
        if self.closing.is_some() || self.retained.is_cancelled() {
            return; // the deliveries drop here, and so go back to the broker
        }
        // A broker that knows all takes a revoked task out by itself; what another one delivers is checked first.
        if self.runtime.broker.facts().knows_all {
            let now = now();
            self.line_up_all(deliveries, now);
            self.pump(now);
        } else {
            self.check_revocations(deliveries, ctx);
        }
    }
}

/// A run has ended, or a task did not start, and its slot is free. [`SlotGuard`] sends this when it drops.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Finished {
    pub(super) tag: u64,
    pub(super) slot: usize,
    pub(super) generation: u64,
    pub(super) report: Report,
    pub(super) unstarted: Option<Unstarted>,
    /// The slot of the run, if it is one of a pool.
    pub(super) permit: Option<SlotPermit>,
}

impl Handler<Finished> for Queue {
    type Result = ();

    fn handle(&mut self, finished: Finished, ctx: &mut Self::Context) {
        let Finished { tag, slot, generation, report, unstarted, permit } = finished;
        let mut run = self.runs.remove(&tag);
        if let Some(run) = &mut run {
            let (message, now) = (run.context.message(), report.ended_at.unwrap_or_else(now));
            self.stats.ended(run.account, message.tenant(), &report, now);
            if unstarted.is_none() {
                let took = report.ran().map_or_else(|| now.since(run.started_at), |(_, took)| took);
                self.stats.forecasts.ended(run.account.index(), took);
                if !report.is_handed_back() {
                    let held = run.admission.held();
                    self.runtime.recorded.ran(&self.row.name, message, held, run.started_at, took);
                }
            }
            run.admission.end(run_end(&report, unstarted, run.context.is_expected()));
        }
        // A serial task that did not start comes again, and its first start is in the statistics already.
        if let Some(why) = unstarted {
            self.stats.counters.overlaps += u64::from(why == Unstarted::Overlaps);
            if self.counted.len() < MOST_COUNTED {
                self.counted.extend(run.map(|run| run.context.id().clone()));
            }
        }
        self.backlog.finish(tag);
        self.stats.counters.count(&report);
        self.handed_back += usize::from(self.closing.is_some() && report.is_handed_back());
        self.stats.counters.panics += u64::from(report.panicked);
        self.stats.counters.timed_out += u64::from(report.timed_out);
        self.stats.counters.lost += u64::from(report.lost);
        // The slot is free only if the worker that had the run is still on it.
        if self.is_staffed(slot, generation) {
            match report.worker {
                AfterRun::Stays => self.idle.push(slot),
                // A panic or the death of a child process is the task's fault, not the worker's: the worker is replaced
                // at once, and the restart intensity does not count it.
                AfterRun::Replaced => {
                    self.stats.counters.replaced += 1;
                    self.replace(slot, ctx);
                }
                AfterRun::Recycled => {
                    self.stats.counters.recycled += 1;
                    self.replace(slot, ctx);
                }
                AfterRun::Died => {
                    let cause = "its child process ended before it could take a task".to_owned();
                    self.worker_died(slot, generation, cause, ctx);
                }
            }
        }
        // The pool hears of the slot and of the worker at once, so that a task of this queue can have both.
        let ran = unstarted.is_none() && !report.is_handed_back();
        self.batch.ended.extend(permit.map(|permit| (permit, ran)));
        self.check_closed();
        self.pump_soon(ctx);
    }
}

/// Starts what may start.
#[derive(Message)]
#[rtype(result = "()")]
struct Pump;

impl Handler<Pump> for Queue {
    type Result = ();

    fn handle(&mut self, _: Pump, _: &mut Self::Context) {
        self.pump_due = false;
        self.pump(now());
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Crash;

#[cfg(test)]
impl Handler<Crash> for Queue {
    type Result = ();

    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("asked to die");
    }
}
