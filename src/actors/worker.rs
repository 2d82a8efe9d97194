//! A worker: it has one slot of its queue, runs one task at a time, and answers what it runs.
//!
//! The queue builds a worker for each slot and sends it [`Start`]. The worker pushes the task to its [`RunLoop`], and the loop, a
//! future of its own beside the actor, runs what was pushed. So the worker's mailbox stays free, and no task body is ever polled
//! inside an actor's poll.
//!
//! In the process pool a worker has a child process, which runs the bodies of its tasks. The worker takes tasks when its
//! child is ready, and goes when its child does: the queue puts another worker on its slot, with another child.
//!
//! Invariants:
//! - A run whose future panics outside of its body costs nobody else anything: its task goes back, and the loop goes on.
//! - A worker that is dropped ends its run and hands the task back: no run goes on that no worker knows of.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::queue::{ChildDown, Finished, Queue, WorkerReady};
use super::running::RunningTask;
use super::slot_pool::SlotPermit;
use crate::broker::Delivery;
use crate::catalogue::Pool;
use crate::core::Timestamp;
use crate::runtime::Runtime;
use crate::runtime::children::ChildSettings;
use crate::runtime::process::ChildProcess;
use crate::runtime::run::{AfterRun, Report, Run};
use crate::runtime::task_levers::TimeLimits;
use crate::task::{self, panic_message};

/// The actor. When a task has panicked, the queue replaces the worker that ran it with a new one.
pub(super) struct Worker {
    pub(super) queue: Addr<Queue>,
    pub(super) name: String,
    pub(super) slot: usize,
    /// The number of workers that the queue had hired up to this one. It tells a worker from the later ones on its slot.
    pub(super) generation: u64,
    pub(super) runtime: Arc<Runtime>,
    /// Cancelling it ends the worker's run at once and hands the task back to the broker.
    pub(super) force: Arc<CancellationToken>,
    pub(super) run_loop: Rc<RunLoop>,
    /// The settings of the worker's child process; `None`: it has none.
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
        actix_rt::spawn(run_tasks(Rc::clone(&self.run_loop)));
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
        self.run_loop.close();
    }
}

impl Handler<Start> for Worker {
    type Result = ();

    fn handle(&mut self, mut start: Start, _: &mut Self::Context) {
        start.run.child.clone_from(&self.child);
        self.run_loop.push(start);
    }
}

/// The queue of a worker's run loop: what the loop is to run next, and what it runs. The worker pushes tasks, and its loop takes
/// them, one after the other; both live on one event loop, so this takes no message.
///
/// Invariants:
/// - What was pushed is run, also if the worker goes at once: a worker that goes has told its runs to end before.
/// - The loop ends when the worker is gone and nothing is left to run.
#[derive(Default)]
pub(super) struct RunLoop(RefCell<RunLoopState>);

#[derive(Default)]
struct RunLoopState {
    /// The tasks that are to run and have not begun: one at most, because the queue gives a slot to one task at a time.
    starts: VecDeque<Start>,
    /// The run, with the tag of its delivery.
    run: Option<(u64, OwnRun)>,
    /// Set when the queue has let the worker go while it had a run: the worker is told to stop when the run ends.
    retires: Option<Addr<Worker>>,
    /// Wakes the worker's loop.
    waker: Option<Waker>,
    /// The worker is gone.
    is_closed: bool,
}

/// The facts of a run that its worker keeps while it runs.
struct OwnRun {
    context: task::Context,
    started_at: Timestamp,
    pool: Pool,
    /// The id of the child process that runs the body; `None`: this process does.
    child: Option<u32>,
    time_limits: TimeLimits,
}

impl OwnRun {
    /// Takes the facts from a run.
    fn of(run: &Run) -> Self {
        Self {
            context: run.context.clone(),
            started_at: run.started_at,
            pool: run.pool_of_body(),
            child: run.child.as_ref().map(|child| child.pid()),
            time_limits: run.time_limits,
        }
    }

    /// The run as it is at this moment.
    fn now(&self) -> RunningTask {
        let (soft_time_limit, time_limit) = self.time_limits;
        let run = RunningTask::new(&self.context, self.started_at, self.pool);
        RunningTask { soft_time_limit, time_limit, pid: self.child.unwrap_or(run.pid), ..run }
    }
}

