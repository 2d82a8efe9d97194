//! Many tenants that flood, in virtual time, and who comes beside them: with less than its share, with more, in a queue of
//! few workers, and as one more flood.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use super::super::fault::Fault;
use super::super::{QueueTerms, SlotRules, Slots, WaitingTask};
use crate::core::Timestamp;

/// Times are in microseconds.
const MILLI: u64 = 1_000;
const SECOND: u64 = 1_000 * MILLI;
/// Runs do not all take the same time: up to so much longer than is said.
const SCATTER: u64 = MILLI;

/// A task, which is known by its place among all.
struct Task {
    queue: usize,
    tenant: usize,
    name: &'static str,
    comes: u64,
    takes: u64,
    started: Option<u64>,
    run: u64,
}

/// A pool with all tasks that ever come to it.
struct Crowd {
    slots: Slots,
    workers: Vec<usize>,
    running: Vec<usize>,
    tasks: Vec<Task>,
    /// The tasks to come, by their times.
    coming: BinaryHeap<Reverse<(u64, usize)>>,
    /// The tasks that run, by the times at which they end.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 * SECOND + micros)
}

impl Crowd {
    /// A pool whose queues have so many workers and the same promise. It has measured no runs.
    fn new(slots: usize, workers: &[usize], fault: Option<Fault>) -> Self {
        let mut pool = Slots::new(SlotRules { slots, reserve: Some(0), room: None });
        pool.fault = fault;
        for workers in workers {
            let target = Duration::from_secs(30);
            let queue = pool.join(QueueTerms { target, min_workers: 0, typical: None });
            pool.report(queue, *workers, true, at(0));
        }
        Self {
            slots: pool,
            workers: workers.to_vec(),
            running: vec![0; workers.len()],
            tasks: Vec::new(),
            coming: BinaryHeap::new(),
            ends: BinaryHeap::new(),
        }
    }

