//! A worker: it has one slot of its queue, runs one task at a time, and answers what it runs.
//!
//! The queue builds a worker for each slot and sends it [`Start`]. The worker lays the task on its [`Desk`], and the worker's
//! loop, a future of its own beside the actor, runs what lies there. So the worker's mailbox stays free, and no task body is ever
//! polled inside an actor's poll.
//!
//! In the process pool a worker has a child process, which runs the bodies of its tasks. The worker takes tasks when its
//! child is ready, and goes when its child does: the queue puts another worker on its slot, with another child.
//!
//! Invariants:
//! - A run whose future panics outside of its body costs nobody else anything: its task goes back, and the loop goes on.
//! - A worker that is dropped ends its run and hands the task back: no run goes on that no worker knows of.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::desk::{AtDesk, Desk};
use super::queue::{ChildDown, Finished, Queue, WorkerReady};
use super::running::RunningTask;
use super::slot_pool::SlotPermit;
use crate::broker::Delivery;
use crate::runtime::Runtime;
use crate::runtime::children::ChildSettings;
use crate::runtime::process::ChildProcess;
use crate::runtime::run::{AfterRun, Report, Run};
use crate::task::panic_message;

/// The actor. When a task has panicked, the queue replaces the worker that ran it with a new one.
pub(super) struct Worker {
    pub(super) queue: Addr<Queue>,
    pub(super) name: String,
    pub(super) slot: usize,
    /// How many workers the queue had hired up to this one. It tells a worker from the later ones on its slot.
    pub(super) generation: u64,
    pub(super) runtime: Arc<Runtime>,
    /// Cancelling it ends the worker's run at once and hands the task back to the broker.
    pub(super) force: Arc<CancellationToken>,
    pub(super) desk: Rc<Desk>,
    /// How the worker's child process is to be; `None`: it has none.
    pub(super) children: Option<Arc<ChildSettings>>,
    pub(super) child: Option<Arc<ChildProcess>>,
}

/// Why a serial task did not start although a worker was given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstarted {
    /// It would have run beside as many runs of its key as may run at a time.
    Overlaps,
    /// The actor of its lane has died and is not built anew yet.
    LaneIsDown,
}

/// A worker slot that is lent to a run. When this is dropped, the queue is told ([`Finished`]) that the slot is free
/// again, so a slot cannot be lost, whatever became of the run.
pub(super) struct SlotGuard {
    queue: Arc<Addr<Queue>>,
    tag: u64,
    slot: usize,
    generation: u64,
    report: Report,
    unstarted: Option<Unstarted>,
    /// The slot of the pool, if the queue gets its slots from one. It is free when the queue has heard of the end, or cannot.
    permit: Option<SlotPermit>,
}

impl SlotGuard {
    pub(super) fn new(
        queue: Arc<Addr<Queue>>,
        tag: u64,
        slot: usize,
        generation: u64,
        permit: Option<SlotPermit>,
    ) -> Self {
        Self { queue, tag, slot, generation, report: Report::HANDED_BACK, unstarted: None, permit }
    }

    /// Gives the slot back with the report of the run that used it.
    fn give_back(mut self, report: Report) {
        self.report = report;
    }

    /// Gives the slot back when the task did not start, with the reason.
    pub(super) fn refuse(mut self, why: Unstarted) {
        self.unstarted = Some(why);
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let Self { tag, slot, generation, unstarted, .. } = *self;
        let report = std::mem::replace(&mut self.report, Report::HANDED_BACK);
        let permit = self.permit.take();
        self.queue.do_send(Finished { tag, slot, generation, report, unstarted, permit });
    }
}

/// Gives the worker a task to run.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Start {
    pub(super) run: Box<Run>,
    pub(super) delivery: Delivery,
    pub(super) permit: SlotGuard,
}

/// The queue does not need the worker any more. A run that it has goes on to its end.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire;

