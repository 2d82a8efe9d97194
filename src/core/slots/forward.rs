//! A pool in virtual time: a copy of it takes the same decisions, while runs take as long as is drawn, and tasks come as they came
//! lately. So it says in which order what waits is going to start, and when.
//!
//! Invariants:
//! - The copy decides by the code that the pool decides by; what it does changes nothing in the pool.
//! - What waits in the broker stands behind what waits here of its line, and comes as its line moves. Its priority and its task
//!   are taken for those of the last one of its line that is known.
//! - What is paused stays paused, and what gates hold stays held.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use super::Slots;
use super::line::Item;
use super::seen::{PoolSeen, SeenArrival};
use crate::core::forecast::{Draws, RunTimes};
use crate::core::{Timestamp, time};

/// The tag of a task that did not wait when the copy was made. All others have their places in their lines as tags.
const NEWCOMER: u64 = u64::MAX;
/// The most tasks of a line that are copied. Those behind them are counted.
const MOST_OF_LINE: usize = 1_000;
/// Time goes on with each arrival.
const MOMENT: Duration = Duration::from_micros(1);

/// A copy of a pool that can be run forward.
#[derive(Clone, Debug)]
pub struct ForwardPool {
    slots: Slots,
    began: Timestamp,
    now: Timestamp,
    outside: BTreeMap<(usize, usize), Outside>,
    run_times: Arc<RunTimes>,
    arrivals: Arc<Vec<SeenArrival>>,
    /// How many tasks come in a second.
    rate: f64,
    ends: BinaryHeap<Reverse<(Timestamp, u64)>>,
    arrives_at: Option<Timestamp>,
}

/// The tasks of a line that are not in the copy.
#[derive(Clone, Copy, Debug)]
struct Outside {
    waiting: u64,
    /// The place of the next one in its line.
    place: u64,
    priority: Reverse<u8>,
    like: Item,
}

/// A start in virtual time.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct ForwardStart {
    pub(in crate::core) queue: usize,
    pub(in crate::core) tenant: usize,
    /// After how many seconds.
    pub(in crate::core) after: f64,
    /// Whether the task waited when the copy was made.
    pub(in crate::core) has_waited: bool,
}

impl Slots {
    /// Notes how many tasks of each tenant wait in the broker for a queue, behind those that wait here. Tasks without a tenant
    /// are those of the tenant without a name.
    pub fn note_outside<'a>(&mut self, queue: usize, waiting: impl IntoIterator<Item = (&'a str, u64)>) {
        let waiting = waiting.into_iter();
        let known = waiting.filter_map(|(tenant, count)| Some((self.tenants.find(tenant)?, count)));
        self.seen.set_outside(queue, known);
    }

    /// Counts the tasks of its own line that are before a waiting task. `None`: it does not wait for a slot here. O(n) in the
    /// tasks of the queue.
    pub fn place_of(&self, queue: usize, tag: u64) -> Option<usize> {
        let mut lines = self.queues.get(queue)?.lines.values();
        lines.find_map(|line| line.items.iter().position(|(_, item)| item.tag == tag))
    }

    /// A copy that can be run forward. O(n) in what waits here, and in the tenants that are remembered.
    pub fn forward(&self, now: Timestamp) -> ForwardPool {
        let (arrivals, rate) = self.seen.recent(now);
        let mut slots = Self {
            rules: self.rules,
            queues: self.queues.clone(),
            tenants: self.tenants.at_work(),
            costs: self.costs.without_names(),
            promises: self.promises.clone(),
            runs: self.runs.clone(),
            overruns: self.overruns.clone(),
            contested: self.contested.clone(),
            any_guarantee: self.any_guarantee,
            able: Vec::new(),
            next_run: self.next_run,
            next_arrival: self.next_arrival,
            large: self.large.clone(),
            told: Vec::new(),
            giving_way: None,
            seen: PoolSeen::default(),
            #[cfg(test)]
            fault: self.fault,
        };
        let mut outside = BTreeMap::new();
        for (number, queue) in slots.queues.iter_mut().enumerate() {
            queue.granted.clear(); // they go on as runs that have begun
            queue.held.clear();
            for (tenant, line) in &mut queue.lines {
                let behind = line.items.truncate(MOST_OF_LINE);
                queue.waiting -= behind;
                slots.tenants.accounts[*tenant].waiting -= behind;
                (0..).zip(line.items.iter_mut()).for_each(|(place, item)| item.tag = place);
                let waiting = self.seen.outside(number, *tenant) + behind as u64;
                if waiting > 0
                    && let Some(((priority, _), like)) = line.items.last()
                {
                    let (like, place) = (*like, line.items.len() as u64);
                    outside.insert((number, *tenant), Outside { waiting, place, priority, like });
                }
            }
        }
        ForwardPool {
            slots,
            began: now,
            now,
            outside,
            run_times: Arc::new(self.seen.run_times.clone()),
            arrivals: Arc::new(arrivals),
            rate,
            ends: BinaryHeap::new(),
            arrives_at: None,
        }
    }
}

impl ForwardPool {
    /// The number of a tenant that has a line in this queue.
    pub(in crate::core) fn tenant_in(&self, queue: usize, name: &str) -> Option<usize> {
        let lines = &self.slots.queues.get(queue)?.lines;
        lines.keys().copied().find(|tenant| *self.slots.tenants.accounts[*tenant].name == *name)
    }

    /// The name of a tenant.
    pub(in crate::core) fn tenant_name(&self, tenant: usize) -> Arc<str> {
        Arc::clone(&self.slots.tenants.accounts[tenant].name)
    }

