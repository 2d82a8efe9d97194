//! A worker: it has one slot of its queue, runs one task at a time, and answers what it runs.
//!
//! The queue builds a worker for each slot and sends it [`Start`]. The run is a future of its own beside the actor,
//! so the worker's mailbox stays free, and no task body is ever polled inside an actor's poll.
//!
//! In the process pool a worker has a child process, which runs the bodies of its tasks. The worker takes tasks when its
//! child is ready, and goes when its child does: the queue puts another worker on its slot, with another child.
//!
//! Invariants:
//! - What the worker runs lies on its [`Desk`], which worker and run share. The run clears it when it ends; both live
//!   on one event loop, so this takes no message.
//! - A worker that is dropped ends its run and hands the task back: no run goes on that no worker knows of.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use tokio_util::sync::CancellationToken;

use super::queue::{ChildDown, Finished, Queue, WorkerReady};
use super::running::{OwnRun, RunningTask};
use super::slot_pool::SlotPermit;
use crate::broker::Delivery;
use crate::runtime::Runtime;
use crate::runtime::children::ChildSettings;
use crate::runtime::process::ChildProcess;
use crate::runtime::run::{AfterRun, Report, Run};

/// The actor. When a task has panicked, the queue replaces the worker that ran it with a new one.
pub(super) struct Worker {
    pub(super) queue: Addr<Queue>,
    pub(super) name: String,
    pub(super) slot: usize,
    /// How many workers the queue had hired up to this one. It tells a worker from the later ones on its slot.
    pub(super) generation: u64,
    pub(super) runtime: Arc<Runtime>,
    /// Cancelling it ends the worker's run at once and hands the task back to the broker.
    pub(super) force: CancellationToken,
    pub(super) desk: Rc<Desk>,
    /// How the worker's child process is to be; `None`: it has none.
    pub(super) children: Option<Arc<ChildSettings>>,
    pub(super) child: Option<Arc<ChildProcess>>,
}

/// What a worker and its run share: the run's facts, and whether the worker is to stop after it.
#[derive(Default)]
pub(super) struct Desk(RefCell<State>);

#[derive(Default)]
struct State {
    /// The run, with the tag of its delivery.
    run: Option<(u64, OwnRun)>,
    /// Set when the queue has let the worker go while it had a run: the worker is told to stop when the run ends.
    retires: Option<Addr<Worker>>,
}

impl Desk {
    fn lay(&self, tag: u64, run: OwnRun) {
        self.0.borrow_mut().run = Some((tag, run));
    }

    /// The run of the delivery with this tag is over.
    fn clear(&self, tag: u64) {
        let mut state = self.0.borrow_mut();
        state.run.take_if(|(at, _)| *at == tag);
        if let Some(worker) = state.retires.take() {
            worker.do_send(Retire);
        }
    }

    fn is_busy(&self) -> bool {
        self.0.borrow().run.is_some()
    }

    /// Whether there is a run. If so, `worker` is sent [`Retire`] once more when the run is over.
    fn wait_for_end(&self, worker: Addr<Worker>) -> bool {
        let mut state = self.0.borrow_mut();
        let is_busy = state.run.is_some();
        state.retires = is_busy.then_some(worker);
        is_busy
    }
}

/// Clears the desk when it is dropped, whether the run ended, panicked or was dropped itself.
struct AtDesk(Rc<Desk>, u64);

impl Drop for AtDesk {
    fn drop(&mut self) {
        self.0.clear(self.1);
    }
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
    queue: Addr<Queue>,
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
        queue: Addr<Queue>,
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
    }
}

impl Handler<Start> for Worker {
    type Result = ();

    fn handle(&mut self, Start { mut run, delivery, permit }: Start, _: &mut Self::Context) {
        let child = self.child.clone();
        run.child = child.clone();
        let at_desk = AtDesk(Rc::clone(&self.desk), delivery.tag());
        self.desk.lay(delivery.tag(), OwnRun::of(&run));
        actix_rt::spawn(async move {
            let mut report = run.execute(delivery).await;
            if let Some(child) = child {
                report.worker = child.after_run();
            }
            drop(at_desk); // before the slot is given back: the queue may start the next task on it at once
            permit.give_back(report);
        });
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
        MessageResult(self.desk.0.borrow().run.as_ref().map(|(_, run)| run.now()))
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
