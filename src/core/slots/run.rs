//! The runs of a pool: what they are charged, and how their slots come back.

use std::time::Duration;

use super::decision::Choice;
use super::fault::Fault;
use super::line::{Item, LineKey};
use super::tenant::{Spent, moved};
use super::{Slots, cost};
use crate::core::Timestamp;

/// A grant, taken or not, and its run.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotRun {
    pub(super) queue: usize,
    /// Tells the actor of the queue from those after it.
    pub(super) epoch: u64,
    pub(super) tenant: usize,
    pub(super) key: LineKey,
    pub(super) item: Item,
    pub(super) started_at: Timestamp,
    /// From when the waiting of its task counted.
    pub(super) counts_from: Timestamp,
    /// How long it was thought to take, and after that how long it is thought to take at least.
    pub(super) expected: Duration,
    /// What it is likely to take at most.
    pub(super) most: Duration,
    /// How many promises of the pool it blocks.
    pub(super) blocks: usize,
    /// What its tenant is charged for it.
    pub(super) charge: Spent,
    /// Whether it was told to give way.
    pub(super) gives_way: bool,
}

impl SlotRun {
    fn overrun(&self, run: u64) -> (Timestamp, u64) {
        (self.started_at + self.expected, run)
    }
}

impl Slots {
    /// Starts the head of a line: its slot is taken, and its tenant is charged. `None`: there is no such head.
    pub(super) fn start(&mut self, choice: Choice, now: Timestamp) -> Option<u64> {
        let (queue, tenant) = (choice.queue, choice.head.tenant);
        let key = (choice.head.priority, choice.head.arrival);
        let item = self.take_off(queue, tenant, key)?;
        let run = self.next_run;
        self.next_run += 1;
        let charges = !self.has(Fault::ForgetsCost);
        let (of, account) = (&mut self.queues[queue], &mut self.tenants.accounts[tenant]);
        let expected = self.costs.expected(item.task, &account.costs, of.terms.typical);
        let most = self.costs.most(item.task, &account.costs, of.terms.typical);
        let charge = if charges { account.cost(expected) } else { 0 };
        if account.costs.is_empty() {
            account.pace = account.cost(expected).max(1); // others may have shown by now what its task takes
        }
        account.held += charge;
        account.is_new = false;
        account.running += 1;
        of.free -= 1;
        of.running += 1;
        let blocks = self.promises.blocked(of.promise, most);
        self.promises.started(blocks);
        let epoch = of.epoch;
        let started = SlotRun {
            queue,
            epoch,
            tenant,
            key,
            item,
            started_at: now,
            counts_from: choice.head.since,
            expected,
            most,
            blocks,
            charge,
            gives_way: false,
        };
        self.runs.insert(run, started);
        self.await_overrun(started.overrun(run));
        self.enter(queue, tenant);
        self.tenants.recount(tenant);
        self.note_large(tenant);
        self.end_turn(queue, tenant, choice.mean, now);
        self.settle(tenant, now);
        Some(run)
    }

    /// The run of a grant is over. `ran`: the body did run, so its time says something about its task.
    pub fn finish(&mut self, run: u64, ran: bool, now: Timestamp) {
        let (forgets, keeps_estimate) = (self.has(Fault::ForgetsCost), self.has(Fault::KeepsEstimate));
        let Some(over) = self.runs.remove(&run) else { return };
        let took = now.since(over.started_at);
        self.promises.ended(over.blocks);
        let (of, account) = (&mut self.queues[over.queue], &mut self.tenants.accounts[over.tenant]);
        of.running -= 1;
        account.running -= 1;
        account.held -= over.charge;
        let cost = account.cost(if keeps_estimate { over.expected } else { took });
        if !forgets {
            account.done = account.done.saturating_add(cost);
        }
        if ran {
            // Until then the pace was a guess.
            let is_first = account.costs.is_empty();
            self.costs.note(over.item.task, &mut account.costs, took);
            let pace = if is_first { cost } else { moved(account.pace, cost) };
            account.pace = pace.max(1);
            self.promises.note(of.promise, took, now);
            self.seen.run_times.record(over.item.task, took);
        }
        self.tenants.raise_floor(took);
        self.tenants.recount(over.tenant);
        self.note_large(over.tenant);
        self.settle(over.tenant, now);
    }

    /// A grant comes to nothing, because its task is gone. Its slot is free, and nobody is charged.
    pub fn cancel(&mut self, run: u64, now: Timestamp) {
        if let Some(run) = self.withdraw(run) {
            self.settle(run.tenant, now);
        }
    }

    /// Takes the grants back that a queue has not taken, beyond so many. Their tasks have their places in line again.
    pub(super) fn take_back_beyond(&mut self, queue: usize, keep: usize, now: Timestamp) {
        while self.queues[queue].granted.len() > keep
            && let Some(run) = self.queues[queue].granted.back().copied()
            && let Some(run) = self.withdraw(run)
        {
            self.line_up(queue, run.tenant, run.key, run.item, now);
            self.settle(run.tenant, now); // it has had less by now, also if this task is not the first of its line
        }
    }

    /// Undoes a start.
    pub(super) fn withdraw(&mut self, run: u64) -> Option<SlotRun> {
        if self.has(Fault::LeaksSlot) {
            let undone = self.runs.get(&run).copied()?;
            self.queues[undone.queue].granted.retain(|granted| *granted != run);
            return Some(undone);
        }
        let undone = self.runs.remove(&run)?;
        self.promises.ended(undone.blocks);
        let (of, account) = (&mut self.queues[undone.queue], &mut self.tenants.accounts[undone.tenant]);
        of.granted.retain(|granted| *granted != run);
        of.running -= 1;
        // The worker that was to take it is free. A later actor of the queue knows nothing of it.
        of.free += usize::from(of.epoch == undone.epoch);
        account.running -= 1;
        account.held -= undone.charge;
        self.tenants.recount(undone.tenant);
        self.note_large(undone.tenant);
        Some(undone)
    }

    /// Notes when a run has gone on for as long as it was charged.
    fn await_overrun(&mut self, overrun: (Timestamp, u64)) {
        self.overruns.push(overrun);
        self.overruns.tidy(self.runs.len(), |(_, run)| self.runs.contains_key(run));
    }

    /// Charges the runs for more that have gone on for as long as they were charged: for twice the time.
    pub(super) fn charge_overruns(&mut self, now: Timestamp) {
        while let Some((at, run)) = self.overruns.peek()
            && at <= now
        {
            let Some(over) = self.runs.get_mut(&run) else {
                self.overruns.pop(); // it is over
                continue;
            };
            over.expected = over.expected.saturating_mul(2).max(cost::LEAST_EXPECTED);
            let account = &mut self.tenants.accounts[over.tenant];
            let charge = account.cost(over.expected);
            account.held = account.held - over.charge + charge;
            over.charge = charge;
            let (tenant, overrun) = (over.tenant, over.overrun(run));
            self.overruns.replace_first(overrun);
            self.tenants.recount(tenant);
            self.settle(tenant, now);
        }
    }
}
