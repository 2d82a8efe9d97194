//! Which waiting task gets the next free slot of a pool.
//!
//! A pool has a number of slots, and its queues share them. A queue brings the tasks that wait in it, and how many of its
//! workers are free; the pool answers with grants: this task gets a slot. Tasks of one tenant in one queue stand in one line.
//! At each free slot the pool looks at the heads of all lines, and decides in this order:
//!
//! 0. *Startable*: the queue may start something and has a free worker; the run would take no slot of the reserve, which is
//!    for promises tighter than its own, nor of the room that one tenant leaves to others.
//! 1. *Guarantees and shares*: queues below their guaranteed number of workers come first. Among the tenants that are left,
//!    those come first that are owed: that have had no more than the mean of all that may start, by the measured time of their
//!    runs and their weights. There always is one, so no slot idles for the sake of fairness. A tenant that always has work is
//!    owed one run after the other, and each waits from when it is due by the tenant's share. So who asks for less goes first.
//! 2. *Promise*: if a head has waited for half of its queue's target, the one goes first that has used the largest part of its
//!    target; else the one whose target is over first. So while there is time urgent tasks are quick, and when there is none all
//!    promises are equally late.
//!
//! A run is charged at its start what runs of its task mostly take, more while it goes on for longer, and what it took when it
//! is over. Invariants:
//! - No more runs than slots are granted, whatever the queues do; each grant ends in exactly one of
//!   [`finish`](Slots::finish), [`cancel`](Slots::cancel) and [`hold`](Slots::hold), or is taken back untaken.
//! - The same calls with the same times give the same grants.
//! - A grant costs O(log n) on average, and a little for each queue in which tasks wait for a slot: no call searches
//!   all queues, tenants or tasks unless it says so, names are looked up once, when a task comes, and nothing is
//!   allocated where the numbers of queues, tenants and runs stay as they were. To charge a tenant costs the same
//!   however many lines it has, unless something that waits may not start; where many tenants wait in several queues
//!   each, it costs one addition for each line. The memory does not grow with the number of tenants that ever came.
//!
//! Where the parts come from: shares by start-time fair queueing (Goyal 1997), with the cost corrected at the end as in
//! Kubernetes' priority and fairness; who is owed, by the mean, as in Linux' EEVDF; the part of the promise that is used, as in
//! Kleinrock's accumulating priorities.

mod contenders;
mod cost;
mod decision;
mod fault;
mod forward;
mod give_way;
mod lazy_heap;
mod line;
mod line_items;
mod queue;
mod reason;
mod reserve;
mod run;
mod seen;
mod tenant;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use self::cost::TaskCosts;
use self::lazy_heap::LazyHeap;
use self::line::Item;
use self::queue::PooledQueue;
use self::reserve::Promises;
use self::run::SlotRun;
use self::seen::{PoolSeen, SeenArrival};
use self::tenant::{Owed, TenantAccounts};
use super::Timestamp;
use super::counted_wait::WaitTimes;
use super::number_map::NumberMap;

pub use self::forward::ForwardPool;
pub use self::reason::SlotHold;
pub use self::tenant::TenantWeight;

/// The rules of a pool: the number of its slots, and what it keeps free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRules {
    /// The number of slots that the pool has.
    pub slots: usize,
    /// The number of slots that are kept free for promises that are tighter than a long task's own. `None`: as many as such
    /// urgent tasks have needed in the last week.
    pub reserve: Option<usize>,
    /// The number of slots that one tenant leaves to others while any are about. `None`: a fifth, rounded up, of a pool of three
    /// slots or more.
    pub room: Option<usize>,
}

/// The terms of a queue in its pool: what it promises, and what it is guaranteed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueTerms {
    /// The longest time-to-start that the queue promises.
    pub target: Duration,
    /// The number of runs up to which the queue comes before others.
    pub min_workers: usize,
    /// The time that a run takes mostly, as somebody has stated it.
    pub typical: Option<Duration>,
}

