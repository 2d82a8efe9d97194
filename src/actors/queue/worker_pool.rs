//! The workers of a queue: the queue hires them, replaces them and lets them go. A restart intensity bounds how
//! often workers may die; when it is exceeded, the queue halts for a while instead of building workers that die at
//! once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler, Message};
use tokio_util::sync::CancellationToken;

use super::super::slot_pool::SlotPermit;
use super::super::supervisor::{self, Exit};
use super::super::worker::{Retire, Worker};
use super::{GivenRun, Queue, Run, SlotGuard, Start};
use crate::broker::Delivery;
use crate::core::RestartVerdict;
use crate::core::accounts::TaskPlace;
use crate::runtime::gates::GateAdmission;
use crate::task::clock::now;

/// The longest halt. A halted queue tries again when its failures have left the restart window, or after this time.
const LONGEST_HALT: Duration = Duration::from_secs(30);

/// A slot with its worker.
pub(super) struct WorkerSlot {
    queue: Arc<Addr<Queue>>,
    worker: Rc<Addr<Worker>>,
    /// Cancelling it ends the worker's run at once and hands the task back.
    force: Arc<CancellationToken>,
    generation: u64,
    /// The worker's name in runs and results: `queue#slot`.
    name: Arc<str>,
    /// The id of the worker's child process, if it has one that is ready.
    child: Option<u32>,
}

impl WorkerSlot {
    /// The worker's name, `queue#slot`.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Cancelling it ends the run of this slot at once.
    pub(super) fn force(&self) -> Arc<CancellationToken> {
        Arc::clone(&self.force)
    }

    /// The worker.
    pub(super) fn worker(&self) -> Rc<Addr<Worker>> {
        Rc::clone(&self.worker)
    }

    /// Makes a task of a run: what the queue keeps of it, and what its worker gets, which is the one on this `slot`. The pump
    /// sends it at its end, together with all other starts.
    pub(super) fn assign(
        &self,
        slot: usize,
        run: Run,
        delivery: Delivery,
        (account, mut admission, mut slot_permit): (TaskPlace, GateAdmission, Option<SlotPermit>),
    ) -> (GivenRun, Start) {
        admission.begin();
        if let Some(slot_permit) = &mut slot_permit {
            slot_permit.begin();
        }
        let queue = Arc::clone(&self.queue);
        let permit = SlotGuard::new(queue, delivery.tag(), slot, self.generation, slot_permit);
        let given = GivenRun {
            context: run.context.clone(),
            worker: self.worker(),
            delivery_info: delivery.info().cloned(),
            started_at: run.started_at,
            child: self.child,
            account,
            admission,
        };
        (given, Start { run: Box::new(run), delivery, permit })
    }
}

impl Queue {
    /// Hires workers for all slots that have none.
    pub(super) fn fill(&mut self, ctx: &mut Context<Self>) {
        for slot in 0..self.row.workers {
            if self.staff(slot).is_none() {
                self.hire(slot, ctx);
            }
        }
    }

    /// Puts a new worker on a slot. The slot is idle only when the worker has said that it is [`WorkerReady`].
    pub(super) fn hire(&mut self, slot: usize, ctx: &mut Context<Self>) {
        if self.closing.is_some() {
            return; // nothing starts any more, and a child process would only have to be ended
        }
        self.generations += 1;
        let generation = self.generations;
        let queue = ctx.address();
        let down = queue.clone();
        let force = Arc::new(self.force.child_token());
        let worker = Worker {
            queue: queue.clone(),
            name: self.row.name.clone(),
            slot,
            generation,
            runtime: Arc::clone(&self.runtime),
            force: Arc::clone(&force),
            run_loop: Rc::default(),
            children: self.children.clone(),
            child: None,
        };
        let worker =
            supervisor::spawn(|_| worker, move |exit| down.do_send(WorkerDown { slot, generation, exit }));
        let name = format!("{}#{slot}", self.row.name).into();
        let worker = Rc::new(worker);
        if self.workers.len() <= slot {
            self.workers.resize_with(slot + 1, || None);
        }
        let queue = Arc::new(queue);
        self.workers[slot] = Some(WorkerSlot { queue, worker, force, generation, name, child: None });
    }

    fn staff(&self, slot: usize) -> Option<&WorkerSlot> {
        self.workers.get(slot)?.as_ref()
    }

