//! The gates: what may keep a ready task from starting although a worker of its queue is free.
//!
//! A queue asks the gates before each start. What they hold back stays with the queue: it takes no slot, burns no attempt, and
//! holds up no other task. Invariants:
//! - While no gate is shut, a queue asks none of them: [`Runtime::has_gates`] is a few atomic loads.
//! - Nothing here waits. A gate that has to ask a server does so beforehand, and answers from what it knows.
//! - What a gate has counted for a start is given back when the [`GateAdmission`] drops, however the run ends.
//! - Of the tasks that one gate holds back together ([`HoldReason::group`]) the first goes first of the tenant whose turn it is. So
//!   a gate that counts is not asked about a task as long as others of its group are held.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Runtime;
use super::brakes::BrakeRound;
use super::start_limits::LimitedRun;
use crate::core::Timestamp;
use crate::core::hold::{Hold, HoldReason};
use crate::core::start_limit::RunEnd;
use crate::core::token_bucket::RateLimit;
use crate::task::Message;
use crate::task::clock::now;

/// A start that the gates let through. The run keeps it until its end.
#[derive(Default)]
pub(crate) struct GateAdmission {
    limited: Option<Box<LimitedRun>>,
    held: Option<HeldFor>,
}

/// For how long gates kept a task from starting, before they let it through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldFor {
    /// Since when it was held.
    pub(crate) since: Timestamp,
    /// Until when it was held: from then on it waited for a worker.
    pub(crate) until: Timestamp,
}

impl GateAdmission {
    /// The same, of a task that was held before.
    pub(crate) fn after(self, held: Option<HeldFor>) -> Self {
        Self { held, ..self }
    }

    /// For how long the task was held, if it was.
    pub(crate) fn held(&self) -> Option<HeldFor> {
        self.held
    }

    /// The run begins: from here on its start counts, whatever becomes of it.
    pub(crate) fn begin(&mut self) {
        self.end(RunEnd::Other);
    }

    /// What the run came to. It counts when this drops.
    pub(crate) fn end(&mut self, end: RunEnd) {
        if let Some(limited) = &mut self.limited {
            limited.end = end;
        }
    }
}

/// Tells a queue that the first task of a group may start, because of what happened elsewhere: a run has ended, or a store has
/// answered.
pub(crate) struct Bell {
    rung: Mutex<Vec<(u64, Timestamp)>>,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Bell {
    /// `ring` is called when there is something to [take](Self::take). It must not block.
    pub(crate) fn new(ring: impl Fn() + Send + Sync + 'static) -> Self {
        Self { rung: Mutex::default(), ring: Box::new(ring) }
    }

    /// The first task of this group may start.
    pub(super) fn ring(&self, group: u64) {
        let is_first = {
            let mut rung = self.rung.lock();
            rung.push((group, now()));
            rung.len() == 1
        };
        if is_first {
            (self.ring)();
        }
    }

    /// Takes the groups for which it was rung since it was asked last, each with the time.
    pub(crate) fn take(&self) -> Vec<(u64, Timestamp)> {
        std::mem::take(&mut *self.rung.lock())
    }
}

/// Knows which groups of tasks a queue holds back.
pub(crate) trait ShutGroups {
    /// Whether it holds back any.
    fn any(&self) -> bool;

    /// Whether tasks of this group are held, and their first one is not about to be asked.
    fn is_shut(&self, group: u64) -> bool;
}

/// One look at what may start in a queue.
pub(crate) struct GateRound<'a> {
    runtime: &'a Runtime,
    pub(super) bell: &'a Arc<Bell>,
    shut: &'a dyn ShutGroups,
    /// `None`: there are no brakes.
    brakes: Option<BrakeRound>,
}

impl Runtime {
    /// Whether any gate may hold a task back.
    pub(crate) fn has_gates(&self) -> bool {
        self.levers.limits_any() || self.has_limits || self.brakes.any()
    }

