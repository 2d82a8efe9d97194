//! Random histories of a pool, and a model of it: lists that are scanned from end to end for every question.

use std::cmp::Reverse;
use std::mem::discriminant;
use std::time::Duration;

use proptest::prelude::*;

use super::super::fault::Fault;
use super::super::tenant::Owed;
use super::super::{QueueTerms, SlotHold, SlotRules, Slots, WaitingTask};
use super::books;
use crate::core::Timestamp;

const TENANTS: [&str; 4] = ["a", "b", "c", ""];
const RESERVE: usize = 1;
const ROOM: usize = 2;
/// How long a tenant is about after its last task, in milliseconds.
const ABOUT: u64 = 60_000;
/// The longest target in microseconds, which the others divide.
const ALL: u128 = 200_000_000;

/// What happens to a pool.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Arrive {
        queue: usize,
        tenant: usize,
        priority: u8,
        age: u64,
    },
    Finish(usize),
    /// The task of a grant is gone.
    Cancel(usize),
    /// A gate holds the task of a grant.
    Hold(usize),
    Release(usize),
    Revoke(usize),
    Pause(usize),
    Resume(usize),
    /// The actor of the queue ends, and another one begins.
    Crash(usize),
    Workers(usize, usize),
    Resize(usize),
    Advance(u64),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0usize..3, 0usize..4, 0u8..3, 0u64..5_000)
            .prop_map(|(queue, tenant, priority, age)| Op::Arrive { queue, tenant, priority, age }),
        10 => (0usize..8).prop_map(Op::Finish),
        2 => (0usize..8).prop_map(Op::Cancel),
        2 => (0usize..8).prop_map(Op::Hold),
        2 => (0usize..3).prop_map(Op::Release),
        2 => (0usize..20).prop_map(Op::Revoke),
        1 => (0usize..3).prop_map(Op::Pause),
        2 => (0usize..3).prop_map(Op::Resume),
        1 => (0usize..3).prop_map(Op::Crash),
        2 => (0usize..3, 1usize..5).prop_map(|(queue, workers)| Op::Workers(queue, workers)),
        1 => (3usize..7).prop_map(Op::Resize),
        8 => prop_oneof![4 => 1u64..3_000, 1 => 50_000u64..90_000].prop_map(Op::Advance),
    ]
}

/// What is looked at while a history is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    NoIdling,
    PromiseFirst,
    NoStarving,
    LineOrder,
    NothingLost,
    Bounds,
    SameStarts,
    TrueReasons,
}

#[derive(Clone, Debug)]
struct WorldQueue {
    terms: QueueTerms,
    workers: usize,
    is_open: bool,
}

#[derive(Clone, Debug)]
struct Waiting {
    queue: usize,
    tenant: usize,
    tag: u64,
    priority: u8,
    arrival: u64,
    since: Timestamp,
}

#[derive(Clone, Debug)]
struct Running {
    run: u64,
    task: Waiting,
    started_at: Timestamp,
}

/// A pool, and what a reader of its history knows of it.
#[derive(Clone, Debug)]
pub(super) struct World {
    slots: Slots,
    now: Timestamp,
    number: usize,
    queues: Vec<WorldQueue>,
    waiting: Vec<Waiting>,
    held: Vec<Waiting>,
    running: Vec<Running>,
    /// When each tenant ran out of work.
    rested: [Option<Timestamp>; TENANTS.len()],
    was_busy: [bool; TENANTS.len()],
    arrivals: u64,
    /// The tags of all that has started.
    starts: Vec<u64>,
    /// A run whose tenant was not charged for what the run took.
    mischarged: Option<String>,
}