/// A task that waits in a queue, as the queue brings it.
#[derive(Clone, Copy, Debug)]
pub struct WaitingTask<'a> {
    /// The tag by which the queue knows the task. Of two tasks of one queue it differs.
    pub tag: u64,
    /// The tenant on whose behalf the task runs.
    pub tenant: Option<&'a str>,
    /// The name of the task.
    pub task: &'a str,
    /// The priority. The higher one goes first in its line.
    pub priority: u8,
    /// From when the waiting of the task counts.
    pub since: Timestamp,
}

/// A slot for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotGrant {
    /// The number of the run. No other run of the pool ever has it.
    pub run: u64,
    /// The tag by which the queue knows the task.
    pub tag: u64,
    /// From when its waiting counted for the promise of its queue.
    pub counts_from: Timestamp,
}

/// The part of the waiting in a queue that counts for its promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountedWaits {
    /// From when the waiting counts of the task that has waited longest. `None`: none counts.
    pub oldest: Option<Timestamp>,
    /// Whether tasks wait whose tenants have had more than their share, so that their waiting does not count.
    pub is_any_over_share: bool,
}

/// A tenant of a pool as a screen shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TenantShare {
    /// The name of the tenant. It is empty for tasks without one.
    pub name: String,
    /// The number of its tasks that wait in the queues of this process.
    pub waiting: usize,
    /// The number of slots that it has.
    pub running: usize,
    /// Whether it has had no more than its share, so that its tasks go first.
    pub is_owed: bool,
}

/// The state of one pool of slots.
#[derive(Clone, Debug)]
pub struct Slots {
    rules: SlotRules,
    queues: Vec<PooledQueue>,
    tenants: TenantAccounts,
    costs: TaskCosts,
    promises: Promises,
    runs: NumberMap<u64, SlotRun>,
    /// When each run has gone on for as long as it was charged.
    overruns: LazyHeap<(Timestamp, u64)>,
    /// The queues in which lines contend, in no order, and some in which there are none any more.
    contested: Vec<usize>,
    /// Whether any queue has a guarantee.
    any_guarantee: bool,
    /// Room for the queues that may start something, while it is decided.
    able: Vec<usize>,
    next_run: u64,
    next_arrival: u64,
    /// The tenants with as many slots as one tenant may have beside others.
    large: Vec<usize>,
    /// The queues that have grants which nobody has told them of.
    told: Vec<usize>,
    /// The run that was told last to give way, and when.
    giving_way: Option<(u64, Timestamp)>,
    /// What forward runs go by.
    seen: PoolSeen,
    #[cfg(test)]
    fault: Option<fault::Fault>,
}

impl Slots {
    /// Makes a pool that has no queues yet.
    pub fn new(rules: SlotRules) -> Self {
        Self {
            rules: SlotRules { slots: rules.slots.max(1), ..rules },
            queues: Vec::new(),
            tenants: TenantAccounts::default(),
            costs: TaskCosts::default(),
            promises: Promises::new(rules.reserve),
            runs: NumberMap::default(),
            overruns: LazyHeap::default(),
            contested: Vec::new(),
            any_guarantee: false,
            able: Vec::new(),
            next_run: 0,
            next_arrival: 0,
            large: Vec::new(),
            told: Vec::new(),
            giving_way: None,
            seen: PoolSeen::default(),
            #[cfg(test)]
            fault: None,
        }
    }

    /// Adds a queue, which starts nothing before it [reports](Self::report) free workers. Returns its number in the pool.
    pub fn join(&mut self, terms: QueueTerms) -> usize {
        let terms = QueueTerms { target: terms.target.max(Duration::from_micros(1)), ..terms };
        self.any_guarantee |= terms.min_workers > 0;
        let is_new = self.promises.add(terms.target);
        self.queues.push(PooledQueue::new(terms));
        if is_new {
            self.find_places();
        } else {
            self.find_place(self.queues.len() - 1);
        }
        self.queues.len() - 1
    }

    /// The actor of a queue has ended: what waited in it is forgotten, and its grants are free. Its runs hold their slots until
    /// they are over. The queue goes on with the next [`report`](Self::report).
    pub fn leave(&mut self, queue: usize, now: Timestamp) {
        self.clear(queue, now);
        if let Some(left) = self.queues.get_mut(queue) {
            (left.is_open, left.free) = (false, 0);
            left.epoch += 1;
        }
    }