    fn comes(&mut self, comes: u64, queue: usize, tenant: usize, takes: u64) {
        let scatter = (self.tasks.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % SCATTER;
        // Nobody learns from short tasks what long ones cost.
        let name = if takes < SECOND { "short" } else { "long" };
        self.coming.push(Reverse((comes, self.tasks.len())));
        self.tasks.push(Task { queue, tenant, name, comes, takes: takes + scatter, started: None, run: 0 });
    }

    /// Each of these tenants has so many tasks from then on, which have come in turns.
    fn flood(&mut self, comes: u64, queue: usize, tenants: Range<usize>, each: usize, takes: u64) {
        for _ in 0..each {
            tenants.clone().for_each(|tenant| self.comes(comes, queue, tenant, takes));
        }
    }

    /// All that happens until then. What happens at one time happens before anything starts.
    fn run_until(&mut self, until: u64) {
        loop {
            let next = [self.ends.peek(), self.coming.peek()].into_iter().flatten();
            let Some(now) = next.map(|Reverse((at, _))| *at).min().filter(|now| *now <= until) else {
                return;
            };
            while let Some(Reverse((_, tag))) =
                self.ends.peek().copied().filter(|Reverse((at, _))| *at == now)
            {
                self.ends.pop();
                self.end(tag, now);
            }
            while let Some(Reverse((_, tag))) =
                self.coming.peek().copied().filter(|Reverse((at, _))| *at == now)
            {
                self.coming.pop();
                self.arrive(tag, now);
            }
            self.start_all(now);
        }
    }

    fn arrive(&mut self, tag: usize, now: u64) {
        let task = &self.tasks[tag];
        let tenant = task.tenant.to_string();
        let waiting = WaitingTask {
            tag: tag as u64,
            tenant: Some(&tenant),
            task: task.name,
            priority: 0,
            since: at(now),
        };
        self.slots.arrive(task.queue, waiting, at(now));
    }

    fn end(&mut self, tag: usize, now: u64) {
        let (queue, run) = (self.tasks[tag].queue, self.tasks[tag].run);
        self.running[queue] -= 1;
        self.slots.finish(run, true, at(now));
        self.slots.report(queue, self.workers[queue] - self.running[queue], true, at(now));
    }

    fn start_all(&mut self, now: u64) {
        self.slots.dispatch(at(now));
        self.slots.told.clear();
        for queue in 0..self.workers.len() {
            while let Some(grant) = self.slots.take(queue) {
                let task = &mut self.tasks[grant.tag as usize];
                (task.started, task.run) = (Some(now), grant.run);
                self.running[queue] += 1;
                self.ends.push(Reverse((now + task.takes, grant.tag as usize)));
            }
        }
    }

    /// How long the tasks of a tenant waited, in the order in which they came. All of them have started.
    fn waits(&self, tenant: usize) -> Vec<u64> {
        let of_tenant = self.tasks.iter().filter(|task| task.tenant == tenant);
        of_tenant.map(|task| task.started.expect("it has started") - task.comes).collect()
    }

    /// The slot time of the runs of a tenant that started in this time.
    fn had(&self, tenant: usize, time: Range<u64>) -> u64 {
        let of_tenant = self.tasks.iter().filter(|task| task.tenant == tenant);
        let started = of_tenant.filter(|task| task.started.is_some_and(|at| time.contains(&at)));
        started.map(|task| task.takes).sum()
    }
}

/// The longest that a task waits which comes each `pause` beside so many floods, when they have had one turn each.
fn longest_wait(slots: usize, floods: usize, each: usize, pause: u64, fault: Option<Fault>) -> u64 {
    let run = 20 * MILLI;
    let turn = floods as u64 * (run + SCATTER) / slots as u64;
    let mut crowd = Crowd::new(slots, &[slots], fault);
    crowd.flood(0, 0, 0..floods, each, run);
    let last = (each as u64 - 3) * floods as u64 * run / slots as u64;
    (turn + run..last).step_by(pause as usize).for_each(|comes| crowd.comes(comes, 0, floods, run));
    crowd.run_until(last + 3 * turn);
    let waits = crowd.waits(floods);
    assert!(waits.len() > 8, "{} tasks came", waits.len());
    waits.into_iter().max().unwrap_or_default()
}

/// A thousand floods of runs of 20 ms have one run in 400 ms each on fifty slots. Who comes every 500 ms asks for less.
#[test]
fn i12_who_asks_for_no_more_than_its_share_waits_for_one_run_at_most() {
    for (slots, floods, each, pause) in [
        (50, 1_000, 16, 500 * MILLI),
        (10, 100, 30, 250 * MILLI),
        (4, 40, 30, 250 * MILLI),
        (3, 7, 60, 60 * MILLI),
    ] {
        let most = 20 * MILLI + SCATTER;
        let longest = longest_wait(slots, floods, each, pause, None);
        assert!(longest <= most, "{slots} slots, {floods} floods: {longest} us");
        let longest = longest_wait(slots, floods, each, pause, Some(Fault::ForgetsTurns));
        assert!(longest > 2 * most, "{slots} slots, {floods} floods: {longest} us all the same");
    }
}

/// Short tasks do not wait until tenants with long runs have come to where the others are: after one run a slot is free.
#[test]
fn a_short_task_waits_for_one_run_of_long_floods_at_most() {
    let (run, other) = (2 * SECOND, 100);
    let mut crowd = Crowd::new(10, &[10], None);
    crowd.flood(0, 0, 0..other, 5, run);
    (0..20).for_each(|n| crowd.comes(25 * SECOND + n * 3 * SECOND, 0, other, 20 * MILLI));
    crowd.run_until(90 * SECOND);
    let waits = crowd.waits(other);
    assert!(waits.iter().all(|wait| *wait <= run + SCATTER), "{waits:?}");
}

/// Who asks for four times its share gets as much as each of the floods: one run in 400 ms.
#[test]
fn who_asks_for_more_than_its_share_gets_its_share() {
    let (run, other) = (20 * MILLI, 1_000);
    let mut crowd = Crowd::new(50, &[50], None);
    crowd.flood(0, 0, 0..other, 16, run);
    (0..60).for_each(|n| crowd.comes(SECOND + n * 100 * MILLI, 0, other, run));
    crowd.run_until(6 * SECOND);
    let (had, of_a_flood) = (crowd.had(other, SECOND..6 * SECOND), crowd.had(7, SECOND..6 * SECOND));
    assert!(had.abs_diff(of_a_flood) <= 2 * (run + SCATTER), "{had} us beside {of_a_flood}");
}

/// Two floods share the slots with many small tenants for a while. A third one that comes then shares with them from then
/// on: it begins where they have come to, and has no credit of the time before.
#[test]
fn a_flood_that_comes_late_keeps_no_other_one_from_its_share() {
    let (run, last) = (20 * MILLI, 2);
    let mut crowd = Crowd::new(20, &[20], None);
    crowd.flood(0, 0, 0..last, 4_000, run);
    for tenant in 3..43 {
        (0..180).for_each(|n| crowd.comes(MILLI * tenant as u64 + n * 80 * MILLI, 0, tenant, run));
    }
    crowd.flood(10 * SECOND, 0, last..last + 1, 4_000, run);
    crowd.run_until(13 * SECOND);
    let before = [0, 1].map(|tenant| crowd.had(tenant, 5 * SECOND..10 * SECOND));
    assert!(before.iter().all(|had| *had > 20 * SECOND), "they had {before:?} us in five seconds");
    let after = [0, 1, last].map(|tenant| crowd.had(tenant, 10 * SECOND..13 * SECOND));
    let (least, most) = (after.iter().min(), after.iter().max());
    assert!(
        least.zip(most).is_some_and(|(least, most)| 4 * least >= 3 * most),
        "{after:?} us in three seconds"
    );
}

/// A queue has few workers, one tenant floods it, and another one floods the rest of the pool. A third tenant that sends a task
/// to this queue from time to time begins where the flood of the queue has come to, which cannot use its share. So it has the
/// next worker that is free, or the one after that.
#[test]
fn a_flood_of_a_queue_with_few_workers_is_no_older_than_who_comes() {
    let (run, other) = (100 * MILLI, 2);
    let mut crowd = Crowd::new(20, &[4, 20], None);
    crowd.flood(0, 0, 0..1, 2_000, run);
    crowd.flood(0, 1, 1..2, 4_000, run);
    (0..30).for_each(|n| crowd.comes(5 * SECOND + n * 300 * MILLI, 0, other, run));
    crowd.run_until(16 * SECOND);
    let waits = crowd.waits(other);
    assert!(waits.iter().all(|wait| *wait <= 2 * (run + SCATTER)), "{waits:?}");
    let had = [0, 1].map(|tenant| crowd.had(tenant, 5 * SECOND..15 * SECOND));
    assert!(had[0] > 30 * SECOND && had[1] > 140 * SECOND, "all slots are used: {had:?} us in ten seconds");
}