impl World {
    /// Five slots for three queues: tight and short, with a guarantee; middling and long; loose, of which nobody knows how long
    /// its tasks take.
    pub(super) fn new(fault: Option<Fault>) -> Self {
        let number = 5;
        let mut slots = Slots::new(SlotRules { slots: number, reserve: Some(RESERVE), room: Some(ROOM) });
        slots.fault = fault;
        let terms = |target: u64, min_workers, typical: Option<u64>| QueueTerms {
            target: Duration::from_secs(target),
            min_workers,
            typical: typical.map(Duration::from_secs),
        };
        let rows = [terms(2, 0, Some(1)), terms(20, 1, Some(30)), terms(200, 0, None)];
        let queues = rows.map(|terms| WorldQueue { terms, workers: 4, is_open: true });
        for queue in &queues {
            let number = slots.join(queue.terms);
            slots.report(number, queue.workers, true, Timestamp::ZERO);
        }
        Self {
            slots,
            now: Timestamp::from_millis(1_000_000),
            number,
            queues: queues.into(),
            waiting: Vec::new(),
            held: Vec::new(),
            running: Vec::new(),
            rested: [None; TENANTS.len()],
            was_busy: [false; TENANTS.len()],
            arrivals: 0,
            starts: Vec::new(),
            mischarged: None,
        }
    }

    /// Plays a history, and says what breaks the property.
    pub(super) fn play(mut self, ops: &[Op], property: Property) -> Result<(), String> {
        let mut twin = self.clone();
        for op in ops {
            self.step(op, property)?;
            if property == Property::SameStarts {
                twin.step(op, property)?;
                if self.starts != twin.starts {
                    return Err(format!("{:?} and {:?}", self.starts, twin.starts));
                }
            }
        }
        match property {
            Property::NothingLost => self.end(),
            Property::TrueReasons => self.reasons(),
            _ => Ok(()),
        }
    }

