//! The levers of a queue: its status, pause, resize, and its end.

use std::sync::atomic::Ordering;

use actix::{ActorContext, Context, Handler, Message, MessageResult};
use tokio::sync::oneshot;

use super::super::status::QueueStatus;
use super::Queue;
use crate::broker::Counts;
use crate::core;
use crate::task::Interrupt;
use crate::task::clock::now;

/// Asks for the status.
#[derive(Message)]
#[rtype(result = "Box<QueueStatus>")]
pub(crate) struct GetStatus(pub(crate) Counts);

impl Handler<GetStatus> for Queue {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, GetStatus(counts): GetStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(Box::new(self.status(counts)))
    }
}

impl Queue {
    fn status(&self, counts: Counts) -> QueueStatus {
        let c = &self.counters;
        QueueStatus {
            name: self.row.name.clone(),
            pool: self.row.pool.as_str(),
            workers: self.row.workers,
            running: self.runs.len(),
            ready: counts.ready + (self.backlog.ready() + self.unchecked.len()) as u64,
            scheduled: counts.scheduled + self.backlog.scheduled() as u64,
            in_line: counts.in_line,
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
            stuck: self.lasting.stuck.now.load(Ordering::Relaxed),
            refused: self.lasting.stuck.refused.load(Ordering::Relaxed),
            replaced: c.replaced,
            paused: self.backlog.is_paused(),
            halted: self.halted.clone(),
        }
    }

    fn resize(&mut self, workers: usize, ctx: &mut Context<Self>) {
        let before = std::mem::replace(&mut self.row.workers, workers);
        self.lasting.set_workers(workers);
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
            Steer::Resize(workers) => self.resize(workers, ctx),
        }
        self.lasting.set_paused(self.backlog.is_paused());
        self.pump();
    }
}

/// Start nothing more, hand back what has not started, and answer as soon as nothing runs.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) oneshot::Sender<()>);

impl Handler<Close> for Queue {
    type Result = ();

    fn handle(&mut self, Close(done): Close, _: &mut Self::Context) {
        self.consumer = None;
        drop(self.backlog.clear()); // each goes back as it drops
        self.unchecked.clear();
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
        self.tell_bodies(Interrupt::Shutdown);
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
