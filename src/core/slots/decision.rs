//! The decision at a free slot.

use std::cmp::Ordering;

use super::Slots;
use super::contenders::LineTotals;
use super::fault::Fault;
use super::line::{Contest, Head};
use super::queue::PooledQueue;
use super::tenant::{Owed, Spent, allowance, turn};
use crate::core::Timestamp;

/// The line whose head gets the slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) queue: usize,
    pub(super) head: Head,
    /// What all tenants have had on average that could start something.
    pub(super) mean: Spent,
}

/// By what it is found out who is owed.
#[derive(Clone, Copy, Debug)]
struct Measure {
    /// What all have had on average that may start something now.
    mean: Spent,
    /// What the one has had that has had least.
    least: Spent,
    /// What a run of that one mostly costs.
    pace_of_least: Spent,
    /// The weights of all of them.
    weight: u128,
}

/// A head with what its promise says. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
struct SlotCandidate {
    choice: Choice,
    target: u64,
    waited: u64,
    /// Whether half of the promise is used.
    is_strained: bool,
    /// When the promise is over.
    deadline: u64,
}

impl SlotCandidate {
    fn new(number: usize, queue: &PooledQueue, head: Head, now: Timestamp) -> Self {
        let waited = now.as_micros().saturating_sub(head.since.as_micros());
        Self {
            choice: Choice { queue: number, head, mean: 0 },
            target: queue.target,
            waited,
            is_strained: waited >= queue.strained_after,
            deadline: head.since.as_micros().saturating_add(queue.target),
        }
    }