    /// How many tasks wait in each line, here and in the broker: its queue, its tenant, and the number.
    pub(in crate::core) fn waiting(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let queues = self.slots.queues.iter().enumerate();
        queues.flat_map(move |(queue, of)| {
            of.tenants().into_iter().map(move |tenant| {
                let here = of.lines.get(&tenant).map_or(0, |line| line.items.len() as u64);
                let outside = self.outside.get(&(queue, tenant)).map_or(0, |outside| outside.waiting);
                (queue, tenant, here + outside)
            })
        })
    }

    /// The number of queues.
    pub(in crate::core) fn queues(&self) -> usize {
        self.slots.queues.len()
    }

    /// How many runs the pool has seen.
    pub(in crate::core) fn observed(&self) -> u64 {
        self.run_times.observed()
    }

    /// The same, to which nothing comes.
    pub(in crate::core) fn alone(self) -> Self {
        Self { rate: 0.0, ..self }
    }

    /// How many seconds have passed.
    pub(in crate::core) fn elapsed(&self) -> f64 {
        self.now.since(self.began).as_secs_f64()
    }

    /// Draws how long the runs take that go on. It is called once, before the first step.
    pub(in crate::core) fn begin(&mut self, draws: &mut Draws) {
        let mut runs: Vec<u64> = self.slots.runs.keys().copied().collect();
        runs.sort_unstable(); // the same draws for the same runs
        for run in runs {
            let Some(of) = self.slots.runs.get(&run) else { continue };
            let age = self.now.since(of.started_at);
            let rest = match self.run_times.observed() {
                0 => of.expected.saturating_sub(age).as_secs_f64(),
                _ => self.run_times.draw_rest(of.item.task, age, draws),
            };
            self.ends.push(Reverse((self.now + span(rest), run)));
        }
        self.await_arrival(draws);
    }

    /// Starts what may start, and goes on to the next event: the end of a run, an arrival, or a time at which the pool looks
    /// anew. `false`: nothing happens any more.
    pub(in crate::core) fn step(&mut self, draws: &mut Draws, started: &mut Vec<ForwardStart>) -> bool {
        self.start_all(draws, started);
        let end = self.ends.peek().map(|Reverse((at, _))| *at);
        let look = self.slots.next_look(self.now);
        let Some(next) = [end, self.arrives_at, look].into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        if end == Some(next) {
            self.end_first();
        } else if self.arrives_at == Some(next) {
            self.arrive(draws);
        }
        true
    }

    fn start_all(&mut self, draws: &mut Draws, started: &mut Vec<ForwardStart>) {
        loop {
            self.slots.dispatch(self.now);
            let before = started.len();
            let mut granted = std::mem::take(&mut self.slots.told);
            granted.sort_unstable(); // the same draws for the same starts
            for queue in granted.drain(..) {
                while let Some(grant) = self.slots.take(queue) {
                    let Some(of) = self.slots.runs.get(&grant.run) else { continue };
                    let (tenant, task, expected) = (of.tenant, of.item.task, of.expected);
                    let took = match self.run_times.observed() {
                        0 => expected.as_secs_f64(),
                        _ => self.run_times.draw_of(task, draws),
                    };
                    self.ends.push(Reverse((self.now + span(took), grant.run)));
                    let (after, has_waited) = (self.elapsed(), grant.tag != NEWCOMER);
                    started.push(ForwardStart { queue, tenant, after, has_waited });
                    self.refill(queue, tenant);
                }
            }
            self.slots.told = granted; // the memory is used again
            // What came from the broker in the place of these may start as well.
            if started.len() == before {
                return;
            }
        }
    }

    /// The next task of a line comes from the broker, because one has started.
    fn refill(&mut self, queue: usize, tenant: usize) {
        let Some(outside) = self.outside.get_mut(&(queue, tenant)).filter(|outside| outside.waiting > 0)
        else {
            return;
        };
        let (priority, item) = (outside.priority, Item { tag: outside.place, ..outside.like });
        outside.waiting -= 1;
        outside.place += 1;
        self.slots.take_in(queue, tenant, priority, item, self.now);
    }

    fn end_first(&mut self) {
        let Some(Reverse((_, run))) = self.ends.pop() else { return };
        let Some(of) = self.slots.runs.get(&run) else { return };
        let (queue, epoch) = (of.queue, of.epoch);
        self.slots.finish(run, true, self.now);
        let of = &mut self.slots.queues[queue];
        // What was granted before the queue closed, or to an actor that has ended, leaves no worker.
        of.free += usize::from(of.is_open && of.epoch == epoch);
    }

    /// A task comes, such as one that came lately.
    fn arrive(&mut self, draws: &mut Draws) {
        let drawn = self.arrivals.get(draws.below(self.arrivals.len().max(1))).copied();
        if let Some(SeenArrival { queue, tenant, task, priority, .. }) = drawn {
            self.slots.tenants.revive(tenant);
            let item = Item { tag: NEWCOMER, since: self.now, task };
            self.slots.take_in(queue, tenant, Reverse(priority), item, self.now);
        }
        self.await_arrival(draws);
    }

    fn await_arrival(&mut self, draws: &mut Draws) {
        let is_any = self.rate > 0.0 && !self.arrivals.is_empty();
        self.arrives_at = is_any.then(|| self.now + span(draws.exponential() / self.rate).max(MOMENT));
    }
}

fn span(seconds: f64) -> Duration {
    time::seconds(seconds).unwrap_or_default()
}
