//! A queue whose number of workers follows its load: Celery's `--autoscale`.
//!
//! [`core::autoscale`](crate::core::autoscale) decides. A task counts as waiting if it is ready, in the broker or here, and no
//! worker is free: while one is, what waits is held back by something else, such as a limit, and more workers would not help.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::Queue;
use crate::core::autoscale::{Autoscaler, Load};
use crate::task::clock::{now, steady};

/// How often the queue looks at its load.
const LOOK: Duration = Duration::from_secs(1);

/// What the queue knows of its load.
#[derive(Default)]
pub(super) struct LoadWatch {
    decides: Autoscaler,
    /// The regular looks have begun.
    is_on: bool,
    /// A question to the broker is under way.
    asking: bool,
}

impl Queue {
    /// Starts the regular looks, if the number of workers follows the load.
    pub(super) fn watch_load(&mut self, ctx: &mut Context<Self>) {
        if self.retained.range().is_some() && !std::mem::replace(&mut self.load.is_on, true) {
            ctx.run_interval(LOOK, |queue, ctx| queue.look_at_load(ctx));
        }
    }

    fn look_at_load(&mut self, ctx: &mut Context<Self>) {
        if self.retained.range().is_none()
            || self.closing.is_some()
            || self.halted.is_some()
            || self.backlog.is_paused()
            || self.runtime.broker.condition().is_unavailable
            || std::mem::replace(&mut self.load.asking, true)
        {
            return;
        }
        let (runtime, name, queue) = (self.runtime.clone(), self.row.name.clone(), ctx.address());
        actix_rt::spawn(async move {
            let counts = runtime.broker.counts(&name).await;
            queue.do_send(LoadSeen(counts.ok().map(|counts| counts.ready)));
        });
    }

    /// Gives the queue as many workers as it has to do, of which so many ready tasks are in the broker.
    fn autoscale(&mut self, in_broker: u64, ctx: &mut Context<Self>) {
        let Some(range) = self.retained.range() else { return };
        let here = (self.backlog.ready() + self.unchecked.len()) as u64;
        let waiting = if self.idle.is_empty() { in_broker.saturating_add(here) } else { 0 };
        let (before, busy) = (self.row.workers, self.runs.len());
        let load = Load { workers: before, busy, waiting };
        let workers = self.load.decides.size(range, load, steady());
        if workers != before {
            tracing::info!(queue = %self.row.name, before, workers, busy, waiting, "the queue has as many workers as it has to do");
            self.resize(workers, ctx);
            self.pump(now());
        }
    }
}

/// The number of tasks that are ready in the broker; `None`: it could not be asked.
#[derive(Message)]
#[rtype(result = "()")]
struct LoadSeen(Option<u64>);

impl Handler<LoadSeen> for Queue {
    type Result = ();

    fn handle(&mut self, LoadSeen(ready): LoadSeen, ctx: &mut Self::Context) {
        self.load.asking = false;
        if let Some(ready) = ready
            && self.closing.is_none()
            && self.halted.is_none()
            && !self.backlog.is_paused()
        {
            self.autoscale(ready, ctx);
        }
    }
}
