//! A queue of a pool, and the lines in it: which of them contend for a slot, and with what.
//!
//! Invariant: a line contends if and only if its queue is open and its tenant does not crowd others out. Its entry in the
//! contest says what its tenant has had by now, and whether the tenant is owed.

use std::collections::{BTreeMap, VecDeque};

use super::fault::Fault;
use super::line::{Contest, Head, Item, Line, LineKey, LinePlace};
use super::tenant::Owed;
use super::{QueueTerms, Slots};
use crate::core::Timestamp;
use crate::core::counted_wait::WaitTimes;

/// One queue of a pool.
#[derive(Clone, Debug)]
pub(super) struct PooledQueue {
    pub(super) terms: QueueTerms,
    /// The place of its target among the promises of the pool.
    pub(super) promise: usize,
    /// Whether it may start anything.
    pub(super) is_open: bool,
    /// It did not take a grant in time. It is left out until it is heard of.
    pub(super) is_asleep: bool,
    /// Counts the times that its actor has ended.
    pub(super) epoch: u64,
    /// The number of its workers that have no task, and for which there is no grant.
    pub(super) free: usize,
    /// The number of its grants and runs.
    pub(super) running: usize,
    /// The tasks that wait, by tenant.
    pub(super) lines: BTreeMap<usize, Line>,
    pub(super) waiting: usize,
    /// The lines that contend, by how many promises a run of their heads would block.
    pub(super) contests: Vec<Contest>,
    /// The number of lines that contend.
    pub(super) contending: usize,
    /// The grants that it has not taken.
    pub(super) granted: VecDeque<u64>,
    /// The tasks that a gate holds, by their tags.
    pub(super) held: BTreeMap<u64, (usize, LineKey, Item)>,
}

impl PooledQueue {
    pub(super) fn new(terms: QueueTerms) -> Self {
        Self {
            terms,
            promise: 0,
            is_open: false,
            is_asleep: false,
            epoch: 0,
            free: 0,
            running: 0,
            lines: BTreeMap::new(),
            waiting: 0,
            contests: Vec::new(),
            contending: 0,
            granted: VecDeque::new(),
            held: BTreeMap::new(),
        }
    }
}

impl Slots {
    /// Finds the place of each queue's promise anew, because there is a new one.
    pub(super) fn find_places(&mut self) {
        self.promises.forget_runs();
        for queue in 0..self.queues.len() {
            self.find_place(queue);
        }
        for run in self.runs.values_mut() {
            run.blocks = self.promises.blocked(self.queues[run.queue].promise, run.most);
            self.promises.started(run.blocks);
        }
    }

    pub(super) fn find_place(&mut self, queue: usize) {
        let tenants: Vec<usize> = self.queues[queue].lines.keys().copied().collect();
        tenants.iter().for_each(|tenant| self.leave_contest(queue, *tenant));
        let of = &mut self.queues[queue];
        of.promise = self.promises.place(of.terms.target);
        of.contests.resize_with(of.promise + 1, Contest::default);
        tenants.iter().for_each(|tenant| self.enter(queue, *tenant));
    }

    /// Puts a task into its line.
    pub(super) fn line_up(&mut self, queue: usize, tenant: usize, key: LineKey, item: Item, now: Timestamp) {
        if self.tenants.accounts[tenant].waiting == 0 && !self.has(Fault::HoardsCredit) {
            self.tenants.welcome(tenant);
        }
        self.tenants.accounts[tenant].waiting += 1;
        let of = &mut self.queues[queue];
        of.waiting += 1;
        let line = of.lines.entry(tenant).or_default();
        line.items.insert(key, item);
        if line.items.first_key_value().is_some_and(|(first, _)| *first == key) {
            self.leave_contest(queue, tenant);
            self.enter(queue, tenant);
            self.settle(tenant, now);
        }
    }

    /// Takes a task out of its line. What follows may be its new head.
    pub(super) fn take_out(&mut self, queue: usize, tenant: usize, key: LineKey) -> Option<Item> {
        self.leave_contest(queue, tenant);
        let of = &mut self.queues[queue];
        let line = of.lines.get_mut(&tenant)?;
        let item = line.items.remove(&key)?;
        if line.items.is_empty() {
            of.lines.remove(&tenant);
        }
        of.waiting -= 1;
        self.tenants.accounts[tenant].waiting -= 1;
        self.enter(queue, tenant);
        Some(item)
    }

    /// Has a line contend, if it may.
    pub(super) fn enter(&mut self, queue: usize, tenant: usize) {
        let reverses = self.has(Fault::ReversesLine);
        let (of, account) = (&mut self.queues[queue], &mut self.tenants.accounts[tenant]);
        if !of.is_open || account.is_crowding {
            return;
        }
        let Some(line) = of.lines.get_mut(&tenant).filter(|line| line.place.is_none()) else { return };
        let head = if reverses { line.items.last_key_value() } else { line.items.first_key_value() };
        let Some((&(priority, arrival), item)) = head else { return };
        let most = self.costs.most(item.task, &account.costs, of.terms.typical);
        let owed_since = Some(account.owed_since);
        let since = WaitTimes { since: item.since, owed_since, ..WaitTimes::default() }.counts_from();
        let place = LinePlace {
            blocks: self.promises.blocked(of.promise, most),
            head: Head { since, priority, arrival, tenant },
            spent: account.spent(),
            weight: account.weight,
            is_owed: account.owed == Owed::Yes,
        };
        of.contests[place.blocks].enter(&place);
        line.place = Some(place);
        of.contending += 1;
        account.lines.push(queue);
    }

    /// Has a line contend no more.
    pub(super) fn leave_contest(&mut self, queue: usize, tenant: usize) {
        let of = &mut self.queues[queue];
        let place = of.lines.get_mut(&tenant).and_then(|line| line.place.take());
        if let Some(place) = place {
            of.contests[place.blocks].leave(&place);
            of.contending -= 1;
            self.tenants.accounts[tenant].lines.retain(|line| *line != queue);
        }
    }

    /// Tells the contests of a tenant's lines what it has had by now, and whether it is owed.
    pub(super) fn recharge(&mut self, tenant: usize) {
        let account = &self.tenants.accounts[tenant];
        let (spent, is_owed, owed_since) = (account.spent(), account.owed == Owed::Yes, account.owed_since);
        for queue in &account.lines {
            let of = &mut self.queues[*queue];
            let Some(line) = of.lines.get_mut(&tenant) else { continue };
            let Some(place) = &mut line.place else { continue };
            if place.spent == spent && place.is_owed == is_owed {
                continue;
            }
            of.contests[place.blocks].leave(place);
            if is_owed && !place.is_owed {
                let (since, owed_since) = (place.head.since, Some(owed_since));
                place.head.since = WaitTimes { since, owed_since, ..WaitTimes::default() }.counts_from();
            }
            (place.spent, place.is_owed) = (spent, is_owed);
            of.contests[place.blocks].enter(place);
        }
    }

    /// Notes what a tenant has come to, and forgets those that have neither work nor debt.
    pub(super) fn settle(&mut self, tenant: usize, now: Timestamp) {
        self.tenants.place(tenant, self.rules.slots, now);
        if !self.has(Fault::HoardsCredit) {
            self.tenants.forget();
        }
    }
}