impl RunLoop {
    /// Gives the loop a task. The worker has it from now on.
    fn push(&self, start: Start) {
        let mut state = self.0.borrow_mut();
        state.run = Some((start.delivery.tag(), OwnRun::of(&start.run)));
        state.starts.push_back(start);
        state.wake();
    }

    /// Waits for the next task. `None`: the worker is gone.
    async fn next(&self) -> Option<Start> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            match state.starts.pop_front() {
                None if !state.is_closed => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                next => Poll::Ready(next),
            }
        })
        .await
    }

    /// Ends the loop when it has run what is left: the worker is gone, and pushes nothing more.
    fn close(&self) {
        let mut state = self.0.borrow_mut();
        state.is_closed = true;
        state.wake();
    }

    /// Says whether there is a run.
    fn is_busy(&self) -> bool {
        self.0.borrow().run.is_some()
    }

    /// The run as it is at this moment.
    fn running(&self) -> Option<RunningTask> {
        self.0.borrow().run.as_ref().map(|(_, run)| run.now())
    }

    /// Says whether there is a run. If so, `worker` is sent [`Retire`] once more when the run is over.
    fn wait_for_end(&self, worker: Addr<Worker>) -> bool {
        let mut state = self.0.borrow_mut();
        let is_busy = state.run.is_some();
        state.retires = is_busy.then_some(worker);
        is_busy
    }

    /// The run of the delivery with this tag is over.
    fn clear(&self, tag: u64) {
        let mut state = self.0.borrow_mut();
        state.run.take_if(|(at, _)| *at == tag);
        if let Some(worker) = state.retires.take() {
            worker.do_send(Retire);
        }
    }
}

impl RunLoopState {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The run that the loop is at. When this is dropped, the worker has no run any more, whether the run ended, panicked or was
/// dropped itself.
struct CurrentRun(Rc<RunLoop>, u64);

impl CurrentRun {
    /// Marks the run of the delivery with this tag as the one that the loop is at.
    fn of(run_loop: &Rc<RunLoop>, tag: u64) -> Self {
        Self(Rc::clone(run_loop), tag)
    }
}

impl Drop for CurrentRun {
    fn drop(&mut self) {
        self.0.clear(self.1);
    }
}

/// The loop of a worker: it runs what was pushed, one task after the other, until the worker is gone. A loop is made once,
/// so a run takes no future of its own from the event loop. Whatever panics in a step ends that step alone: a loop that ended
/// would leave its worker with tasks that nobody runs.
async fn run_tasks(run_loop: Rc<RunLoop>) {
    while let Some(start) = run_loop.next().await {
        let context = start.run.context.clone();
        if let Err(panic) = AssertUnwindSafe(run_task(&run_loop, start)).catch_unwind().await {
            let panic = panic_message(panic);
            tracing::error!(id = %context.id(), panic, "a run panicked outside of its body; its task goes back to its queue");
        }
    }
}

/// Runs a task and gives its slot back, also if the run panics.
async fn run_task(run_loop: &Rc<RunLoop>, Start { run, delivery, permit }: Start) {
    let child = run.child.clone();
    // A panic drops this first, and the permit last.
    let current = CurrentRun::of(run_loop, delivery.tag());
    let mut report = run.execute(delivery).await;
    if let Some(child) = child {
        report.worker = child.after_run();
    }
    drop(current); // before the slot is given back: the queue may start the next task on it at once
    permit.give_back(report);
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
        if !self.run_loop.is_busy() && !is_used_up {
            let (slot, generation) = (self.slot, self.generation);
            self.queue.do_send(ChildDown { slot, generation, cause: format!("its child process {cause}") });
        }
    }
}

impl Handler<GetRun> for Worker {
    type Result = MessageResult<GetRun>;

    fn handle(&mut self, _: GetRun, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.run_loop.running())
    }
}

impl Handler<Retire> for Worker {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        if !self.run_loop.wait_for_end(ctx.address()) {
            ctx.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn the_loop_hears_of_the_end_of_its_worker() {
        let run_loop = Rc::new(RunLoop::default());
        let own = Rc::clone(&run_loop);
        let (began, begins) = tokio::sync::oneshot::channel();
        let waits = actix_rt::spawn(async move {
            let _ = began.send(());
            own.next().await.is_none()
        });
        begins.await.expect("it has begun");
        assert!(!run_loop.is_busy() && run_loop.running().is_none());
        run_loop.close();
        assert!(waits.await.expect("it has ended"), "there is nothing left to run");
        assert!(run_loop.next().await.is_none(), "and never will be");
    }
}
