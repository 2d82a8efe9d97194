//! What a simulation, or a measurement, says: for each queue and tenant how long tasks waited for their starts, and how busy the
//! slots were.
//!
//! Invariant: all numbers are exact. A percentile is the wait of one of the tasks, by the nearest rank: of 100 waits the p95 is the
//! 95th, the shortest first.

use std::time::Duration;

use serde::Serialize;

use super::engine::queues_of;
use super::load::SimulatedLoad;
use super::plan::SlotPlan;
use super::{SimulationError, start_times};
use crate::core::Timestamp;

/// How long tasks waited for their first starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StartTimes {
    /// How many there are. Runs of tasks that had run before are not counted.
    pub starts: u64,
    /// The wait that half of them do not exceed.
    #[serde(rename = "p50_ms", serialize_with = "crate::core::json_time::millis")]
    pub p50: Duration,
    /// The wait that 95 of 100 do not exceed.
    #[serde(rename = "p95_ms", serialize_with = "crate::core::json_time::millis")]
    pub p95: Duration,
    /// The longest wait of a task.
    #[serde(rename = "max_ms", serialize_with = "crate::core::json_time::millis")]
    pub max: Duration,
    /// The share of them that waited no longer than the queue promises, from 0 to 1. Of none it is 1.
    pub within: f64,
    /// The part of the promise that the p95 has used: more than 1 is late.
    pub used: f64,
}

/// What a simulation says about a queue that had tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SimulatedQueue {
    /// The name of the queue.
    pub queue: String,
    /// The promised longest time-to-start that slots are given away by.
    #[serde(rename = "target_ms", serialize_with = "crate::core::json_time::millis")]
    pub target: Duration,
    /// How many of its tasks run at a time at most.
    pub workers: usize,
    /// The share of the time of its workers in which they had tasks, from 0 to 1, between the first arrival of the load and the
    /// last one. `None`: all tasks came at once.
    pub busy: Option<f64>,
    /// How long its tasks waited.
    #[serde(flatten)]
    pub waits: StartTimes,
}

/// What a simulation says about the tasks of a tenant in a queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SimulatedTenant {
    /// The name of the queue.
    pub queue: String,
    /// The name of the tenant; empty for tasks without one.
    pub tenant: String,
    /// How long its tasks waited in this queue.
    #[serde(flatten)]
    pub waits: StartTimes,
}

/// What a simulation says about a pool whose slots queues share.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SimulatedPool {
    /// The name of the pool.
    pub pool: String,
    /// The number of its slots.
    pub slots: usize,
    /// As that of a [queue](SimulatedQueue::busy), of the slots.
    pub busy: Option<f64>,
}

/// The outcome of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SimulationReport {
    /// The queues that had tasks, in the order of the plan.
    pub queues: Vec<SimulatedQueue>,
    /// The tenants by queue, in the order of the plan; in a queue the one that has used most of the promise comes first.
    pub tenants: Vec<SimulatedTenant>,
    /// The pools that queues share, in the order of the plan.
    pub pools: Vec<SimulatedPool>,
    /// The largest part of its promise that the p95 of any queue has used.
    pub worst_used: f64,
    /// How long after the last arrival the last task started: a backlog that the slots did not get through while tasks came.
    #[serde(rename = "drained_ms", serialize_with = "crate::core::json_time::millis")]
    pub drained: Duration,
}

/// What would have been: simulates the load with this plan.
///
/// # Errors
/// As [`start_times`].
pub fn simulate(plan: &SlotPlan, load: &SimulatedLoad) -> Result<SimulationReport, SimulationError> {
    let starts = start_times(plan, load)?;
    report(plan, load, &starts)
}

/// What was: the same report of the waits that were measured, with the promises and the numbers of slots of this plan. So a queue that
/// had more workers may have been busy for more than all of its time. `None`: there are tasks of which nobody has measured it.
///
/// # Errors
/// The load has no tasks or too many, or tasks for a queue that the plan does not have.
pub fn measured(plan: &SlotPlan, load: &SimulatedLoad) -> Result<Option<SimulationReport>, SimulationError> {
    let starts: Option<Vec<Timestamp>> = load.arrivals.iter().map(|arrival| arrival.began()).collect();
    starts.map(|starts| report(plan, load, &starts)).transpose()
}

