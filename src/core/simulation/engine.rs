//! The forward run: the tasks of a load come to the pools of a plan in virtual time, and [`Slots`] decides what starts.
//!
//! The clock jumps from one event to the next. An event is the arrival of a task, the end of a run, or a moment at which a pool
//! asks to be looked at. All that happens at one time happens before anything starts at that time: first runs end, in the order in
//! which they began, then tasks arrive, in the order of the load.
//!
//! A pool begins as in a program that has just started: it has measured no runs, so that what it thinks of their lengths is what
//! queues state.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::load::{SimulatedLoad, StoredArrival};
use super::plan::SlotPlan;
use super::{MOST_ARRIVALS, SimulationError};
use crate::core::Timestamp;
use crate::core::slots::{Slots, WaitingTask};

/// When each task of the load starts, in the order of the load.
///
/// # Errors
/// The load has no tasks or too many, or tasks for a queue that the plan does not have or that has no workers.
pub fn start_times(plan: &SlotPlan, load: &SimulatedLoad) -> Result<Vec<Timestamp>, SimulationError> {
    let queues = queues_of(plan, load)?;
    let mut forward = ForwardRun::new(plan, load, &queues)?;
    forward.run();
    let starts: Option<Vec<Timestamp>> = forward.starts.iter().copied().collect();
    starts.ok_or_else(|| {
        let waits = load.arrivals.iter().zip(&forward.starts).find(|(_, start)| start.is_none());
        let queue = waits.map_or("", |(arrival, _)| load.name(arrival.queue)).to_owned();
        SimulationError::NeverStarts { queue }
    })
}

/// For each name of the load that is one of a queue, the place of this queue in the plan.
///
/// # Errors
/// The load has no tasks or too many, or the plan does not have one of its queues.
pub(super) fn queues_of(
    plan: &SlotPlan,
    load: &SimulatedLoad,
) -> Result<Vec<Option<usize>>, SimulationError> {
    match load.len() {
        0 => return Err(SimulationError::NoArrivals),
        1..=MOST_ARRIVALS => {}
        _ => return Err(SimulationError::TooManyArrivals),
    }
    let mut queues = vec![None; load.names()];
    for arrival in &load.arrivals {
        let place = &mut queues[arrival.queue as usize];
        if place.is_none() {
            let name = load.name(arrival.queue);
            let found = plan.find(name).filter(|found| plan.queues[*found].pool < plan.pools.len());
            *place = Some(found.ok_or_else(|| SimulationError::unknown_queue(name, plan))?);
        }
    }
    Ok(queues)
}

/// The state of a forward run.
struct ForwardRun<'a> {
    load: &'a SimulatedLoad,
    /// The places of the queues in the plan, by their names' numbers in the load.
    queues: &'a [Option<usize>],
    pools: Vec<SimulatedSlots>,
    /// By their places in the plan.
    seats: Vec<QueueSeat>,
    /// The arrivals that have not come yet, the first one last.
    coming: Vec<u32>,
    ends: BinaryHeap<Reverse<RunEnding>>,
    starts: Vec<Option<Timestamp>>,
    begun: u64,
}

/// A pool of slots.
struct SimulatedSlots {
    slots: Slots,
    /// The places of its queues in the plan, by their numbers in the pool.
    members: Vec<usize>,
    /// When it asks to be looked at although nothing happens.
    look: Option<Timestamp>,
    /// Whether something has happened in it at this time.
    is_touched: bool,
}

/// A queue in its pool.
#[derive(Clone, Copy)]
struct QueueSeat {
    pool: usize,
    number: usize,
    workers: usize,
    running: usize,
}

/// When a run ends. The first to end is the least, and of those at one time the first to have begun.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RunEnding {
    at: Timestamp,
    /// Counts the runs of all pools.
    nth: u64,
    queue: usize,
    run: u64,
}

