//! What this process holds: the starts of which no other process may begin the task, and until when that is sure.
//!
//! It is sure for a lease from when it was last asked for, not from when that was granted. When it is not sure any more, all
//! of it is lost at once: the bodies are told, and the process goes on under another name. What it says of a lost start still
//! counts if nobody else has begun that task; Redis knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::process;
use crate::broker::Delivery;
use crate::task::{Message, TaskId};

/// All that this process holds.
pub(super) struct Claims {
    lease: Duration,
    state: Mutex<State>,
}

struct State {
    process: Arc<str>,
    sure_until: Option<Instant>,
    /// By tag.
    held: HashMap<u64, Held>,
}

/// A start that this process holds.
struct Held {
    id: TaskId,
    token: u64,
    /// The broker's delivery; `None`: it is being settled.
    delivery: Option<Delivery>,
    message: Arc<Message>,
    /// A run of it may have taken its process down before.
    suspect: bool,
    lost: bool,
}

/// A start that is to end.
pub(super) struct Claim {
    pub(super) token: u64,
    pub(super) delivery: Delivery,
    pub(super) message: Arc<Message>,
}

/// Whether the end of a start counts.
pub(super) enum Right {
    Sure,
    /// Redis knows.
    Ask(TaskId, u64),
    Gone,
}

/// How long before the end of the lease bodies are told: so long they have to stop.
fn margin(lease: Duration) -> Duration {
    lease / 5
}

impl Claims {
    pub(super) fn new(lease: Duration) -> Self {
        let state = State { process: process::name().into(), sure_until: None, held: HashMap::new() };
        Self { lease, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name under which this process holds what it starts now.
    pub(super) fn process(&self) -> Arc<str> {
        Arc::clone(&self.state().process)
    }

    /// A start was granted to `process`, which had asked at that time. `Err`: this one has another name by now.
    pub(super) fn add(
        &self,
        process: &str,
        asked_at: Instant,
        claim: Claim,
        suspect: bool,
    ) -> Result<(), Claim> {
        let mut state = self.state();
        if *state.process != *process {
            return Err(claim);
        }
        let Claim { token, delivery, message } = claim;
        let (id, tag) = (message.id.clone(), delivery.tag());
        let held = Held { id, token, delivery: Some(delivery), message, suspect, lost: false };
        state.held.insert(tag, held);
        let sure_until = asked_at + self.lease;
        // Should the old ones be past their time already, that is found out in time, and not put off by this.
        if state.sure_until.is_none_or(|until| until > Instant::now()) {
            state.sure_until = state.sure_until.max(Some(sure_until));
        }
        Ok(())
    }

    /// The lease was renewed, which was asked for at that time.
    pub(super) fn renewed(&self, process: &str, asked_at: Instant) {
        let mut state = self.state();
        if *state.process == *process && state.sure_until.is_some_and(|until| until > Instant::now()) {
            state.sure_until = Some(asked_at + self.lease);
        }
    }

    /// When all is lost unless the lease is renewed; `None`: nothing is held.
    pub(super) fn stops_at(&self) -> Option<Instant> {
        let state = self.state();
        Some(state.sure_until? - margin(self.lease))
    }

    /// If it is not sure any more that what is held is, or if `process` was given up: all of it is lost. Its tags.
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

    /// A body begins. Of one that may take the process down: its id, token, and the crashes that there are then.
    pub(super) fn begin(&self, tag: u64) -> Option<(TaskId, u64, u32)> {
        let state = self.state();
        let held = state.held.get(&tag)?;
        // The broker behind is not told. It would count the crash that this may be, which Redis does, and would keep the message
        // where it comes back from late, and to the end of its queue.
        held.suspect.then(|| (held.id.clone(), held.token, held.message.crashes + 1))
    }

    /// It is to end. It is held until it has.
    pub(super) fn take(&self, tag: u64) -> Option<Claim> {
        let mut state = self.state();
        let held = state.held.get_mut(&tag)?;
        let delivery = held.delivery.take()?;
        Some(Claim { token: held.token, delivery, message: Arc::clone(&held.message) })
    }

    /// It has ended.
    pub(super) fn ended(&self, tag: u64) {
        let mut state = self.state();
        state.held.remove(&tag);
        if state.held.values().all(|held| held.lost) {
            state.sure_until = None;
        }
    }

    /// Whether this process has this task.
    pub(super) fn has(&self, id: &TaskId) -> bool {
        self.state().held.values().any(|held| held.id == *id)
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.state().held.len()
    }
}