    /// Takes a waiting task in.
    pub fn arrive(&mut self, queue: usize, waiting: WaitingTask<'_>, now: Timestamp) {
        if queue >= self.queues.len() {
            return;
        }
        let tenant = self.tenants.number(waiting.tenant.unwrap_or_default());
        let task = self.costs.number(waiting.task);
        let WaitingTask { tag, priority, since, .. } = waiting;
        self.seen.arrived(SeenArrival { at: now, queue, tenant, task, priority });
        self.take_in(queue, tenant, Reverse(priority), Item { tag, since, task }, now);
    }

    /// Puts a task at the end of its line.
    fn take_in(&mut self, queue: usize, tenant: usize, priority: Reverse<u8>, item: Item, now: Timestamp) {
        let key = (priority, self.next_arrival);
        self.next_arrival += 1;
        let account = &mut self.tenants.accounts[tenant];
        if account.pace == 0 {
            let typical = self.queues[queue].terms.typical;
            account.pace = account.cost(self.costs.expected(item.task, &account.costs, typical));
        }
        self.line_up(queue, tenant, key, item, now);
    }

    /// Takes a task out, as when it is revoked, whether it waits, is held by a gate, or has a grant that the queue has not taken.
    /// `false`: it is none of these. O(n) in the tasks of the queue.
    pub fn remove(&mut self, queue: usize, tag: u64, now: Timestamp) -> bool {
        let Some(of) = self.queues.get_mut(queue) else { return false };
        if let Some((tenant, ..)) = of.held.remove(&tag) {
            self.tenants.accounts[tenant].waiting -= 1;
            self.settle(tenant, now);
            return true;
        }
        let key = of.lines.iter().find_map(|(tenant, line)| {
            let (key, _) = line.items.iter().find(|(_, item)| item.tag == tag)?;
            Some((*tenant, key))
        });
        if let Some((tenant, key)) = key {
            self.take_out(queue, tenant, key);
            self.settle(tenant, now);
            return true;
        }
        let granted =
            of.granted.iter().copied().find(|run| self.runs.get(run).is_some_and(|r| r.item.tag == tag));
        if let Some(run) = granted {
            self.cancel(run, now);
        }
        granted.is_some()
    }

    /// Takes all out of a queue that has not started: what waits, what gates hold, and its grants. O(n).
    pub fn clear(&mut self, queue: usize, now: Timestamp) {
        let Some(of) = self.queues.get_mut(queue) else { return };
        let (granted, held) = (std::mem::take(&mut of.granted), std::mem::take(&mut of.held));
        let tenants = of.tenants();
        for run in granted {
            self.cancel(run, now);
        }
        for (tenant, ..) in held.into_values() {
            self.tenants.accounts[tenant].waiting -= 1;
            self.settle(tenant, now);
        }
        for tenant in tenants {
            self.leave_contest(queue, tenant);
            let of = &mut self.queues[queue];
            let gone = of.lines.remove(&tenant).map_or(0, |line| line.items.len());
            of.waiting -= gone;
            self.tenants.accounts[tenant].waiting -= gone;
            self.settle(tenant, now);
        }
    }

    /// The queue has `free` workers without a task, and may start something if it `is_open`: it is not paused, has not stopped
    /// itself, and does not shut down. Grants that it has not taken and cannot use any more come back. When a queue opens, its
    /// tenants have no credit of the time before.
    pub fn report(&mut self, queue: usize, free: usize, is_open: bool, now: Timestamp) {
        let Some(of) = self.queues.get_mut(queue) else { return };
        of.is_asleep = false;
        let was_open = std::mem::replace(&mut of.is_open, is_open);
        let keep = if is_open { free } else { 0 };
        self.take_back_beyond(queue, keep, now);
        let of = &mut self.queues[queue];
        of.free = keep - of.granted.len().min(keep);
        if was_open != is_open {
            for tenant in of.tenants() {
                if is_open {
                    self.tenants.lift(tenant);
                    self.tenants.recount(tenant);
                    self.enter(queue, tenant);
                } else {
                    self.leave_contest(queue, tenant);
                }
                self.settle(tenant, now);
            }
        }
    }

