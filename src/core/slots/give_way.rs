//! Runs that give way: a body that can go on later from where it is asks at its checkpoints whether something wants its slot
//! more.
//!
//! A run gives way to a task that would start on its slot at once, if that task's promise is tighter than the run's and a tenth
//! of it is used, or if the run's tenant has had more than the task's even without this run. A run keeps its slot for a while
//! in any case, so that it gets on, and one run at a time is told to give way: the next one is when that one's slot is free.

use std::time::Duration;

use super::Slots;
use crate::core::Timestamp;

/// A run keeps its slot for so long against a tighter promise.
const AGAINST_PROMISE: Duration = Duration::from_millis(100);
/// And for so long against a tenant that has had less.
const AGAINST_TENANT: Duration = Duration::from_secs(1);
/// A run that was told to give way and does not end in this time does not keep others from being told.
const PATIENCE: Duration = Duration::from_secs(1);
/// A promise wants a slot when one of so many parts of it is used.
const PARTS: u32 = 10;

impl Slots {
    /// Whether a run is to give its slot up at its next checkpoint. A run that was told so is told so again.
    pub fn gives_way(&mut self, run: u64, now: Timestamp) -> bool {
        let Some(asking) = self.runs.get(&run).copied() else { return false };
        if asking.gives_way {
            return true;
        }
        let held = now.since(asking.started_at);
        let is_another_told = self
            .giving_way
            .is_some_and(|(other, at)| self.runs.contains_key(&other) && now.since(at) < PATIENCE);
        if held < AGAINST_PROMISE || is_another_told || !self.is_wanted() {
            return false;
        }
        // What would start if this run was over?
        let has_worker = self.queues[asking.queue].epoch == asking.epoch;
        self.queues[asking.queue].free += usize::from(has_worker);
        self.promises.ended(asking.blocks);
        let choice = self.choose(1, now);
        self.promises.started(asking.blocks);
        self.queues[asking.queue].free -= usize::from(has_worker);
        let Some(choice) = choice else { return false };
        let (target, own) = (self.queues[choice.queue].terms.target, self.queues[asking.queue].terms.target);
        let is_tighter = target < own && now.since(choice.head.since) >= target / PARTS;
        let had = |tenant: usize| self.tenants.accounts[tenant].spent();
        // The choice may have charged the run for what it takes beyond its typical duration.
        let charge = self.runs.get(&run).map_or(0, |asking| asking.charge);
        let without_this = had(asking.tenant).saturating_sub(charge);
        let is_owed_more = choice.head.tenant != asking.tenant && without_this > had(choice.head.tenant);
        let wants = is_tighter || (is_owed_more && held >= AGAINST_TENANT);
        if !wants {
            return false;
        }
        self.giving_way = Some((run, now));
        if let Some(told) = self.runs.get_mut(&run) {
            told.gives_way = true;
        }
        true
    }
}
