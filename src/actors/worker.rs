//! A worker: one slot of a queue, one task at a time.

use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, Context, Handler, Message};

use super::queue::{Finished, Queue, Up};
use super::run::{Report, Run};
use super::runtime::Runtime;
use crate::broker::Delivery;

/// Runs what its queue gives it. After a task that panicked it is replaced by a new one.
pub(super) struct Worker {
    pub(super) queue: Addr<Queue>,
    pub(super) name: String,
    pub(super) slot: usize,
    /// Which worker of the queue it is, counted from 1.
    pub(super) generation: u64,
    pub(super) runtime: Arc<Runtime>,
}

/// A slot on loan to a run. It goes back when this is dropped, whatever became of the run.
pub(super) struct Permit {
    queue: Addr<Queue>,
    tag: u64,
    slot: usize,
    generation: u64,
    report: Report,
}

impl Permit {
    pub(super) fn new(queue: Addr<Queue>, tag: u64, slot: usize, generation: u64) -> Self {
        Self { queue, tag, slot, generation, report: Report::HANDED_BACK }
    }

    /// The run has ended, like this.
    fn give_back(mut self, report: Report) {
        self.report = report;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { tag, slot, generation, report, .. } = *self;
        self.queue.do_send(Finished { tag, slot, generation, report });
    }
}

/// A task to run.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Start {
    pub(super) run: Box<Run>,
    pub(super) delivery: Delivery,
    pub(super) permit: Permit,
}

/// The worker is not needed any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire;

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if let Some(hook) = &self.runtime.on_worker_start {
            hook(&self.name, self.slot);
        }
        self.queue.do_send(Up { slot: self.slot, generation: self.generation });
    }
}

impl Handler<Start> for Worker {
    type Result = ();

    fn handle(&mut self, Start { run, delivery, permit }: Start, _: &mut Self::Context) {
        // Beside the actor: its mailbox stays free, and no body is ever polled inside an actor's own poll.
        actix_rt::spawn(async move { permit.give_back(run.execute(delivery).await) });
    }
}

impl Handler<Retire> for Worker {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
