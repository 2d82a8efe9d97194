//! The decision at a free slot.

use std::cmp::Ordering;
use std::time::Duration;

use super::Slots;
use super::cost::micros;
use super::fault::Fault;
use super::line::Head;
use super::queue::PooledQueue;
use super::tenant::{Owed, Spent, allowance};
use crate::core::Timestamp;

/// The line whose head gets the slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) queue: usize,
    pub(super) head: Head,
}

/// All lines that may start something now, taken together.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    weight: u128,
    weighted: u128,
    /// What the tenant has had that has had least, and who it is.
    least: Option<(Spent, usize)>,
}

/// A head with the promise of its queue.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    choice: Choice,
    target: Duration,
}

impl Candidate {
    /// Whether half of the promise is used.
    fn is_strained(&self, now: Timestamp) -> bool {
        now.since(self.choice.head.since).saturating_mul(2) >= self.target
    }

    /// How this candidate stands to another one: what is `Less` goes first.
    fn compare(&self, other: &Self, now: Timestamp) -> Ordering {
        let by_promise = if self.is_strained(now) || other.is_strained(now) {
            // By the part of the promise that is used, the larger part first.
            let used = |of: &Self, by: &Self| {
                u128::from(micros(now.since(of.choice.head.since))) * u128::from(micros(by.target))
            };
            used(other, self).cmp(&used(self, other))
        } else {
            let deadline = |of: &Self| of.choice.head.since + of.target;
            deadline(self).cmp(&deadline(other))
        };
        let by_rank = |of: &Self| (of.choice.head.priority, of.choice.head.arrival);
        by_promise.then_with(|| by_rank(self).cmp(&by_rank(other)))
    }
}

impl PooledQueue {
    /// Whether a task of it may start, as far as the queue is concerned. `guaranteed`: only queues below their guarantee may.
    fn may_start(&self, guaranteed: bool) -> bool {
        let is_able = self.is_open && !self.is_asleep && self.free > 0 && self.contending > 0;
        is_able && (!guaranteed || self.running < self.terms.min_workers)
    }
}

impl Slots {
    /// What starts next, if a slot is free. `spare` slots are counted as free beside those that are.
    pub(super) fn choose(&mut self, spare: usize, now: Timestamp) -> Option<Choice> {
        let mut taken = self.runs.len();
        if self.has(Fault::IdlesLastSlot) {
            taken += 1;
        }
        if taken >= self.rules.slots + spare {
            return None;
        }
        self.charge_overruns(now);
        self.look_at_room(now);
        let mut open_to = self.promises.open_to(self.rules.slots, now);
        if self.has(Fault::ForgetsReserve) {
            open_to = self.promises.len();
        }
        let has_guarantee = self.queues.iter().any(|queue| queue.may_start(true) && contends(queue, open_to));
        let field = self.field(has_guarantee, open_to);
        let (least, _) = field.least?;
        let mean = field.weighted / field.weight.max(1);
        self.note_owed(least, mean, now);
        loop {
            let best = self.best(has_guarantee, open_to, now)?;
            let tenant = best.head.tenant;
            // The one that has had least passes both questions, so this ends.
            if self.tenants.accounts[tenant].spent() > mean {
                self.set_owed(tenant, Owed::No, now);
            } else if !self.is_within_reach(tenant, least) {
                self.set_owed(tenant, Owed::Ahead, now);
            } else {
                return Some(best);
            }
        }
    }

    /// The lines of all queues that may start something, taken together.
    fn field(&self, guaranteed: bool, open_to: usize) -> Field {
        let mut field = Field::default();
        for queue in self.queues.iter().filter(|queue| queue.may_start(guaranteed)) {
            for contest in queue.contests.iter().take(open_to + 1).filter(|contest| !contest.is_empty()) {
                let (weight, weighted) = contest.sums();
                field.weight += weight;
                field.weighted = field.weighted.saturating_add(weighted);
                field.least = [field.least, contest.least()].into_iter().flatten().min();
            }
        }
        field
    }

