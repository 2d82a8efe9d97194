//! A worker: one slot of a queue, one task at a time.

use actix::{Actor, Addr, Context, Handler, Message};

use super::queue::{Finished, Queue};
use super::run::Run;
use super::runtime::Runtime;
use std::sync::Arc;

/// Runs what its queue gives it. After a task that panicked it is replaced by a new one.
pub(super) struct Worker {
    pub(super) queue: Addr<Queue>,
    pub(super) name: String,
    pub(super) slot: usize,
    /// Which worker of this slot it is, counted from 1.
    pub(super) generation: u64,
    pub(super) runtime: Arc<Runtime>,
}

/// A task to run.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Start(pub(super) Box<Run>);

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
    }
}

impl Handler<Start> for Worker {
    type Result = ();

    fn handle(&mut self, Start(run): Start, _: &mut Self::Context) {
        let (queue, slot, generation) = (self.queue.clone(), self.slot, self.generation);
        // Beside the actor: its mailbox stays free, and no body is ever polled inside an actor's own poll.
        actix_rt::spawn(async move {
            let tag = run.delivery.tag();
            let report = run.execute().await;
            queue.do_send(Finished { tag, slot, generation, report });
        });
    }
}

impl Handler<Retire> for Worker {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        use actix::ActorContext;
        ctx.stop();
    }
}
