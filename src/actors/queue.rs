//! A queue: the supervisor of its workers, the owner of its backlog, the keeper of its promise.
//!
//! It alone decides what starts next (by [`core::Queue`](crate::core::Queue)). The broker pushes deliveries up to the
//! prefetch; a start needs a worker slot, so no more bodies run at once than there are slots, whatever the broker
//! does. A slot is free again when its run has told its end. Workers that die are built anew under a restart
//! intensity; when it is exceeded the queue halts, says why, and tries again after a pause.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::admission::admit;
use super::lasting::Lasting;
use super::run::{Ended, Report, Run, conclude};
use super::runtime::Runtime;
use super::status::Counters;
use super::worker::{Permit, Start, Worker};
use crate::app::catalogue::QueueRow;
use crate::broker::{Consumer, Delivery};
use crate::core::{self, Intensity, Restarts, TimeToStart};
use crate::task::clock::now;
use crate::task::{self, Hooks, Interrupt, Judge, Verdict};
use revocation::Unchecked;
use staff::Slot;

mod control;
mod lookup;
mod revocation;
mod staff;

pub(crate) use control::{Close, GetStatus, Hurry, Steer, Stop};
pub(crate) use lookup::{Locate, Look, Lost, Revoke, Revoked};
pub(super) use staff::Up;

/// The least deliveries that a queue holds if it states none and nobody else could start them.
const PREFETCH: usize = 1024;

/// The actor.
pub(crate) struct Queue {
    row: QueueRow,
    runtime: Arc<Runtime>,
    backlog: core::Queue<Delivery>,
    unchecked: Unchecked,
    workers: HashMap<usize, Slot>,
    idle: Vec<usize>,
    /// The runs going on, by tag.
    runs: HashMap<u64, task::Context>,
    restarts: Restarts,
    time_to_start: TimeToStart,
    counters: Counters,
    consumer: Option<Box<dyn Consumer>>,
    lasting: Arc<Lasting>,
    /// Ends all runs at once and hands their tasks back.
    force: CancellationToken,
    /// Why the queue has stopped itself.
    halted: Option<String>,
    /// Shutting down; who waits for the last run.
    closing: Option<Vec<oneshot::Sender<()>>>,
    generations: u64,
    /// What starts at the end of this pump.
    starting: Vec<(Addr<Worker>, Start)>,
    /// A pump is on its way; the runs that end until it comes share it.
    pump_due: bool,
}

impl Queue {
    pub(super) fn new(mut row: QueueRow, runtime: Arc<Runtime>, lasting: Arc<Lasting>) -> Self {
        let intensity = Intensity::within(row.max_restarts, row.restart_window);
        row.workers = lasting.workers();
        let mut backlog = core::Queue::new(row.workers);
        if lasting.is_paused() {
            backlog.pause();
        }
        Self {
            backlog,
            unchecked: Unchecked::default(),
            time_to_start: TimeToStart::new(row.target),
            restarts: Restarts::new(intensity),
            row,
            runtime,
            workers: HashMap::new(),
            idle: Vec::new(),
            runs: HashMap::new(),
            counters: Counters::default(),
            consumer: None,
            lasting,
            force: CancellationToken::new(),
            halted: None,
            closing: None,
            generations: 0,
            starting: Vec::new(),
            pump_due: false,
        }
    }

