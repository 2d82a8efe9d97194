//! A queue of a pool, and the lines in it: which of them contend for a slot, and with what.
//!
//! Invariant: a line contends if and only if its queue is open and its tenant does not crowd others out. Its entry in the
//! contest says what its tenant has had by now, and whether the tenant is owed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::cost::micros;
use super::fault::Fault;
use super::line::{Contest, Head, Item, Line, LineKey, LinePlace, Lines};
use super::line_items::LineItems;
use super::tenant::{Owed, Spent};
use super::{QueueTerms, Slots};
use crate::core::Timestamp;
use crate::core::counted_wait::WaitTimes;

/// The most lines that are gone and leave their memory to lines to come.
const MOST_SPARE: usize = 64;

/// One queue of a pool.
#[derive(Clone, Debug)]
pub(super) struct PooledQueue {
    pub(super) terms: QueueTerms,
    /// Its target in whole microseconds.
    pub(super) target: u64,
    /// A head that has waited for so many microseconds has used half of the target.
    pub(super) strained_after: u64,
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
    pub(super) lines: Lines,
    /// The memory of lines that are gone, for lines to come.
    spare: Vec<LineItems>,
    pub(super) waiting: usize,
    /// The lines that contend, by how many promises a run of their heads would block.
    pub(super) contests: Vec<Contest>,
    /// The numbers of the contests in which lines are.
    occupied: Vec<usize>,
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
            target: micros(terms.target),
            strained_after: half(terms.target),
            promise: 0,
            is_open: false,
            is_asleep: false,
            epoch: 0,
            free: 0,
            running: 0,
            lines: Lines::default(),
            spare: Vec::new(),
            waiting: 0,
            contests: Vec::new(),
            occupied: Vec::new(),
            contending: 0,
            granted: VecDeque::new(),
            held: BTreeMap::new(),
        }
    }

    /// The tenants of its lines, in the order of their numbers.
    pub(super) fn tenants(&self) -> Vec<usize> {
        let mut tenants: Vec<usize> = self.lines.keys().copied().collect();
        tenants.sort_unstable();
        tenants
    }

    /// Finds the first entries of its contests, for the [contests](Self::contests_to) that are asked for afterwards.
    pub(super) fn look(&mut self) {
        for number in &self.occupied {
            self.contests[*number].look(*number, &self.lines);
        }
    }

    /// The contests in which lines are whose heads block so many promises at most.
    pub(super) fn contests_to(&self, open_to: usize) -> impl Iterator<Item = &Contest> {
        let numbers = self.occupied.iter().take_while(move |number| **number <= open_to);
        numbers.map(move |number| &self.contests[*number])
    }

    /// The weights of the tenants of its lines that contend, and what they have had, each times its weight.
    fn sums(&self) -> (u128, u128) {
        let sums = self.occupied.iter().map(|number| self.contests[*number].sums());
        sums.fold((0_u128, 0_u128), |(weight, weighted), of| (weight + of.0, weighted.saturating_add(of.1)))
    }

    /// What the tenants of its lines that contend have had on average.
    fn mean(&self) -> Spent {
        let (weight, weighted) = self.sums();
        weighted / weight.max(1)
    }

    /// Whether it is more than that.
    pub(super) fn is_above_mean(&self, spent: Spent) -> bool {
        let (weight, weighted) = self.sums();
        spent.saturating_mul(weight) > weighted
    }

    /// Whether all its workers are busy, and more slots of the pool are for others.
    pub(super) fn is_full_beside_others(&self, slots: usize) -> bool {
        self.free == 0 && self.running < slots
    }

    fn enter_contest(&mut self, place: &LinePlace) {
        let contest = &mut self.contests[place.blocks];
        if contest.is_empty()
            && let Err(at) = self.occupied.binary_search(&place.blocks)
        {
            self.occupied.insert(at, place.blocks);
        }
        contest.enter(place);
        contest.tidy(place.blocks, &self.lines);
        self.contending += 1;
    }

    fn leave_contest(&mut self, place: &LinePlace) {
        let contest = &mut self.contests[place.blocks];
        contest.leave(place);
        if contest.is_empty()
            && let Ok(at) = self.occupied.binary_search(&place.blocks)
        {
            self.occupied.remove(at);
        }
        self.contending -= 1;
    }

    /// Takes a task out of its line, which contends nowhere. A line without tasks is none.
    fn remove_item(&mut self, tenant: usize, key: LineKey) -> Option<Item> {
        let line = self.lines.get_mut(&tenant)?;
        let item = line.items.remove(key)?;
        if line.items.is_empty()
            && let Some(line) = self.lines.remove(&tenant)
            && self.spare.len() < MOST_SPARE
            && line.items.is_small()
        {
            self.spare.push(line.items);
        }
        self.waiting -= 1;
        Some(item)
    }
}