    /// Gives the free slots to the tasks whose turn it is. The grants wait for their queues to [take](Self::take) them.
    pub fn dispatch(&mut self, now: Timestamp) {
        while let Some(choice) = self.choose(0, now) {
            let queue = choice.queue;
            let Some(run) = self.start(choice, now) else { return };
            let granted = &mut self.queues[queue].granted;
            granted.push_back(run);
            if granted.len() == 1 {
                self.told.push(queue);
            }
        }
    }

    /// The next grant of a queue. From now on the queue answers for its end.
    pub fn take(&mut self, queue: usize) -> Option<SlotGrant> {
        let run = self.queues.get_mut(queue)?.granted.pop_front()?;
        let granted = self.runs.get(&run)?;
        Some(SlotGrant { run, tag: granted.item.tag, counts_from: granted.counts_from })
    }

    /// The queues that have got grants since the last call while they had none, to be told. One may be there twice.
    pub fn told(&mut self) -> impl Iterator<Item = usize> {
        self.told.drain(..)
    }

    /// A gate holds the task of a grant. Its slot is free, and the next of its line is its head. It comes back by
    /// [`bring_back`](Self::bring_back).
    pub fn hold(&mut self, run: u64, now: Timestamp) {
        if let Some(run) = self.withdraw(run) {
            self.tenants.accounts[run.tenant].waiting += 1;
            self.queues[run.queue].held.insert(run.item.tag, (run.tenant, run.key, run.item));
            self.settle(run.tenant, now);
        }
    }

    /// A task that a gate holds takes its place in line again, because the gate is asked anew. No queue could have started it
    /// before `free_since`, so its promise counts from then.
    pub fn bring_back(&mut self, queue: usize, tag: u64, free_since: Timestamp, now: Timestamp) {
        let Some(of) = self.queues.get_mut(queue) else { return };
        let Some((tenant, key, item)) = of.held.remove(&tag) else { return };
        let times = WaitTimes { since: item.since, free_since: Some(free_since), ..WaitTimes::default() };
        let item = Item { since: times.counts_from(), ..item };
        self.tenants.accounts[tenant].waiting -= 1;
        self.line_up(queue, tenant, key, item, now);
    }

    /// Brings back, as [`bring_back`](Self::bring_back) does, all that gates hold of a queue.
    pub fn bring_all_back(&mut self, queue: usize, free_since: Timestamp, now: Timestamp) {
        let Some(of) = self.queues.get(queue) else { return };
        let tags: Vec<u64> = of.held.keys().copied().collect();
        tags.into_iter().for_each(|tag| self.bring_back(queue, tag, free_since, now));
    }

    /// Takes the grants back that a queue has not taken for so long, so that others can use the slots. The queue is left out
    /// until it [reports](Self::report). O(n) in the queues.
    pub fn expire(&mut self, patience: Duration, now: Timestamp) {
        for queue in 0..self.queues.len() {
            let first = self.queues[queue].granted.front().and_then(|run| self.runs.get(run));
            if first.is_some_and(|run| now.since(run.started_at) >= patience) {
                self.queues[queue].is_asleep = true;
                self.take_back_beyond(queue, 0, now);
            }
        }
    }

    /// Changes the number of slots. If more run already, nothing starts until they fit.
    pub fn resize(&mut self, slots: usize, now: Timestamp) {
        self.rules.slots = slots.max(1);
        let running = |tenant: &usize| self.tenants.accounts[*tenant].running > 0;
        let running: Vec<usize> = (0..self.tenants.accounts.len()).filter(running).collect();
        for tenant in running {
            self.note_large(tenant);
            self.settle(tenant, now);
        }
    }

    /// Changes the weight of a tenant, for what is charged from now on.
    pub fn set_weight(&mut self, tenant: &str, weight: TenantWeight) {
        if self.has(fault::Fault::ForgetsWeight) {
            return;
        }
        let Some(known) = self.tenants.find(tenant) else { return self.tenants.weigh(tenant, weight) };
        // What contends has one weight as long as it does.
        let lines = self.tenants.accounts[known].lines.clone();
        lines.iter().for_each(|queue| self.leave_contest(*queue, known));
        self.tenants.weigh(tenant, weight);
        lines.iter().for_each(|queue| self.enter(*queue, known));
    }