    fn step(&mut self, op: &Op, property: Property) -> Result<(), String> {
        self.apply(op);
        self.note_rest();
        self.start_all(property)?;
        if property == Property::NothingLost { self.agree() } else { Ok(()) }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Arrive { queue, tenant, priority, age } => {
                let since = self.now - Duration::from_millis(age);
                let (tag, arrival) = (self.arrivals + 100, self.arrivals);
                self.arrivals += 1;
                let name = Some(TENANTS[tenant]).filter(|name| !name.is_empty());
                let task = WaitingTask { tag, tenant: name, task: "t", priority, since };
                self.slots.arrive(queue, task, self.now);
                self.waiting.push(Waiting { queue, tenant, tag, priority, arrival, since });
            }
            Op::Finish(nth) => {
                if let Some(run) = self.take_run(nth) {
                    let before = self.charged(run.task.tenant);
                    self.slots.finish(run.run, false, self.now);
                    self.note_charge(&run, before);
                    self.report(run.task.queue);
                }
            }
            Op::Cancel(nth) => {
                if let Some(run) = self.take_run(nth) {
                    self.slots.cancel(run.run, self.now);
                    self.report(run.task.queue);
                }
            }
            Op::Hold(nth) => {
                if let Some(run) = self.take_run(nth) {
                    self.slots.hold(run.run, self.now);
                    self.report(run.task.queue);
                    self.held.push(run.task);
                }
            }
            Op::Release(queue) => {
                self.slots.bring_all_back(queue, Timestamp::ZERO, self.now);
                let (back, held): (Vec<_>, Vec<_>) =
                    self.held.drain(..).partition(|task| task.queue == queue);
                self.held = held;
                self.waiting.extend(back);
            }
            Op::Revoke(nth) => {
                if !self.waiting.is_empty() {
                    let task = self.waiting.swap_remove(nth % self.waiting.len());
                    assert!(self.slots.remove(task.queue, task.tag, self.now), "it waits");
                }
            }
            Op::Pause(queue) => self.open(queue, false),
            Op::Resume(queue) => self.open(queue, true),
            Op::Crash(queue) => {
                self.slots.leave(queue, self.now);
                self.waiting.retain(|task| task.queue != queue);
                self.held.retain(|task| task.queue != queue);
                let (over, running): (Vec<_>, Vec<_>) =
                    self.running.drain(..).partition(|run| run.task.queue == queue);
                self.running = running;
                over.iter().for_each(|run| self.slots.finish(run.run, false, self.now));
                self.open(queue, true);
            }
            Op::Workers(queue, workers) => {
                self.queues[queue].workers = workers;
                self.report(queue);
            }
            Op::Resize(slots) => {
                self.number = slots;
                self.slots.resize(slots, self.now);
            }
            Op::Advance(millis) => self.now = self.now + Duration::from_millis(millis),
        }
    }

    /// What a tenant was charged for runs that are over. `None`: it has no account, as it has no debt and no work.
    fn charged(&self, tenant: usize) -> Option<u128> {
        let number = self.slots.tenants.find(TENANTS[tenant])?;
        Some(self.slots.tenants.accounts[number].done)
    }

    /// Compares what the end of a run has cost its tenant with the time that the run took, at a weight of 1.
    fn note_charge(&mut self, run: &Running, before: Option<u128>) {
        let (Some(before), Some(after)) = (before, self.charged(run.task.tenant)) else { return };
        let took = self.now.since(run.started_at);
        let cost = ((took.as_micros() << 20) / 1_000).max(1);
        if after != before + cost {
            self.mischarged = Some(format!("{run:?} took {took:?}, and {before} became {after}"));
        }
    }

    fn take_run(&mut self, nth: usize) -> Option<Running> {
        (!self.running.is_empty()).then(|| self.running.swap_remove(nth % self.running.len()))
    }

    fn open(&mut self, queue: usize, is_open: bool) {
        self.queues[queue].is_open = is_open;
        self.report(queue);
    }

    fn report(&mut self, queue: usize) {
        self.slots.report(queue, self.free(queue), self.queues[queue].is_open, self.now);
    }

    fn free(&self, queue: usize) -> usize {
        self.queues[queue].workers.saturating_sub(self.runs_of(queue).count())
    }

    fn runs_of(&self, queue: usize) -> impl Iterator<Item = &Running> {
        self.running.iter().filter(move |run| run.task.queue == queue)
    }

    fn runs_for(&self, tenant: usize) -> usize {
        self.running.iter().filter(|run| run.task.tenant == tenant).count()
    }

    fn has_work(&self, tenant: usize) -> bool {
        let mut waiting = self.waiting.iter().chain(&self.held);
        waiting.any(|task| task.tenant == tenant) || self.runs_for(tenant) > 0
    }

    fn note_rest(&mut self) {
        for tenant in 0..TENANTS.len() {
            let is_busy = self.has_work(tenant);
            if self.was_busy[tenant] && !is_busy {
                self.rested[tenant] = Some(self.now);
            }
            self.was_busy[tenant] = is_busy;
        }
    }

    fn others_are_about(&self, tenant: usize) -> bool {
        let is_recent = |at: Timestamp| at + Duration::from_millis(ABOUT) > self.now;
        (0..TENANTS.len())
            .filter(|other| *other != tenant)
            .any(|other| self.has_work(other) || self.rested[other].is_some_and(is_recent))
    }

    /// The longest that a run of a queue is likely to take.
    fn most(&self, queue: usize) -> Duration {
        self.queues[queue].terms.typical.unwrap_or(Duration::MAX)
    }

    fn blocks(&self, queue: usize, promise: Duration) -> bool {
        promise < self.queues[queue].terms.target && promise < self.most(queue)
    }

    /// The first of a line.
    fn head(&self, queue: usize, tenant: usize) -> Option<&Waiting> {
        let line = self.waiting.iter().filter(|task| task.queue == queue && task.tenant == tenant);
        line.min_by_key(|task| (Reverse(task.priority), task.arrival))
    }

    fn leaves_reserve(&self, queue: usize) -> bool {
        let promises = self.queues.iter().map(|queue| queue.terms.target);
        promises.filter(|promise| self.blocks(queue, *promise)).all(|promise| {
            let blockers = self.running.iter().filter(|run| self.blocks(run.task.queue, promise)).count();
            blockers + RESERVE.min(self.number - 1) < self.number
        })
    }

    fn leaves_room(&self, tenant: usize) -> bool {
        let most = self.number - ROOM.min(self.number - 1);
        self.runs_for(tenant) < most || !self.others_are_about(tenant)
    }

    /// The heads that may start.
    fn startable(&self) -> Vec<&Waiting> {
        if self.running.len() >= self.number {
            return Vec::new();
        }
        let lines =
            (0..self.queues.len()).flat_map(|queue| (0..TENANTS.len()).map(move |tenant| (queue, tenant)));
        let heads = lines.filter_map(|(queue, tenant)| self.head(queue, tenant));
        heads
            .filter(|head| self.queues[head.queue].is_open && self.free(head.queue) > 0)
            .filter(|head| self.leaves_reserve(head.queue) && self.leaves_room(head.tenant))
            .collect()
    }

    /// From when the waiting of a task counts, and whether its tenant is owed: the machine's own view.
    fn account(&self, task: &Waiting) -> (Timestamp, bool) {
        let number = self.slots.tenants.find(TENANTS[task.tenant]).expect("it has work");
        let account = &self.slots.tenants.accounts[number];
        (task.since.max(account.owed_since), account.owed == Owed::Yes)
    }

    /// The part of its promise that a task has used, where [`ALL`] is all of it. Exact, as the machine's.
    fn used(&self, task: &Waiting) -> u128 {
        let (since, _) = self.account(task);
        let target = self.queues[task.queue].terms.target;
        self.now.since(since).as_micros() * (ALL / target.as_micros())
    }

    /// Those of the heads that may start that are of the first stage which is not empty.
    fn stage(&self) -> Vec<&Waiting> {
        let startable = self.startable();
        let is_guaranteed =
            |task: &&&Waiting| self.runs_of(task.queue).count() < self.queues[task.queue].terms.min_workers;
        let guaranteed: Vec<&Waiting> = startable.iter().filter(is_guaranteed).copied().collect();
        let of = if guaranteed.is_empty() { startable } else { guaranteed };
        of.into_iter().filter(|task| self.account(task).1).collect()
    }

    /// Of the heads of the stage, the one that the promise puts first.
    fn first(&self) -> Option<&Waiting> {
        let stage = self.stage();
        let is_strained = stage.iter().any(|task| 2 * self.used(task) >= ALL);
        stage.into_iter().min_by(|one, other| {
            let by_promise = if is_strained {
                self.used(other).cmp(&self.used(one))
            } else {
                let deadline = |task: &Waiting| self.account(task).0 + self.queues[task.queue].terms.target;
                deadline(one).cmp(&deadline(other))
            };
            let rank = |task: &Waiting| (Reverse(task.priority), task.arrival);
            by_promise.then_with(|| rank(one).cmp(&rank(other)))
        })
    }

    /// Starts all that the machine lets start, and looks at each start.
    fn start_all(&mut self, property: Property) -> Result<(), String> {
        loop {
            let may = !self.startable().is_empty();
            let Some(choice) = self.slots.choose(0, self.now) else {
                if property == Property::NoIdling && may {
                    return Err(format!("a slot idles: {:?}", self.startable()));
                }
                return Ok(());
            };
            let is_chosen =
                |task: &Waiting| task.queue == choice.queue && task.arrival == choice.head.arrival;
            let chosen =
                self.waiting.iter().find(|task| is_chosen(task)).cloned().ok_or("it does not wait")?;
            match property {
                Property::LineOrder => {
                    let head = self.head(chosen.queue, chosen.tenant).map(|head| head.tag);
                    if head != Some(chosen.tag) {
                        return Err(format!("{chosen:?} starts before {head:?}"));
                    }
                }
                Property::Bounds if !self.startable().iter().any(|task| task.tag == chosen.tag) => {
                    return Err(format!("{chosen:?} starts beside {:?}", self.running));
                }
                Property::PromiseFirst => {
                    let first = self.first().map(|first| first.tag);
                    if first != Some(chosen.tag) {
                        return Err(format!("{chosen:?} starts before {first:?}"));
                    }
                }
                Property::NoStarving => {
                    let used = self.used(&chosen);
                    if let Some(worse) =
                        self.stage().iter().find(|task| 2 * self.used(task) >= ALL && self.used(task) > used)
                    {
                        return Err(format!("{chosen:?} passes {worse:?}"));
                    }
                }
                _ => {}
            }
            let run = self.slots.start(choice, self.now).ok_or("there is no such head")?;
            self.waiting.retain(|task| task.tag != chosen.tag);
            self.starts.push(chosen.tag);
            self.running.push(Running { run, task: chosen, started_at: self.now });
        }
    }

    /// The machine counts what the model counts, and has charged what is over and what goes on.
    fn agree(&self) -> Result<(), String> {
        if let Some(error) = &self.mischarged {
            return Err(error.clone());
        }
        let counts = (self.slots.running(), self.slots.waiting());
        let expected = (self.running.len(), self.waiting.len() + self.held.len());
        if counts != expected {
            return Err(format!("{counts:?} instead of {expected:?}"));
        }
        for (number, queue) in self.slots.queues.iter().enumerate() {
            if queue.running != self.runs_of(number).count() {
                return Err(format!("queue {number} counts {} runs", queue.running));
            }
        }
        books::agree(&self.slots)
    }

    /// At the end of all runs, all slots are free, and as many runs can go on at a time as before.
    fn end(mut self) -> Result<(), String> {
        for queue in 0..self.queues.len() {
            self.apply(&Op::Crash(queue));
        }
        if self.slots.running() > 0 {
            return Err(format!("{} slots are lost", self.slots.running()));
        }
        if let Some(run) = self.running.first() {
            return Err(format!("{run:?} goes on"));
        }
        for tenant in [0, 1, 2, 3, 0, 1, 2, 3] {
            self.apply(&Op::Arrive { queue: 0, tenant, priority: 0, age: 0 });
            self.apply(&Op::Arrive { queue: 1, tenant, priority: 0, age: 0 });
        }
        self.apply(&Op::Workers(0, 9));
        self.apply(&Op::Workers(1, 9));
        self.start_all(Property::NothingLost)?;
        // The middling queue blocks the tight promise, and leaves its reserve.
        if self.running.len() == self.number {
            Ok(())
        } else {
            Err(format!("{} of {} run", self.running.len(), self.number))
        }
    }

    /// Each reason is that of the task: once it is taken away, the task starts or has another one.
    fn reasons(&self) -> Result<(), String> {
        for task in self.waiting.iter().chain(&self.held) {
            let hold = self.slots.hold_of(task.queue, task.tag, self.now);
            let Some(hold) = hold else { return Err(format!("{task:?} has no reason")) };
            let mut other = self.clone();
            match &hold {
                SlotHold::Closed => other.open(task.queue, true),
                SlotHold::Gate => other.apply(&Op::Release(task.queue)),
                SlotHold::QueueFull => {
                    other.apply(&Op::Workers(task.queue, 1_000));
                }
                SlotHold::Room { .. } => {
                    other.slots.rules.room = Some(0);
                    other.slots.resize(other.number, other.now);
                }
                SlotHold::Reserved { .. } => other.slots.promises.keep_nothing(),
                SlotHold::OverShare => {
                    other.run_until(task.tag, usize::MAX)?;
                    continue;
                }
                SlotHold::Behind { at_most, .. } => {
                    other.run_until(task.tag, *at_most)?;
                    continue;
                }
            }
            other.slots.dispatch(other.now);
            let after = other.slots.hold_of(task.queue, task.tag, other.now);
            if after.is_some_and(|after| discriminant(&after) == discriminant(&hold)) {
                return Err(format!("{task:?}: {hold:?} is taken away, and still holds it"));
            }
        }
        Ok(())
    }

    /// Lets what runs end, one run after the other, until this task has started. Nothing comes.
    fn run_until(&mut self, tag: u64, at_most: usize) -> Result<(), String> {
        let before = self.starts.len();
        (0..self.queues.len()).for_each(|queue| self.open(queue, true));
        for _ in 0..1_000 {
            self.start_all(Property::TrueReasons)?;
            // A task that was put back has started before.
            if let Some(passed) = self.starts[before..].iter().position(|started| *started == tag) {
                return if passed <= at_most {
                    Ok(())
                } else {
                    Err(format!("{passed} start before {tag}, and at most {at_most} were told"))
                };
            }
            // Others rest meanwhile, and their time to be about is over.
            self.apply(&Op::Advance(ABOUT));
            self.apply(&Op::Finish(0));
            self.note_rest();
        }
        Err(format!("{tag} never starts: {:?}", self.slots.hold_of(0, tag, self.now)))
    }
}