/// Asks what the worker runs just now.
#[derive(Message)]
#[rtype(result = "Option<RunningTask>")]
pub(super) struct GetRun;

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        actix_rt::spawn(run_tasks(Rc::clone(&self.desk)));
        if let Some(children) = self.children.clone() {
            self.start_child(&children, ctx);
            return;
        }
        if let Some(hook) = &self.runtime.hooks.on_worker_start {
            hook(&self.name, self.slot);
        }
        self.queue.do_send(WorkerReady { slot: self.slot, generation: self.generation, child: None });
    }
}

impl Worker {
    /// Starts the worker's child process. The queue is told when the child is ready for tasks, and when it is gone.
    fn start_child(&mut self, children: &ChildSettings, ctx: &mut Context<Self>) {
        let (queue, slot, generation) = (self.queue.clone(), self.slot, self.generation);
        let child = match ChildProcess::start(children, slot, &self.runtime) {
            Ok(child) => child,
            Err(error) => {
                let cause = format!("its child process could not be started: {error}");
                queue.do_send(ChildDown { slot, generation, cause });
                return;
            }
        };
        let (watch, pid) = (child.watch(), child.pid());
        self.child = Some(Arc::new(child));
        // The worker is not kept by who waits for its child.
        let worker = ctx.address().downgrade();
        actix_rt::spawn(async move {
            if watch.ready().await.is_ok() {
                queue.do_send(WorkerReady { slot, generation, child: Some(pid) });
            }
            let cause = watch.gone().await;
            if let Some(worker) = worker.upgrade() {
                worker.do_send(ChildGone(cause));
            }
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.force.cancel();
        self.desk.close();
    }
}

impl Handler<Start> for Worker {
    type Result = ();

    fn handle(&mut self, mut start: Start, _: &mut Self::Context) {
        start.run.child.clone_from(&self.child);
        self.desk.lay(start);
    }
}

/// The loop of a worker: it runs what lies on the desk, one task after the other, until the worker is gone. A loop is made once,
/// so a run takes no future of its own from the event loop.
async fn run_tasks(desk: Rc<Desk>) {
    while let Some(Start { run, delivery, permit }) = desk.next().await {
        let (context, child) = (run.context.clone(), run.child.clone());
        let at_desk = AtDesk::of(&desk, delivery.tag());
        let ended = AssertUnwindSafe(run.execute(delivery)).catch_unwind().await;
        drop(at_desk); // before the slot is given back: the queue may start the next task on it at once
        match ended {
            Ok(mut report) => {
                if let Some(child) = child {
                    report.worker = child.after_run();
                }
                permit.give_back(report);
            }
            Err(panic) => {
                let panic = panic_message(panic);
                tracing::error!(id = %context.id(), panic, "a run panicked outside of its body; its task goes back to its queue");
                drop(permit);
            }
        }
    }
}

/// The worker's child process is gone, in this way.
#[derive(Message)]
#[rtype(result = "()")]
struct ChildGone(String);

impl Handler<ChildGone> for Worker {
    type Result = ();

    fn handle(&mut self, ChildGone(cause): ChildGone, _: &mut Self::Context) {
        // The report of a run says itself that the worker is to be replaced: then the death is the run's, and no fault of
        // the worker's.
        let is_used_up = self.child.as_ref().is_some_and(|child| child.after_run() == AfterRun::Recycled);
        if !self.desk.is_busy() && !is_used_up {
            let (slot, generation) = (self.slot, self.generation);
            self.queue.do_send(ChildDown { slot, generation, cause: format!("its child process {cause}") });
        }
    }
}

impl Handler<GetRun> for Worker {
    type Result = MessageResult<GetRun>;

    fn handle(&mut self, _: GetRun, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.desk.running())
    }
}

impl Handler<Retire> for Worker {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        if !self.desk.wait_for_end(ctx.address()) {
            ctx.stop();
        }
    }
}