    /// Says when somebody should ask for [grants](Self::dispatch) although nothing has happened: a tenant may take the room then
    /// that it leaves to others now.
    pub fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let crowding = self.large.iter().filter(|tenant| self.tenants.accounts[**tenant].is_crowding);
        let until = crowding.filter_map(|tenant| self.tenants.others_until(*tenant, now));
        until.filter(|until| until.as_micros() < u64::MAX).min()
    }

    /// Whether a task waits that could start if it had a slot.
    pub fn is_wanted(&self) -> bool {
        self.tenants.contenders.lines() > 0
    }

    /// Returns the number of slots of the pool.
    pub fn slots(&self) -> usize {
        self.rules.slots
    }

    /// The number of slots that are taken, those of grants included. It is more than [`slots`](Self::slots) only after a
    /// [`resize`](Self::resize).
    pub fn running(&self) -> usize {
        self.runs.len()
    }

    /// The number of tasks that wait in all queues of the pool, those that gates hold included. O(n) in the queues.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting + queue.held.len()).sum()
    }

    /// Says what of the waiting in a queue counts, as of the last [`dispatch`](Self::dispatch): that of tasks that gates hold
    /// does not, nor that of tenants with more than their share while tasks of others wait. O(n) in the tasks of the
    /// queue, and in the queues if any wait in it.
    pub fn counted_waits(&self, queue: usize) -> CountedWaits {
        let of = self.queues.get(queue).filter(|of| !of.lines.is_empty());
        let Some(of) = of else { return CountedWaits::default() };
        let is_owed = |tenant: &usize| self.tenants.accounts[*tenant].owed == Owed::Yes;
        let is_any_owed = self.queues.iter().flat_map(|of| of.lines.keys()).any(is_owed);
        let counts = |tenant: &usize| is_owed(tenant) || !is_any_owed;
        let oldest = of.lines.iter().filter(|(tenant, _)| counts(tenant)).flat_map(|(tenant, line)| {
            let owed_since = Some(self.tenants.accounts[*tenant].owed_since);
            let times =
                move |item: &Item| WaitTimes { since: item.since, owed_since, ..WaitTimes::default() };
            line.items.iter().map(move |(_, item)| times(item).counts_from())
        });
        CountedWaits { oldest: oldest.min(), is_any_over_share: !of.lines.keys().all(counts) }
    }

    /// The number of tasks that gates hold in a queue.
    pub fn held(&self, queue: usize) -> usize {
        self.queues.get(queue).map_or(0, |queue| queue.held.len())
    }

    /// How many tasks of each tenant wait in a queue for a slot, those of grants included that the queue has not taken.
    /// Those that gates hold are not among them. The name is empty for tasks without a tenant. It costs as much as
    /// there are tenants.
    pub fn waiting_of(&self, queue: usize) -> BTreeMap<&str, u64> {
        let mut waiting = BTreeMap::new();
        let Some(of) = self.queues.get(queue) else { return waiting };
        let lines = of.lines.iter().map(|(tenant, line)| (*tenant, line.items.len() as u64));
        let grants = of.granted.iter().filter_map(|run| Some((self.runs.get(run)?.tenant, 1)));
        for (tenant, tasks) in lines.chain(grants) {
            *waiting.entry(&*self.tenants.accounts[tenant].name).or_default() += tasks;
        }
        waiting
    }

    /// The tenants that have work here or have had more than their share, in the order of their names.
    pub fn tenants(&self) -> impl Iterator<Item = TenantShare> {
        self.tenants.all().map(|account| TenantShare {
            name: account.name.to_string(),
            waiting: account.waiting,
            running: account.running,
            is_owed: account.owed == Owed::Yes,
        })
    }

    /// Whether a test has broken the machine so.
    #[cfg(test)]
    fn has(&self, fault: fault::Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Nothing is broken in a program.
    #[cfg(not(test))]
    const fn has(&self, _: fault::Fault) -> bool {
        false
    }
}