    /// What holds a run of this message back now. Looking takes nothing and counts nothing, so it changes no start. Each gate
    /// that [`GateRound::admit`] asks has a part here, in the order in which people are told of them.
    pub(crate) fn look(&self, message: &Message) -> Vec<Hold> {
        if !self.has_gates() {
            return Vec::new();
        }
        let brake = BrakeRound::begin(self).and_then(|brakes| brakes.look(self, message).err());
        let limits = self.limits.look(message, self.params_of(message));
        let wait = self.levers.held_for(&message.task);
        let rate = wait.map(|wait| Hold { reason: self.rate_reason(message), wait: Some(wait) });
        brake.into_iter().chain(limits).chain(rate).collect()
    }

    /// Looks at what may start in a queue, which holds back `shut` already, and is told by `bell` when there is more.
    pub(crate) fn gates<'a>(&'a self, bell: &'a Arc<Bell>, shut: &'a dyn ShutGroups) -> GateRound<'a> {
        GateRound { runtime: self, bell, shut, brakes: BrakeRound::begin(self) }
    }

    /// Has another rate limit hold for a task from now on: the one that it states for each of its keys or for all processes, if
    /// it states such a one, and else that of this process.
    pub(crate) fn limit_rate(&self, task: &str, text: &str, per_second: Option<f64>) {
        let rate = per_second.and_then(|_| RateLimit::parse(text).ok().flatten());
        if !self.limits.set_rate(task, rate) {
            self.levers.limit_rate(task, text, per_second);
        }
    }

    fn rate_reason(&self, message: &Message) -> HoldReason {
        HoldReason::RateLimit { limit: self.levers.rate_of(&message.task).unwrap_or_default() }
    }

    /// The names of the parameters of the message's task; empty if they are not known here.
    fn params_of(&self, message: &Message) -> &'static [&'static str] {
        self.dispatcher.registry.get(&message.task).map_or(&[] as &[&str], |task| task.params)
    }
}

impl GateRound<'_> {
    /// Lets a run of this message start.
    ///
    /// # Errors
    /// A gate holds the task back. `wait` is `None` too if others that wait for the same were told already how long to wait.
    pub(crate) fn admit(&self, message: &Message) -> Result<GateAdmission, Hold> {
        // Gates that count nothing come first: whatever those behind them say, there is nothing to give back.
        // Those that count are asked together, so that one which refuses costs the others nothing.
        let slow = self.look_at_brakes(message)?;
        let limits = &self.runtime.limits;
        let limited = limits.admit(message, self.runtime.params_of(message), self, || {
            self.rate_of_task(message)?;
            self.brakes.as_ref().map_or(Ok(()), |brakes| brakes.take(self.runtime, &slow))
        })?;
        Ok(GateAdmission { limited: limited.map(Box::new), held: None })
    }

    /// Whether tasks are held already for this reason, so that this one has to wait behind them.
    pub(super) fn is_behind(&self, message: &Message, reason: impl FnOnce() -> HoldReason) -> bool {
        self.shut.any() && self.shut.is_shut(reason().group(&message.task))
    }

    /// The brakes whose tokens a start of this message takes.
    fn look_at_brakes(&self, message: &Message) -> Result<Vec<usize>, Hold> {
        let Some(brakes) = &self.brakes else { return Ok(Vec::new()) };
        let slow = brakes.look(self.runtime, message)?;
        match slow.iter().find(|index| self.is_behind(message, || brakes.hold(**index).reason)) {
            Some(index) => Err(brakes.hold(*index)),
            None => Ok(slow),
        }
    }

    /// Celery's rate limit of the task, in this process.
    fn rate_of_task(&self, message: &Message) -> Result<(), Hold> {
        let levers = &self.runtime.levers;
        let refused = |wait| Hold { reason: self.runtime.rate_reason(message), wait };
        if levers.limits_any() && self.is_behind(message, || self.runtime.rate_reason(message)) {
            return Err(refused(None));
        }
        levers.admit(&message.task).map_err(|wait| refused(Some(wait)))
    }
}
