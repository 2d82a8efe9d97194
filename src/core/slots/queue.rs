//! A queue of a pool, and the lines in it: which of them contend for a slot, and with what.
//!
//! Invariant: a line contends if and only if its queue is open and its tenant does not crowd others out. Its entry in the
//! contest says whether its tenant is owed, and, once contests were [told](Slots::tell_spent), what the tenant has had.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::contenders::LineTotals;
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
    /// Whether it is listed among the queues in which lines may contend.
    pub(super) is_contested: bool,
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
            is_contested: false,
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

    /// Finds the first heads of its contests, for the [contests](Self::contests_to) that are asked for afterwards.
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

    /// Whether all its workers are busy, and more slots of the pool are for others.
    pub(super) fn is_full_beside_others(&self, slots: usize) -> bool {
        self.free == 0 && self.running < slots
    }

    /// The number of its lines whose heads block so many promises at most.
    pub(super) fn lines_to(&self, open_to: usize) -> usize {
        self.contests_to(open_to).map(Contest::lines).sum()
    }

    /// Whether the line of a tenant contends.
    pub(super) fn is_contending(&self, tenant: usize) -> bool {
        self.lines.get(&tenant).is_some_and(|line| line.place.is_some())
    }

    /// Adds its lines up whose heads block so many promises at most. Their contests were told what tenants have had.
    pub(super) fn add_up(&mut self, open_to: usize, totals: &mut LineTotals) {
        for number in self.occupied.iter().copied().take_while(|number| *number <= open_to) {
            let contest = &mut self.contests[number];
            let (weight, weighted) = contest.sums();
            totals.lines += contest.lines();
            totals.weight += weight;
            totals.weighted = totals.weighted.saturating_add(weighted);
            totals.least = [totals.least, contest.least(number, &self.lines)].into_iter().flatten().min();
        }
    }

    /// Tells the contest of a tenant's line what the tenant has had.
    fn tell(&mut self, tenant: usize, spent: Spent) {
        let place = self.lines.get_mut(&tenant).and_then(|line| line.place.as_mut());
        let Some(place) = place else { return };
        let number = place.blocks;
        let contest = &mut self.contests[number];
        contest.tell(place, spent);
        contest.tidy(number, &self.lines);
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
        if !is_behind {
            return floor;
        }
        let (weight, weighted) = self.sums_of(queue);
        floor.min(weighted / weight.max(1))
    }

    /// Whether so much is more than what the tenants of a queue's lines that contend have had on average.
    pub(super) fn is_above_mean(&self, queue: usize, spent: Spent) -> bool {
        let (weight, weighted) = self.sums_of(queue);
        spent.saturating_mul(weight) > weighted
    }

    /// The weights of the tenants of a queue's lines that contend, and what they have had, each times its weight.
    pub(super) fn sums_of(&self, queue: usize) -> (u128, u128) {
        let of = &self.queues[queue];
        self.tenants.sums_of(queue, of.contending, |tenant| of.is_contending(tenant))
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
        let (of, account) = (&mut self.queues[queue], &self.tenants.accounts[tenant]);
        if !of.is_open {
            return;
        }
        if account.is_crowding {
            return self.tenants.accounts[tenant].park(queue);
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
            told: None,
            weight: account.weight,
            is_owed: account.owed == Owed::Yes,
        };
        line.place = Some(place);
        of.enter_contest(&place);
        if !std::mem::replace(&mut of.is_contested, true) {
            self.contested.push(queue);
        }
        self.tenants.line_enters(tenant, queue);
    }

    /// Has a line contend no more.
    pub(super) fn leave_contest(&mut self, queue: usize, tenant: usize) {
        let of = &mut self.queues[queue];
        let place = of.lines.get_mut(&tenant).and_then(|line| line.place.take());
        let Some(place) = place else { return };
        of.leave_contest(&place);
        self.tenants.line_leaves(tenant, queue);
    }

    /// Tells the contests of a tenant's lines whether it is owed.
    pub(super) fn tell_owed(&mut self, tenant: usize) {
        let account = &self.tenants.accounts[tenant];
        let (is_owed, owed_since) = (account.owed == Owed::Yes, Some(account.owed_since));
        for queue in &account.lines {
            let of = &mut self.queues[*queue];
            let place = of.lines.get_mut(&tenant).and_then(|line| line.place.as_mut());
            let Some(place) = place.filter(|place| place.is_owed != is_owed) else { continue };
            let contest = &mut of.contests[place.blocks];
            place.is_owed = is_owed;
            if is_owed {
                let since = place.head.since;
                place.head.since = WaitTimes { since, owed_since, ..WaitTimes::default() }.counts_from();
                contest.owe(place);
            } else {
                contest.disown(place);
            }
            let number = place.blocks;
            contest.tidy(number, &of.lines);
        }
    }

    /// Tells all contests what the tenants of their lines have had by now, as far as that has changed.
    pub(super) fn tell_spent(&mut self) {
        while let Some(tenant) = self.tenants.next_untold() {
            let account = &self.tenants.accounts[tenant];
            for queue in &account.lines {
                self.queues[*queue].tell(tenant, account.counted);
            }
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
