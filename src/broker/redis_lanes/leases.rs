//! The starts that this process holds, and the lease under which it holds them. No other process may begin these tasks
//! while the lease lasts.
//!
//! The lease begins when this process asks for the renewal, and not when Redis grants it, so this process never
//! believes in the lease for longer than Redis does. When the lease is over, all starts are lost at once. The process
//! tells the bodies, and goes on under another name. A report about a lost start still counts if no other process has
//! begun the task. Only Redis knows this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::process;
use crate::broker::Delivery;
use crate::task::{Message, TaskId};

/// All starts that this process holds.
pub(super) struct HeldLeases {
    lease: Duration,
    state: Mutex<LeaseTable>,
}

struct LeaseTable {
    process: Arc<str>,
    sure_until: Option<Instant>,
    /// The starts by delivery tag.
    held: HashMap<u64, HeldStart>,
}

/// A start that this process holds.
struct HeldStart {
    id: TaskId,
    token: u64,
    /// The broker's delivery. It is `None` while the start is being settled.
    delivery: Option<Delivery>,
    message: Arc<Message>,
    /// Whether an earlier run of the task may have taken its process down.
    suspect: bool,
    lost: bool,
}

/// A start that is about to end.
pub(super) struct EndingStart {
    pub(super) token: u64,
    pub(super) delivery: Delivery,
    pub(super) message: Arc<Message>,
}

/// Whether the end of a start counts.
pub(super) enum Right {
    Sure,
    /// Only Redis knows whether the end counts.
    Ask(TaskId, u64),
    Gone,
}

/// How long before the end of the lease the bodies are told. This is the time that they have to stop.
fn margin(lease: Duration) -> Duration {
    lease / 5
}

impl HeldLeases {
    pub(super) fn new(lease: Duration) -> Self {
        let state = LeaseTable { process: process::name().into(), sure_until: None, held: HashMap::new() };
        Self { lease, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, LeaseTable> {
        self.state.lock()
    }

    /// The name under which this process holds what it starts now.
    pub(super) fn process(&self) -> Arc<str> {
        Arc::clone(&self.state().process)
    }

    /// Adds a start that was granted to `process`, which asked for it at `asked_at`. Fails if this process has another
    /// name by now.
    pub(super) fn add(
        &self,
        process: &str,
        asked_at: Instant,
        claim: EndingStart,
        suspect: bool,
    ) -> Result<(), EndingStart> {
        let mut state = self.state();
        if *state.process != *process {
            return Err(claim);
        }
        let EndingStart { token, delivery, message } = claim;
        let (id, tag) = (message.id.clone(), delivery.tag());
        let held = HeldStart { id, token, delivery: Some(delivery), message, suspect, lost: false };
        state.held.insert(tag, held);
        let sure_until = asked_at + self.lease;
        // This start must not hide that the lease of the starts before it is over already.
        if state.sure_until.is_none_or(|until| until > Instant::now()) {
            state.sure_until = state.sure_until.max(Some(sure_until));
        }
        Ok(())
    }

    /// Notes that the lease was renewed. `process` asked for the renewal at `asked_at`.
    pub(super) fn renewed(&self, process: &str, asked_at: Instant) {
        let mut state = self.state();
        if *state.process == *process && state.sure_until.is_some_and(|until| until > Instant::now()) {
            state.sure_until = Some(asked_at + self.lease);
        }
    }

    /// The time at which all starts are lost unless the lease is renewed, or `None` if there are no starts.
    pub(super) fn stops_at(&self) -> Option<Instant> {
        let state = self.state();
        Some(state.sure_until? - margin(self.lease))
    }

    /// Gives all starts up if the lease is about to end, or if Redis has given `process` up. Returns the tags of the
    /// starts.
    pub(super) fn lose(&self, given_up: Option<&str>) -> Vec<u64> {
        let mut state = self.state();
        let late = state.sure_until.is_some_and(|until| until - margin(self.lease) <= Instant::now());
        if !late && given_up.is_none_or(|process| *process != *state.process) {
            return Vec::new();
        }
        state.process = process::name().into();
        state.sure_until = None;
        let mut lost = Vec::new();
        for (tag, held) in &mut state.held {
            if !std::mem::replace(&mut held.lost, true) {
                lost.push(*tag);
            }
        }
        lost
    }

    /// Whether the end of this start counts.
    pub(super) fn right(&self, tag: u64) -> Right {
        let state = self.state();
        match state.held.get(&tag) {
            None => Right::Gone,
            Some(held) if !held.lost && state.sure_until.is_some_and(|until| until > Instant::now()) => {
                Right::Sure
            }
            Some(held) => Right::Ask(held.id.clone(), held.token),
        }
    }

    /// Notes that a body begins. If the body may take the process down, returns the task's id, the token, and the
    /// number of crashes that the task has if the process dies now.
    pub(super) fn begin(&self, tag: u64) -> Option<(TaskId, u64, u32)> {
        let state = self.state();
        let held = state.held.get(&tag)?;
        // The broker behind is not told of the start. Redis counts the possible crash already, and the broker would
        // count it a second time. The broker would also keep the message where it comes back late, and at the end of
        // its queue.
        held.suspect.then(|| (held.id.clone(), held.token, held.message.crashes.saturating_add(1)))
    }

    /// Takes out the delivery of a start that is about to end. The process holds the start until it has ended.
    pub(super) fn take(&self, tag: u64) -> Option<EndingStart> {
        let mut state = self.state();
        let held = state.held.get_mut(&tag)?;
        let delivery = held.delivery.take()?;
        Some(EndingStart { token: held.token, delivery, message: Arc::clone(&held.message) })
    }

    /// Forgets a start that has ended.
    pub(super) fn ended(&self, tag: u64) {
        let mut state = self.state();
        state.held.remove(&tag);
        if state.held.values().all(|held| held.lost) {
            state.sure_until = None;
        }
    }

    /// Whether this process holds this task.
    pub(super) fn has(&self, id: &TaskId) -> bool {
        self.state().held.values().any(|held| held.id == *id)
    }

    /// The number of starts that this process holds.
    pub(super) fn len(&self) -> usize {
        self.state().held.len()
    }
}