    /// How this candidate stands to another one: what is `Less` goes first.
    fn compare(&self, other: &Self) -> Ordering {
        let by_promise = if self.is_strained || other.is_strained {
            // By the part of the promise that is used, the larger part first.
            let used = |of: &Self, by: &Self| u128::from(of.waited) * u128::from(by.target);
            used(other, self).cmp(&used(self, other))
        } else {
            self.deadline.cmp(&other.deadline)
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
        if self.has(Fault::ExceedsSlots) {
            taken = taken.saturating_sub(1);
        }
        if taken >= self.rules.slots + spare {
            return None;
        }
        self.charge_overruns(now);
        self.look_at_room(now);
        if self.tenants.contenders.lines() == 0 {
            self.forgive();
            return None;
        }
        let mut open_to = self.promises.open_to(self.rules.slots, now);
        if self.has(Fault::ForgetsReserve) {
            open_to = self.promises.len();
        }
        let mut able = std::mem::take(&mut self.able);
        self.find_able(&mut able, open_to);
        let choice = self.choose_of(&able, open_to, now);
        self.able = able;
        choice
    }

    /// A slot is free and nothing contends for it. If no tenant leaves it to others either, nobody owes anything any more.
    fn forgive(&mut self) {
        let is_crowding = |tenant: &usize| self.tenants.accounts[*tenant].is_crowding;
        if !self.large.iter().any(is_crowding) && !self.has(Fault::HoardsCredit) {
            self.tenants.forgive();
        }
    }

    /// The queues that may start something. If any is below its guarantee, only those that are.
    fn find_able(&mut self, able: &mut Vec<usize>, open_to: usize) {
        able.clear();
        let queues = &mut self.queues;
        self.contested.retain(|number| {
            let queue = &mut queues[*number];
            queue.is_contested = queue.contending > 0;
            if queue.may_start(false) {
                able.push(*number);
            }
            queue.is_contested
        });
        if !self.any_guarantee {
            return;
        }
        let is_first = |number: &usize| self.queues[*number].may_start(true);
        let contends = |number: &usize| self.queues[*number].contests_to(open_to).next().is_some();
        if able.iter().any(|number| is_first(number) && contends(number)) {
            able.retain(is_first);
        }
    }

    /// What starts next in one of these queues.
    fn choose_of(&mut self, able: &[usize], open_to: usize, now: Timestamp) -> Option<Choice> {
        let totals = self.totals(able, open_to);
        let (least, who) = totals.least?;
        if totals.lines == self.tenants.contenders.lines() {
            self.tenants.lift_floor(who);
        }
        let mean = totals.mean();
        let pace_of_least = self.tenants.accounts[who].pace;
        let measure = Measure { mean, least, pace_of_least, weight: totals.weight };
        self.note_owed(&measure, now);
        loop {
            let best = self.best(able, open_to, now)?;
            let tenant = best.head.tenant;
            let account = &self.tenants.accounts[tenant];
            // The one that has had least passes both questions, so this ends.
            if account.spent() > mean && !account.is_new {
                self.set_owed(tenant, Owed::No, now);
            } else if !self.is_within_reach(tenant, &measure) {
                self.set_owed(tenant, Owed::Ahead, now);
            } else {
                return Some(Choice { mean, ..best });
            }
        }
    }

    /// The lines that may start something, which are of these queues, taken together.
    fn totals(&mut self, able: &[usize], open_to: usize) -> LineTotals {
        let lines = able.iter().map(|number| self.queues[*number].lines_to(open_to)).sum::<usize>();
        if lines == self.tenants.contenders.lines() {
            return self.tenants.all_contenders();
        }
        // What one tenant has had is the mean and the least, whichever of its lines may start.
        if self.tenants.contenders.tenants() == 1 {
            return self.tenants.all_contenders().of_one(lines);
        }
        let mut totals = LineTotals::default();
        if lines > 0 {
            self.tell_spent();
            able.iter().for_each(|number| self.queues[*number].add_up(open_to, &mut totals));
        }
        totals
    }

    /// Of all owed heads that may start, the one that its promise puts first.
    fn best(&mut self, able: &[usize], open_to: usize, now: Timestamp) -> Option<Choice> {
        able.iter().for_each(|number| self.queues[*number].look());
        let candidates = able.iter().flat_map(|number| {
            let queue = &self.queues[*number];
            let heads = queue.contests_to(open_to).filter_map(Contest::first);
            heads.map(move |head| SlotCandidate::new(*number, queue, head, now))
        });
        #[cfg(test)]
        if self.has(Fault::Wavers) {
            return super::tests::any(candidates).map(|candidate| candidate.choice);
        }
        let best = if self.has(Fault::ForgetsPromise) {
            candidates.max_by_key(|candidate| candidate.choice.head.arrival)
        } else if self.has(Fault::StarvesOldest) {
            candidates.max_by(SlotCandidate::compare)
        } else {
            candidates.min_by(SlotCandidate::compare)
        };
        best.map(|candidate| candidate.choice)
    }

    /// Finds out who is owed again. Whoever is not any more is found out at its start, or when it would start.
    fn note_owed(&mut self, measure: &Measure, now: Timestamp) {
        while let Some((key, tenant)) = self.tenants.first_ahead()
            && key <= measure.least
        {
            let account = &mut self.tenants.accounts[tenant];
            let is_owed = account.spent() <= measure.mean;
            if is_owed {
                account.owed_since = now;
            }
            self.set_owed(tenant, if is_owed { Owed::Yes } else { Owed::No }, now);
        }
        while let Some((spent, tenant)) = self.tenants.first_unowed()
            && spent <= measure.mean
        {
            if !self.is_within_reach(tenant, measure) {
                self.set_owed(tenant, Owed::Ahead, now);
                continue;
            }
            // It has had its turn, and by its share the next one is over when all others have had theirs. What comes until
            // then goes first, unless it is promised later.
            let next = turn(self.tenants.accounts[tenant].pace, measure.weight, self.rules.slots);
            let due = if self.has(Fault::ForgetsTurns) { now } else { now + next };
            self.tenants.accounts[tenant].owed_since = due;
            self.set_owed(tenant, Owed::Yes, now);
        }
    }

    /// Whether a tenant is not too far ahead of the one that has had least, by the longer runs of the two.
    fn is_within_reach(&self, tenant: usize, measure: &Measure) -> bool {
        let account = &self.tenants.accounts[tenant];
        let pace = account.pace.max(measure.pace_of_least);
        account.spent() <= measure.least.saturating_add(allowance(self.rules.slots, pace))
    }

    /// Notes whether a tenant is owed.
    fn set_owed(&mut self, tenant: usize, owed: Owed, now: Timestamp) {
        self.tenants.accounts[tenant].owed = owed;
        self.tell_owed(tenant);
        self.settle(tenant, now);
    }

    /// A tenant has started a run in this queue, when all that could start something had so much on average. If it has had
    /// more than that by now, and than the others in the queue, its turn is over: what waits of it does not count until it is
    /// owed again, and until then nobody may look at it. In a queue whose workers are all busy, tenants are behind those of
    /// other queues all the time, and take turns among themselves.
    pub(super) fn end_turn(&mut self, queue: usize, tenant: usize, mean: Spent, now: Timestamp) {
        let of = &self.queues[queue];
        if of.contending < 2 || !of.is_contending(tenant) || self.has(Fault::ForgetsTurns) {
            return;
        }
        let spent = self.tenants.accounts[tenant].spent();
        let is_over = spent > mean || of.is_full_beside_others(self.rules.slots);
        if is_over && self.is_above_mean(queue, spent) {
            self.set_owed(tenant, Owed::No, now);
        }
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
        let mut parked = std::mem::take(&mut self.tenants.accounts[tenant].parked);
        if is_crowding {
            for _ in 0..self.tenants.accounts[tenant].lines.len() {
                let Some(queue) = self.tenants.accounts[tenant].lines.first().copied() else { break };
                self.leave_contest(queue, tenant);
                parked.push(queue);
            }
            parked.sort_unstable();
        } else {
            parked.drain(..).for_each(|queue| self.enter(queue, tenant));
        }
        self.tenants.accounts[tenant].parked = parked; // the memory is used again
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