fn report(
    plan: &SlotPlan,
    load: &SimulatedLoad,
    starts: &[Timestamp],
) -> Result<SimulationReport, SimulationError> {
    let queues = queues_of(plan, load)?;
    let (first, last) = load.span().ok_or(SimulationError::NoArrivals)?;
    let mut busy = vec![0_u128; plan.queues.len()];
    // By queue and tenant, the shortest wait first.
    let mut waits: Vec<(usize, u32, u64)> = Vec::with_capacity(load.len());
    for (arrival, start) in load.arrivals.iter().zip(starts) {
        let Some(queue) = queues[arrival.queue as usize] else { continue };
        let end = (*start + Duration::from_micros(arrival.takes)).min(last);
        busy[queue] += end.since((*start).max(first)).as_micros();
        if !arrival.is_again {
            waits.push((queue, arrival.tenant, micros(start.since(arrival.at))));
        }
    }
    waits.sort_unstable();
    let drained = starts.iter().max().map_or(Duration::ZERO, |start| start.since(last));
    let share = |busy: u128, slots: usize| {
        let all = last.since(first).as_micros().saturating_mul(slots as u128);
        (all > 0).then(|| busy as f64 / all as f64)
    };
    let mut report = SimulationReport {
        queues: Vec::new(),
        tenants: Vec::new(),
        pools: Vec::new(),
        worst_used: 0.0,
        drained,
    };
    let has_tasks = |place: usize| queues.contains(&Some(place));
    for (place, queue) in plan.queues.iter().enumerate().filter(|(place, _)| has_tasks(*place)) {
        let from = waits.partition_point(|(of, ..)| *of < place);
        let until = waits.partition_point(|(of, ..)| *of <= place);
        let own = &waits[from..until];
        let target = queue.terms.target;
        let mut all: Vec<u64> = own.iter().map(|(.., wait)| *wait).collect();
        all.sort_unstable();
        let times = StartTimes::of(&all, target);
        report.worst_used = report.worst_used.max(times.used);
        report.queues.push(SimulatedQueue {
            queue: queue.name.clone(),
            target,
            workers: queue.workers,
            busy: share(busy[place], queue.workers),
            waits: times,
        });
        let mut tenants: Vec<SimulatedTenant> = own
            .chunk_by(|(_, one, _), (_, other, _)| one == other)
            .map(|of| {
                all.clear();
                all.extend(of.iter().map(|(.., wait)| *wait));
                let tenant = of.first().map_or("", |(_, tenant, _)| load.name(*tenant)).to_owned();
                SimulatedTenant { queue: queue.name.clone(), tenant, waits: StartTimes::of(&all, target) }
            })
            .collect();
        let by_used = |one: &SimulatedTenant, other: &SimulatedTenant| {
            let used = other.waits.used.total_cmp(&one.waits.used);
            used.then_with(|| one.tenant.cmp(&other.tenant))
        };
        tenants.sort_by(by_used);
        report.tenants.append(&mut tenants);
    }
    for (place, pool) in plan.pools.iter().enumerate().filter(|(_, pool)| pool.is_shared) {
        let of_pool = plan.queues.iter().zip(&busy).filter(|(queue, _)| queue.pool == place);
        let busy = share(of_pool.map(|(_, busy)| *busy).sum(), pool.rules.slots);
        report.pools.push(SimulatedPool { pool: pool.name.clone(), slots: pool.rules.slots, busy });
    }
    Ok(report)
}

impl StartTimes {
    /// Of waits in microseconds, the shortest first.
    fn of(waits: &[u64], target: Duration) -> Self {
        let Some(max) = waits.last() else { return Self { within: 1.0, ..Self::default() } };
        let promised = micros(target);
        let within = waits.partition_point(|wait| *wait <= promised);
        let p95 = ranked(waits, 95);
        Self {
            starts: waits.len() as u64,
            p50: Duration::from_micros(ranked(waits, 50)),
            p95: Duration::from_micros(p95),
            max: Duration::from_micros(*max),
            within: within as f64 / waits.len() as f64,
            used: p95 as f64 / promised.max(1) as f64,
        }
    }
}

/// The wait of the nearest rank of these hundredths.
fn ranked(waits: &[u64], hundredths: usize) -> u64 {
    let rank = (waits.len() * hundredths).div_ceil(100).max(1);
    waits.get(rank - 1).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let waits: Vec<u64> = (1..=100).map(|n| n * 1_000_000).collect();
        let times = StartTimes::of(&waits, Duration::from_secs(50));
        let seconds = |times: &StartTimes| [times.p50, times.p95, times.max].map(|wait| wait.as_secs());
        assert_eq!((times.starts, seconds(&times)), (100, [50, 95, 100]));
        assert_eq!((times.within, times.used), (0.5, 1.9));
        let one = StartTimes::of(&[3_000_000], Duration::from_secs(6));
        assert_eq!((seconds(&one), one.within, one.used), ([3, 3, 3], 1.0, 0.5));
        let none = StartTimes::of(&[], Duration::from_secs(6));
        assert_eq!((none.starts, none.within, none.used), (0, 1.0, 0.0));
    }
}