/// After how many whole microseconds half of a duration is over.
fn half(target: Duration) -> u64 {
    u64::try_from(target.as_nanos().div_ceil(2_000)).unwrap_or(u64::MAX)
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
        let tenants = self.queues[queue].tenants();
        tenants.iter().for_each(|tenant| self.leave_contest(queue, *tenant));
        let of = &mut self.queues[queue];
        of.promise = self.promises.place(of.terms.target);
        of.contests.resize_with(of.promise + 1, Contest::default);
        tenants.iter().for_each(|tenant| self.enter(queue, *tenant));
    }

    /// Puts a task into its line.
    pub(super) fn line_up(&mut self, queue: usize, tenant: usize, key: LineKey, item: Item, now: Timestamp) {
        if self.tenants.accounts[tenant].waiting == 0 && !self.has(Fault::HoardsCredit) {
            self.tenants.welcome(tenant, self.level(queue));
        }
        self.tenants.accounts[tenant].waiting += 1;
        let of = &mut self.queues[queue];
        of.waiting += 1;
        let line = of
            .lines
            .entry(tenant)
            .or_insert_with(|| Line { items: of.spare.pop().unwrap_or_default(), place: None });
        if line.items.insert(key, item) {
            self.leave_contest(queue, tenant);
            self.enter(queue, tenant);
            self.settle(tenant, now);
        }
    }

    /// Where a tenant begins that comes to a queue without a debt: where all together have come to. If the workers of the
    /// queue are all busy, its tenants cannot use their shares, and who comes begins among them.
    fn level(&self, queue: usize) -> Spent {
        let (floor, of) = (self.tenants.floor, &self.queues[queue]);
        let is_behind = of.contending > 0 && of.is_full_beside_others(self.rules.slots);
        if is_behind { floor.min(of.mean()) } else { floor }
    }

    /// Takes a task out of its line. What follows may be its new head.
    pub(super) fn take_out(&mut self, queue: usize, tenant: usize, key: LineKey) -> Option<Item> {
        let item = self.take_off(queue, tenant, key)?;
        self.enter(queue, tenant);
        Some(item)
    }

    /// As [`take_out`](Self::take_out), but the line contends no more until it [enters](Self::enter) again.
    pub(super) fn take_off(&mut self, queue: usize, tenant: usize, key: LineKey) -> Option<Item> {
        self.leave_contest(queue, tenant);
        let item = self.queues[queue].remove_item(tenant, key)?;
        self.tenants.accounts[tenant].waiting -= 1;
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
        let head = if reverses { line.items.last() } else { line.items.first() };
        let Some(((priority, arrival), item)) = head else { return };
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
        line.place = Some(place);
        of.enter_contest(&place);
        self.contending += 1;
        account.lines.push(queue);
    }

    /// Has a line contend no more.
    pub(super) fn leave_contest(&mut self, queue: usize, tenant: usize) {
        let of = &mut self.queues[queue];
        let place = of.lines.get_mut(&tenant).and_then(|line| line.place.take());
        let Some(place) = place else { return };
        of.leave_contest(&place);
        self.contending -= 1;
        let lines = &mut self.tenants.accounts[tenant].lines;
        if let Some(at) = lines.iter().position(|line| *line == queue) {
            lines.swap_remove(at);
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
            let before = *place;
            if is_owed && !place.is_owed {
                let (since, owed_since) = (place.head.since, Some(owed_since));
                place.head.since = WaitTimes { since, owed_since, ..WaitTimes::default() }.counts_from();
            }
            (place.spent, place.is_owed) = (spent, is_owed);
            let contest = &mut of.contests[before.blocks];
            contest.change(&before, place);
            contest.tidy(before.blocks, &of.lines);
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