    /// Starts what may start, when all that is in the mailbox by now has been seen.
    fn pump_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.pump_due, true) {
            ctx.notify(Pump);
        }
    }

    /// Starts what may start.
    fn pump(&mut self) {
        if self.halted.is_some() || self.closing.is_some() {
            return;
        }
        self.line_up();
        let late = |(_, start): &'_ &mut (_, Start)| start.run.context.message().settles_late();
        Delivery::note_starts(self.starting.iter_mut().filter(late).map(|(_, start)| &mut start.delivery));
        for (worker, start) in self.starting.drain(..) {
            worker.do_send(start);
        }
    }

    /// Takes deliveries into the backlog.
    fn line_up_all(&mut self, deliveries: Vec<Delivery>) {
        let now = now();
        for delivery in deliveries {
            let priority = delivery.message().priority;
            self.backlog.arrive(delivery.tag(), delivery, priority, None, now);
        }
    }

    fn line_up(&mut self) {
        while let Some(slot) = self.idle.last().copied()
            && let Some((tag, delivery)) = self.backlog.release(now())
        {
            if self.start(slot, tag, delivery) {
                self.idle.pop();
            }
        }
    }

    /// Starts a delivery on an idle slot; `false`: it was settled without a run, and the slot is still idle.
    fn start(&mut self, slot: usize, tag: u64, delivery: Delivery) -> bool {
        if delivery.has_lapsed() {
            self.backlog.finish(tag); // dropped, it goes back
            return false;
        }
        let now = now();
        let message = Arc::clone(delivery.message());
        let judge = Judge::unstarted(&message, now);
        let definition = match admit(&self.runtime, &judge) {
            Ok(definition) => definition,
            Err(verdict) => {
                self.end_unstarted(tag, delivery, *verdict);
                return false;
            }
        };
        if message.first_started_at.is_none() && message.crashes == 0 {
            self.time_to_start.record(now.since(message.due()), now);
        }
        let worker = self.workers.get(&slot).map_or_else(|| "".into(), Slot::name);
        let fence = delivery.fence();
        let context = task::Context::fenced(Arc::clone(&message), worker, self.runtime.sinks(), fence)
            .again(delivery.is_again())
            .permits_of(self.runtime.permits.clone());
        self.runtime.serials.began(&self.runtime, &context, tag, now);
        self.runs.insert(tag, context.clone());
        let run = Run {
            definition,
            context,
            pool: self.row.pool,
            force: self.force.clone(),
            stuck: Arc::clone(&self.lasting.stuck),
            runtime: Arc::clone(&self.runtime),
            started_at: now,
        };
        self.give(slot, run, delivery);
        true
    }

    /// Settles a delivery that is not to run.
    fn end_unstarted(&mut self, tag: u64, delivery: Delivery, verdict: Verdict) {
        self.backlog.finish(tag);
        self.counters.count(Ended::of(&verdict));
        let runtime = Arc::clone(&self.runtime);
        actix_rt::spawn(async move {
            let context =
                task::Context::new(Arc::clone(delivery.message()), "".into(), task::Sinks::default())
                    .permits_of(runtime.permits.clone());
            conclude(verdict, Some(delivery), &context, &Hooks::default(), &runtime).await;
        });
    }

    fn prefetch(&self) -> usize {
        let unstated = self.row.prefetch.is_none() && !self.runtime.broker.is_shared();
        // A delivery counts until its settlement is safe. With few of them, workers idle while the disk is at it.
        let least =
            if unstated { self.row.workers.saturating_mul(4).max(PREFETCH) } else { self.row.workers };
        self.row.max_deliveries().max(least)
    }

    fn tell_bodies(&self, interrupt: Interrupt) {
        self.runs.values().for_each(|context| context.interrupt_with(interrupt));
    }

    fn check_closed(&mut self) {
        if self.runs.is_empty()
            && let Some(waiting) = &mut self.closing
        {
            for waiting in waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }
}

impl Drop for Queue {
    /// A queue that dies takes its runs with it, so that its successor has all slots for itself.
    fn drop(&mut self) {
        self.tell_bodies(Interrupt::Shutdown);
        self.force.cancel();
        for (tag, context) in &self.runs {
            self.runtime.serials.ended(context.message(), *tag);
        }
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

    fn handle(&mut self, Deliveries(deliveries): Deliveries, ctx: &mut Self::Context) {
        if self.closing.is_some() {
            return; // dropped, and so back in the broker
        }
        if self.runtime.broker.knows_all() {
            self.line_up_all(deliveries);
            self.pump();
        } else {
            self.check_revocations(deliveries, ctx);
        }
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
        if let Some(context) = self.runs.remove(&tag) {
            self.runtime.serials.ended(context.message(), tag);
        }
        self.backlog.finish(tag);
        self.counters.count(report.ended);
        self.counters.panics += u64::from(report.panicked);
        self.counters.timed_out += u64::from(report.timed_out);
        if self.is_staffed(slot, generation) {
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
        self.pump_soon(ctx);
    }
}

/// Start what may start.
#[derive(Message)]
#[rtype(result = "()")]
struct Pump;

impl Handler<Pump> for Queue {
    type Result = ();

    fn handle(&mut self, _: Pump, _: &mut Self::Context) {
        self.pump_due = false;
        self.pump();
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