    /// Of all owed heads that may start, the one that its promise puts first.
    fn best(&self, guaranteed: bool, open_to: usize, now: Timestamp) -> Option<Choice> {
        let queues = self.queues.iter().enumerate().filter(|(_, queue)| queue.may_start(guaranteed));
        let candidates = queues.flat_map(|(number, queue)| {
            let heads = queue.contests.iter().take(open_to + 1).filter_map(|contest| contest.first());
            let target = queue.terms.target;
            heads.map(move |head| Candidate { choice: Choice { queue: number, head }, target })
        });
        #[cfg(test)]
        if self.has(Fault::Wavers) {
            return super::tests::any(candidates).map(|candidate| candidate.choice);
        }
        let best = if self.has(Fault::ForgetsPromise) {
            candidates.max_by_key(|candidate| candidate.choice.head.arrival)
        } else if self.has(Fault::StarvesOldest) {
            candidates.max_by(|one, other| one.compare(other, now))
        } else {
            candidates.min_by(|one, other| one.compare(other, now))
        };
        best.map(|candidate| candidate.choice)
    }

    /// Finds out who is owed again: who has had no more than the mean of all that may start. `least` is what the one has had
    /// that has had least. Whoever has had more than the mean by now is found out when it would start.
    fn note_owed(&mut self, least: Spent, mean: Spent, now: Timestamp) {
        while let Some(&(key, tenant)) = self.tenants.ahead.first()
            && key <= least
        {
            let is_owed = self.tenants.accounts[tenant].spent() <= mean;
            self.set_owed(tenant, if is_owed { Owed::Yes } else { Owed::No }, now);
        }
        while let Some(&(spent, tenant)) = self.tenants.unowed.first()
            && spent <= mean
        {
            let is_within_reach = self.is_within_reach(tenant, least);
            self.set_owed(tenant, if is_within_reach { Owed::Yes } else { Owed::Ahead }, now);
        }
    }

    /// Whether a tenant is not too far ahead of the one that has had least.
    fn is_within_reach(&self, tenant: usize, least: Spent) -> bool {
        let account = &self.tenants.accounts[tenant];
        account.spent() <= least.saturating_add(allowance(self.rules.slots, account.pace))
    }

    /// Notes whether a tenant is owed. From when it is owed again, its waiting counts.
    fn set_owed(&mut self, tenant: usize, owed: Owed, now: Timestamp) {
        let account = &mut self.tenants.accounts[tenant];
        if owed == Owed::Yes {
            account.owed_since = now;
        }
        account.owed = owed;
        self.recharge(tenant);
        self.settle(tenant, now);
    }

    /// Finds out which tenants must not take what is left, because others are about.
    fn look_at_room(&mut self, now: Timestamp) {
        for at in 0..self.large.len() {
            let tenant = self.large[at];
            let others = self.tenants.others_until(tenant, now).is_some() && !self.has(Fault::ForgetsRoom);
            self.crowd(tenant, others);
            self.settle(tenant, now);
        }
    }

    /// Keeps a tenant from starting more, or lets it.
    fn crowd(&mut self, tenant: usize, is_crowding: bool) {
        if std::mem::replace(&mut self.tenants.accounts[tenant].is_crowding, is_crowding) == is_crowding {
            return;
        }
        for queue in 0..self.queues.len() {
            if is_crowding {
                self.leave_contest(queue, tenant);
            } else {
                self.enter(queue, tenant);
            }
        }
    }

    /// Notes whether a tenant has as many slots as one tenant may have beside others.
    pub(super) fn note_large(&mut self, tenant: usize) {
        let most = self.rules.slots - self.room();
        let account = &mut self.tenants.accounts[tenant];
        let is_large = most < self.rules.slots && account.running >= most;
        if std::mem::replace(&mut account.is_large, is_large) == is_large {
            return;
        }
        if is_large {
            self.large.push(tenant);
        } else {
            self.large.retain(|other| *other != tenant);
            self.crowd(tenant, false);
        }
    }

    /// The number of slots that one tenant leaves to others. It never leaves all of them.
    pub(super) fn room(&self) -> usize {
        let slots = self.rules.slots;
        let room = self.rules.room.unwrap_or(if slots < 3 { 0 } else { slots.div_ceil(5) });
        room.min(slots - 1)
    }
}

fn contends(queue: &PooledQueue, open_to: usize) -> bool {
    queue.contests.iter().take(open_to + 1).any(|contest| !contest.is_empty())
}
