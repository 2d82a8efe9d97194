//! What an operator or a shutdown asks of a queue: its status, pause, resume, resize, and its end. The messages
//! come through [`Queues`](super::super::queues::Queues).

use std::convert::Infallible;
use std::time::Duration;

use actix::{ActorContext, Context, Handler, Message, MessageResult};
use tokio::sync::{mpsc, oneshot};

use super::super::status::{QueueAccounts, QueueStatus};
use super::{BrokerBacklog, Queue};
use crate::core::autoscale::WorkerRange;
use crate::core::blockage;
use crate::task::Interrupt;
use crate::task::clock::now;

/// Asks for the status of the queue. The caller has asked the broker for its part first, because the actor does not
/// wait.
#[derive(Message)]
#[rtype(result = "Box<QueueStatus>")]
pub(crate) struct GetStatus(pub(crate) BrokerBacklog);

impl Handler<GetStatus> for Queue {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, GetStatus(waiting): GetStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(Box::new(self.status(waiting)))
    }
}

/// As [`GetStatus`], with the accounts of the queue's tasks.
#[derive(Message)]
#[rtype(result = "Box<QueueAccounts>")]
pub(crate) struct GetAccounts(pub(crate) BrokerBacklog);

impl Handler<GetAccounts> for Queue {
    type Result = MessageResult<GetAccounts>;

    fn handle(&mut self, GetAccounts(waiting): GetAccounts, _: &mut Self::Context) -> Self::Result {
        MessageResult(Box::new(QueueAccounts {
            status: self.status(waiting),
            is_consuming: self.consumer.is_some(),
            accounts: self.stats.accounts.clone(),
        }))
    }
}

/// Hands in what the queue has counted for the history. Whoever asks waits for the drop of this message.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HandInMinutes(pub(crate) mpsc::Sender<Infallible>);

impl Handler<HandInMinutes> for Queue {
    type Result = ();

    fn handle(&mut self, HandInMinutes(handed_in): HandInMinutes, _: &mut Self::Context) {
        let minutes = self.stats.minutes.take(&self.stats.accounts);
        self.runtime.history.hand_in(&self.row.name, minutes);
        drop(handed_in);
    }
}

impl Queue {
    fn status(&mut self, waiting: BrokerBacklog) -> QueueStatus {
        let now = now();
        let oldest = self.oldest_ready(waiting, now);
        let (c, counts) = (&self.stats.counters, waiting.counts);
        let broker = &self.runtime.broker;
        let dead = broker
            .dead_letter_queue()
            .map_or(counts.dead, |letters| letters.dead_from_here(&self.row.name).min(counts.dead));
        QueueStatus {
            name: self.row.name.clone(),
            pool: self.row.pool.as_str(),
            workers: self.row.workers,
            running: self.runs.len(),
            ready: counts.ready + (self.backlog.ready() + self.unchecked.len()) as u64,
            held: self.backlog.held() as u64,
            put_back: self.held_back.away(now),
            scheduled: counts.scheduled + self.backlog.scheduled() as u64,
            in_line: counts.in_line,
            dead,
            dead_in_all: counts.dead,
            away: broker.condition().is_silent,
            time_to_start: self.stats.time_to_start.snapshot(),
            blockage: blockage(oldest, self.last_start, now),
            oldest_wait: oldest.map_or(Duration::ZERO, |since| now.since(since)),
            oldest_held: self.backlog.oldest_held_since().map_or(Duration::ZERO, |since| now.since(since)),
            done: c.done,
            failed: c.failed,
            retried: c.retried,
            rejected: c.rejected,
            revoked: c.revoked,
            requeued: c.requeued,
            panics: c.panics,
            timed_out: c.timed_out,
            lost: c.lost,
            stuck: self.retained.stuck.count(),
            refused: self.retained.stuck.refused(),
            overlaps: c.overlaps,
            replaced: c.replaced,
            recycled: c.recycled,
            forecasts: self.stats.forecasts.record(),
            paused: self.backlog.is_paused(),
            halted: self.halted.clone(),
        }
    }

