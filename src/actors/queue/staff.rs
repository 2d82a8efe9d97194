//! The workers of a queue: hired, replaced, let go; and the restart intensity that bounds how often they may die.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler, Message};

use super::super::supervisor::{self, Exit};
use super::super::worker::{Retire, Worker};
use super::{Permit, Queue, Run, Start};
use crate::broker::Delivery;
use crate::core::RestartVerdict;
use crate::task::clock::now;

/// A halted queue tries again when its failures have left the restart window, but after this long at most.
const LONGEST_HALT: Duration = Duration::from_secs(30);

/// A worker in its place.
pub(super) struct Slot {
    queue: Addr<Queue>,
    worker: Addr<Worker>,
    generation: u64,
    /// `queue#slot`, as runs and results name it.
    name: Arc<str>,
}

impl Slot {
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl Queue {
    /// Hires workers for the slots that have none.
    pub(super) fn fill(&mut self, ctx: &mut Context<Self>) {
        for slot in 0..self.row.workers {
            if !self.workers.contains_key(&slot) {
                self.hire(slot, ctx);
            }
        }
    }

    /// Puts a new worker on a slot; the slot is idle when the worker says that it is [`Up`].
    pub(super) fn hire(&mut self, slot: usize, ctx: &mut Context<Self>) {
        self.generations += 1;
        let generation = self.generations;
        let queue = ctx.address();
        let down = queue.clone();
        let worker = Worker {
            queue: queue.clone(),
            name: self.row.name.clone(),
            slot,
            generation,
            runtime: Arc::clone(&self.runtime),
        };
        let worker =
            supervisor::spawn(|_| worker, move |exit| down.do_send(WorkerDown { slot, generation, exit }));
        let name = format!("{}#{slot}", self.row.name).into();
        self.workers.insert(slot, Slot { queue, worker, generation, name });
    }

    /// Lets a worker go; what it runs goes on to its end.
    pub(super) fn retire(&mut self, slot: usize) {
        if let Some(Slot { worker, .. }) = self.workers.remove(&slot) {
            worker.do_send(Retire);
        }
        self.idle.retain(|idle| *idle != slot);
    }

    /// Lines up a task for a worker; the pump lets it start.
    pub(super) fn give(&mut self, slot: usize, run: Run, delivery: Delivery) {
        if let Some(Slot { queue, worker, generation, .. }) = self.workers.get(&slot) {
            let permit = Permit::new(queue.clone(), delivery.tag(), slot, *generation);
            let start = Start { run: Box::new(run), delivery, permit };
            self.starting.push((worker.clone(), start));
        }
    }

    /// Whether this very worker is on the slot, and not a later one or none.
    pub(super) fn is_staffed(&self, slot: usize, generation: u64) -> bool {
        self.workers.get(&slot).is_some_and(|s| s.generation == generation)
    }

    fn halt(&mut self, reason: String, ctx: &mut Context<Self>) {
        let pause = self.row.restart_window.min(LONGEST_HALT);
        tracing::error!(queue = %self.row.name, reason, ?pause, "the queue has stopped itself and tries again after a pause");
        self.halted = Some(reason);
        ctx.run_later(pause, |queue, ctx| {
            queue.halted = None;
            queue.fill(ctx);
            queue.pump();
        });
    }
}

/// A worker has started and may be given tasks.
#[derive(Message)]
#[rtype(result = "()")]
pub(in super::super) struct Up {
    pub(in super::super) slot: usize,
    pub(in super::super) generation: u64,
}

impl Handler<Up> for Queue {
    type Result = ();

    fn handle(&mut self, Up { slot, generation }: Up, _: &mut Self::Context) {
        if self.is_staffed(slot, generation) {
            self.idle.push(slot);
            self.pump();
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
        if !self.is_staffed(slot, generation) {
            return; // one that was retired
        }
        self.workers.remove(&slot);
        self.idle.retain(|idle| *idle != slot);
        self.counters.replaced += 1;
        let cause = match exit {
            Exit::Stopped => "it stopped".to_owned(),
            Exit::Panicked(text) => text,
        };
        match self.restarts.failed(now()) {
            RestartVerdict::Restart { after } => {
                tracing::warn!(queue = %self.row.name, slot, cause, ?after, "a worker died and is built anew");
                ctx.run_later(after, move |queue, ctx| {
                    if slot < queue.row.workers
                        && !queue.workers.contains_key(&slot)
                        && queue.halted.is_none()
                    {
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
