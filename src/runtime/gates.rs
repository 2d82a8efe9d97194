//! The gates: what may keep a ready task from starting although a worker of its queue is free.
//!
//! A queue asks the gates before each start. What they hold back stays in the queue's backlog: it takes no slot, burns
//! no attempt, and holds up no other task. Invariants:
//! - While no gate is shut, a queue asks none of them: [`Runtime::has_gates`] is a few atomic loads.
//! - Nothing here waits. A gate that has to ask a server does so beforehand, and answers from what it knows.
//! - What a gate has counted for a start is given back when the [`Admission`] drops, however the run ends.

use std::collections::HashSet;
use std::time::Duration;

use super::Runtime;
use super::brakes::BrakeRound;
use crate::core::hold::{Hold, HoldReason};
use crate::task::Message;

/// A start that the gates let through. The run keeps it until its end.
#[derive(Debug, Default)]
pub(crate) struct Admission {}

/// One look through a backlog for what may start. Of the tasks that one gate holds back together the first goes first,
/// so a round asks that gate once.
pub(crate) struct Round<'a> {
    runtime: &'a Runtime,
    /// The names of the tasks whose rate limit has said no.
    rate_limited: HashSet<String>,
    /// `None`: there are no brakes.
    brakes: Option<BrakeRound>,
}

impl Runtime {
    /// Whether any gate may hold a task back.
    pub(crate) fn has_gates(&self) -> bool {
        self.levers.limits_any() || self.brakes.any()
    }

    /// What holds a run of this message back now. Looking takes nothing and counts nothing, so it changes no start. Each gate
    /// that [`Round::admit`] asks has a line here, in the order in which people are told of them.
    pub(crate) fn look(&self, message: &Message) -> Vec<Hold> {
        if !self.has_gates() {
            return Vec::new();
        }
        let gates = [self.brake_hold(message), self.rate_limit_hold(message)];
        gates.into_iter().flatten().collect()
    }

    fn brake_hold(&self, message: &Message) -> Option<Hold> {
        BrakeRound::begin(self)?.look(self, message).err()
    }

    fn rate_limit_hold(&self, message: &Message) -> Option<Hold> {
        let wait = self.levers.held_for(&message.task)?;
        Some(self.gates().rate_limit(message, Some(wait)))
    }

    /// Begins a look through a backlog.
    pub(crate) fn gates(&self) -> Round<'_> {
        Round { runtime: self, rate_limited: HashSet::new(), brakes: BrakeRound::begin(self) }
    }
}

impl Round<'_> {
    /// Lets a run of this message start.
    ///
    /// # Errors
    /// A gate holds the task back. `wait` is `None` too if another task of this round was told already how long to wait.
    pub(crate) fn admit(&mut self, message: &Message) -> Result<Admission, Hold> {
        let slow = match &mut self.brakes {
            Some(brakes) => brakes.look(self.runtime, message)?,
            None => Vec::new(),
        };
        let levers = &self.runtime.levers;
        if self.rate_limited.contains(&message.task) {
            return Err(self.rate_limit(message, None));
        }
        if let Err(wait) = levers.admit(&message.task) {
            self.rate_limited.insert(message.task.clone());
            return Err(self.rate_limit(message, Some(wait)));
        }
        if let Some(brakes) = &mut self.brakes {
            brakes.take(self.runtime, &slow)?;
        }
        Ok(Admission::default())
    }

    fn rate_limit(&self, message: &Message, wait: Option<Duration>) -> Hold {
        let limit = self.runtime.levers.rate_of(&message.task).unwrap_or_default();
        Hold { reason: HoldReason::RateLimit { limit }, wait }
    }
}