    pub(super) fn resize(&mut self, workers: usize, ctx: &mut Context<Self>) {
        let before = std::mem::replace(&mut self.row.workers, workers);
        self.retained.set_workers(workers);
        self.backlog.resize(workers);
        self.resize_in_pool();
        for slot in workers..before {
            self.retire(slot);
        }
        if self.halted.is_none() {
            self.fill(ctx);
        }
        if let Some(consumer) = &self.consumer {
            consumer.set_prefetch(self.deliveries_wanted());
        }
    }
}

/// Steers the queue while it runs. What this sets outlives the actor.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(crate) enum Steer {
    /// Start nothing more; runs that go on are left alone.
    Pause,
    /// Start tasks again after a pause.
    Resume,
    /// Have this many worker slots; at least as many, if their number follows the load.
    Resize(usize),
    /// Have as many worker slots as there is work, within this range.
    Range(WorkerRange),
    /// Have as many worker slots as the row states, and follow the load if it says so.
    AsStated { workers: usize, range: Option<WorkerRange> },
    /// Changes the number of workers by this many; one at least is left.
    Grow(isize),
    /// Take nothing more from the broker, and give back what has not started.
    CancelConsumer,
    /// Take again what the broker has.
    AddConsumer,
    /// See what may start: somebody has changed a limit or a brake.
    Look,
}

impl Handler<Steer> for Queue {
    type Result = ();

    fn handle(&mut self, steer: Steer, ctx: &mut Self::Context) {
        match steer {
            Steer::Pause => {
                self.backlog.pause();
                self.stats.forecasts.forget_made();
            }
            Steer::Resume => self.backlog.resume(),
            Steer::Resize(workers) => {
                self.retained.set_fewest(workers);
                self.resize(workers, ctx);
            }
            Steer::Range(range) => {
                self.retained.set_range(Some(range));
                self.resize(range.clamp(self.row.workers), ctx);
                self.watch_load(ctx);
            }
            Steer::AsStated { workers, range } => {
                self.retained.set_range(range);
                self.resize(workers, ctx);
                self.watch_load(ctx);
            }
            Steer::Grow(more) => self.resize(self.row.workers.saturating_add_signed(more).max(1), ctx),
            Steer::CancelConsumer => {
                self.retained.set_cancelled(true);
                self.consumer = None;
                drop(self.backlog.clear()); // each goes back as it drops
                self.forget_held();
                self.clear_in_pool();
                self.unchecked.clear();
                self.stats.forecasts.forget_made();
            }
            Steer::AddConsumer => {
                self.retained.set_cancelled(false);
                if self.consumer.is_none() && self.closing.is_none() {
                    self.consume(ctx);
                }
            }
            Steer::Look => {
                self.ask_all_again();
                self.sweep_brakes();
                self.stats.forecasts.forget_made(); // nobody could foresee that
            }
        }
        self.retained.set_paused(self.backlog.is_paused());
        self.pump(now());
    }
}

/// A shutdown has begun: the queue starts nothing more, hands back what has not started, and answers as soon as
/// nothing runs, with the number of runs that were handed back since.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) oneshot::Sender<usize>);

impl Handler<Close> for Queue {
    type Result = ();

    fn handle(&mut self, Close(done): Close, _: &mut Self::Context) {
        self.consumer = None;
        // The consumer went first, so no delivery comes after the backlog is empty.
        drop(self.backlog.clear()); // each delivery goes back to the broker as it drops
        self.forget_held();
        self.unchecked.clear();
        self.closing.get_or_insert_default().push(done);
        self.clear_in_pool();
        self.report_to_pool(now());
        self.check_closed();
    }
}

/// The grace of a shutdown is running out. `Ask` tells the bodies to end; `Force` also ends the runs at once and
/// hands their tasks back.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) enum Hurry {
    Ask,
    Force,
}

impl Handler<Hurry> for Queue {
    type Result = ();

    fn handle(&mut self, hurry: Hurry, _: &mut Self::Context) {
        self.tell_bodies(Interrupt::Shutdown);
        if matches!(hurry, Hurry::Force) {
            self.force.cancel();
        }
    }
}

/// Ends the actor, as the last step of a shutdown.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopQueue;

impl Handler<StopQueue> for Queue {
    type Result = ();

    fn handle(&mut self, _: StopQueue, ctx: &mut Self::Context) {
        self.consumer = None;
        ctx.stop();
    }
}