    /// Takes the worker off its slot, which is not idle then.
    fn vacate(&mut self, slot: usize) -> Option<WorkerSlot> {
        self.idle.retain(|idle| *idle != slot);
        self.workers.get_mut(slot)?.take()
    }

    /// Lets the worker of a slot go; a run that it has goes on to its end.
    pub(super) fn retire(&mut self, slot: usize) {
        if let Some(WorkerSlot { worker, .. }) = self.vacate(slot) {
            worker.do_send(Retire);
        }
    }

    /// Puts a new worker on a slot in the place of the one that is there; none if the queue needs it no more.
    pub(super) fn replace(&mut self, slot: usize, ctx: &mut Context<Self>) {
        self.retire(slot);
        if self.closing.is_none() && self.halted.is_none() && slot < self.row.workers {
            self.hire(slot, ctx);
        }
    }

    /// Whether the worker of this generation is still on the slot, and not a later one or none.
    pub(super) fn is_staffed(&self, slot: usize, generation: u64) -> bool {
        self.staff(slot).is_some_and(|staffed| staffed.generation == generation)
    }

    fn halt(&mut self, reason: String, ctx: &mut Context<Self>) {
        let pause = self.row.restart_window.min(LONGEST_HALT);
        tracing::error!(queue = %self.row.name, reason, ?pause, "the queue has stopped itself and tries again after a pause");
        self.halted = Some(reason);
        self.stats.forecasts.forget_made();
        self.report_to_pool(now());
        ctx.run_later(pause, |queue, ctx| {
            queue.halted = None;
            queue.fill(ctx);
            queue.pump(now());
        });
    }
}

/// A worker has started and may be given tasks. Until then its slot takes none, so a `WorkerHook` that fails costs
/// no task.
#[derive(Message)]
#[rtype(result = "()")]
pub(in super::super) struct WorkerReady {
    pub(in super::super) slot: usize,
    pub(in super::super) generation: u64,
    /// The id of the worker's child process, if it has one.
    pub(in super::super) child: Option<u32>,
}

impl Handler<WorkerReady> for Queue {
    type Result = ();

    fn handle(&mut self, WorkerReady { slot, generation, child }: WorkerReady, _: &mut Self::Context) {
        let staffed = self.workers.get_mut(slot).and_then(Option::as_mut);
        if let Some(staffed) = staffed.filter(|staffed| staffed.generation == generation) {
            staffed.child = child;
            self.idle.push(slot);
            self.pump(now());
        }
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

    fn handle(&mut self, WorkerDown { slot, generation, exit }: WorkerDown, ctx: &mut Self::Context) {
        let cause = match exit {
            Exit::Stopped => "it stopped".to_owned(),
            Exit::Panicked(text) => text,
        };
        self.worker_died(slot, generation, cause, ctx);
    }
}

/// The child process of a worker did not start, or ended while it had no task: the worker is of no use any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(in super::super) struct ChildDown {
    pub(in super::super) slot: usize,
    pub(in super::super) generation: u64,
    pub(in super::super) cause: String,
}

impl Handler<ChildDown> for Queue {
    type Result = ();

    fn handle(&mut self, ChildDown { slot, generation, cause }: ChildDown, ctx: &mut Self::Context) {
        self.worker_died(slot, generation, cause, ctx);
    }
}

impl Queue {
    /// A worker is gone. Another one is built for its slot, as the restart intensity allows.
    pub(super) fn worker_died(
        &mut self,
        slot: usize,
        generation: u64,
        cause: String,
        ctx: &mut Context<Self>,
    ) {
        if !self.is_staffed(slot, generation) {
            return; // the queue had let this worker go
        }
        self.vacate(slot);
        self.stats.counters.replaced += 1;
        match self.restarts.failed(now()) {
            RestartVerdict::Restart { after } => {
                tracing::warn!(queue = %self.row.name, slot, cause, ?after, "a worker died and is built anew");
                ctx.run_later(after, move |queue, ctx| {
                    if slot < queue.row.workers && queue.staff(slot).is_none() && queue.halted.is_none() {
                        queue.hire(slot, ctx);
                    }
                });
            }
            RestartVerdict::GiveUp { restarts, window } => {
                if self.halted.is_none() {
                    let text =
                        format!("its workers died {restarts} times within {window:?}, last of: {cause}");
                    self.halt(text, ctx);
                }
            }
        }
    }
}