impl<'a> ForwardRun<'a> {
    fn new(
        plan: &SlotPlan,
        load: &'a SimulatedLoad,
        queues: &'a [Option<usize>],
    ) -> Result<Self, SimulationError> {
        let (begin, _) = load.span().ok_or(SimulationError::NoArrivals)?;
        let pools = plan.pools.iter().map(|pool| {
            let mut slots = Slots::new(pool.rules);
            plan.weights.iter().for_each(|(tenant, weight)| slots.set_weight(tenant, *weight));
            SimulatedSlots { slots, members: Vec::new(), look: None, is_touched: false }
        });
        let mut pools: Vec<SimulatedSlots> = pools.collect();
        let mut seats = Vec::with_capacity(plan.queues.len());
        for (place, queue) in plan.queues.iter().enumerate() {
            // No task comes to a queue without a pool, so its seat is never asked.
            let Some(pool) = pools.get_mut(queue.pool) else {
                seats.push(QueueSeat { pool: usize::MAX, number: 0, workers: 0, running: 0 });
                continue;
            };
            let number = pool.slots.join(queue.terms);
            pool.slots.report(number, queue.workers, true, begin);
            pool.members.push(place);
            seats.push(QueueSeat { pool: queue.pool, number, workers: queue.workers, running: 0 });
        }
        let tasks = u32::try_from(load.len()).map_err(|_| SimulationError::TooManyArrivals)?;
        let mut coming: Vec<u32> = (0..tasks).collect();
        coming.sort_by_key(|place| load.arrivals[*place as usize].at);
        coming.reverse();
        let starts = vec![None; load.len()];
        Ok(Self { load, queues, pools, seats, coming, ends: BinaryHeap::new(), starts, begun: 0 })
    }

    /// Goes on until nothing is left to happen.
    fn run(&mut self) {
        while let Some(now) = self.next_event() {
            while let Some(Reverse(ending)) = self.ends.peek().copied()
                && ending.at <= now
            {
                self.ends.pop();
                self.end(ending, now);
            }
            while let Some(place) = self.coming.last().copied()
                && self.arrival(place).at <= now
            {
                self.coming.pop();
                self.arrive(place, now);
            }
            for pool in 0..self.pools.len() {
                let of = &self.pools[pool];
                if of.is_touched || of.look.is_some_and(|look| look <= now) {
                    self.give_away(pool, now);
                }
            }
        }
    }

    fn next_event(&self) -> Option<Timestamp> {
        let arrival = self.coming.last().map(|place| self.arrival(*place).at);
        let end = self.ends.peek().map(|Reverse(ending)| ending.at);
        let look = self.pools.iter().filter_map(|pool| pool.look).min();
        [arrival, end, look].into_iter().flatten().min()
    }

    fn arrival(&self, place: u32) -> &'a StoredArrival {
        &self.load.arrivals[place as usize]
    }

    fn arrive(&mut self, place: u32, now: Timestamp) {
        let stored = self.arrival(place);
        let Some(queue) = self.queues[stored.queue as usize] else { return };
        let arrival = self.load.arrival(stored);
        let waiting = WaitingTask {
            tag: u64::from(place),
            tenant: Some(arrival.tenant),
            task: arrival.task,
            priority: arrival.priority,
            since: arrival.at,
        };
        let seat = self.seats[queue];
        let pool = &mut self.pools[seat.pool];
        pool.slots.arrive(seat.number, waiting, now);
        pool.is_touched = true;
    }

    fn end(&mut self, ending: RunEnding, now: Timestamp) {
        let seat = &mut self.seats[ending.queue];
        seat.running -= 1;
        let pool = &mut self.pools[seat.pool];
        pool.slots.finish(ending.run, true, now);
        pool.slots.report(seat.number, seat.workers - seat.running, true, now);
        pool.is_touched = true;
    }

    /// Starts what the pool gives its free slots to.
    fn give_away(&mut self, pool: usize, now: Timestamp) {
        let of = &mut self.pools[pool];
        of.is_touched = false;
        of.slots.dispatch(now);
        let told: Vec<usize> = of.slots.told().collect();
        for number in told {
            let queue = of.members[number];
            while let Some(grant) = of.slots.take(number) {
                let Some(place) = usize::try_from(grant.tag).ok().filter(|tag| *tag < self.starts.len())
                else {
                    continue;
                };
                self.starts[place] = Some(now);
                self.seats[queue].running += 1;
                let takes = Duration::from_micros(self.load.arrivals[place].takes);
                let ending = RunEnding { at: now + takes, nth: self.begun, queue, run: grant.run };
                self.begun += 1;
                self.ends.push(Reverse(ending));
            }
        }
        of.look = of.slots.next_look(now).filter(|look| *look > now);
    }
}
