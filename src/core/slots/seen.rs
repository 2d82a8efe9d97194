//! What a pool has seen lately, for its [forward runs](super::forward): which tasks came, how long runs took, and how many tasks
//! wait in the broker behind those that wait here.
//!
//! Invariants:
//! - It takes a bounded amount of memory: the last [`RECENT`] arrivals, the last runs of each task, and a number for each line.
//! - A task that waited in the broker and is delivered is no arrival: it has waited behind others, and overtakes nobody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::Timestamp;
use crate::core::forecast::RunTimes;

/// How many arrivals are remembered.
const RECENT: usize = 512;
/// For how long an arrival says how often others come.
const SPAN: Duration = Duration::from_secs(60);
/// In a shorter time than this nothing can be said about a rate.
const SHORTEST: Duration = Duration::from_secs(5);

/// A task that has come to the pool. Queue, tenant and task are known by their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenArrival {
    pub(super) at: Timestamp,
    pub(super) queue: usize,
    pub(super) tenant: usize,
    pub(super) task: usize,
    pub(super) priority: u8,
}

/// What a pool has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolSeen {
    began: Option<Timestamp>,
    arrivals: VecDeque<SeenArrival>,
    /// How many tasks wait in the broker, by queue and tenant.
    outside: BTreeMap<(usize, usize), u64>,
    pub(super) run_times: RunTimes,
}

impl PoolSeen {
    /// Notes that a task has come.
    pub(super) fn arrived(&mut self, arrival: SeenArrival) {
        let line = (arrival.queue, arrival.tenant);
        if let Some(waiting) = self.outside.get_mut(&line) {
            *waiting -= 1;
            if *waiting == 0 {
                self.outside.remove(&line);
            }
            return;
        }
        self.began.get_or_insert(arrival.at);
        if self.arrivals.len() == RECENT {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(arrival);
    }

    /// Notes how many tasks of each tenant wait in the broker for a queue.
    pub(super) fn set_outside(&mut self, queue: usize, lines: impl Iterator<Item = (usize, u64)>) {
        self.outside.retain(|(of, _), _| *of != queue);
        let waiting = lines.filter(|(_, waiting)| *waiting > 0);
        self.outside.extend(waiting.map(|(tenant, waiting)| ((queue, tenant), waiting)));
    }

    /// How many tasks of this line wait in the broker, as far as is known.
    pub(super) fn outside(&self, queue: usize, tenant: usize) -> u64 {
        self.outside.get(&(queue, tenant)).copied().unwrap_or_default()
    }

    /// The arrivals of the last minute, and how many tasks come in a second.
    pub(super) fn recent(&self, now: Timestamp) -> (Vec<SeenArrival>, f64) {
        let from = now - SPAN;
        let recent: Vec<SeenArrival> =
            self.arrivals.iter().filter(|arrival| arrival.at >= from).copied().collect();
        let began = self.began.unwrap_or(now);
        // Of more arrivals than are remembered, those that are show how quickly they come.
        let is_cut = self.arrivals.len() == RECENT && recent.len() == RECENT;
        let since = if is_cut { recent.first().map_or(began, |first| first.at) } else { began.max(from) };
        let rate = recent.len() as f64 / now.since(since).max(SHORTEST).as_secs_f64();
        (recent, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn arrival(tenant: usize, millis: u64) -> SeenArrival {
        SeenArrival { at: at(millis), queue: 0, tenant, task: 0, priority: 0 }
    }

    #[test]
    fn what_waited_in_the_broker_does_not_come_anew() {
        let mut seen = PoolSeen::default();
        seen.set_outside(0, [(7, 2), (8, 0)].into_iter());
        (0..4).for_each(|n| seen.arrived(arrival(7, n)));
        assert_eq!((seen.outside(0, 7), seen.outside(0, 8), seen.recent(at(10)).0.len()), (0, 0, 2));
        seen.set_outside(0, [(7, 5)].into_iter());
        seen.set_outside(1, std::iter::empty());
        assert_eq!(seen.outside(0, 7), 5);
        seen.set_outside(0, std::iter::empty());
        assert_eq!(seen.outside(0, 7), 0);
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut seen = PoolSeen::default();
        assert!(seen.recent(at(0)).1.abs() < f64::EPSILON);
        (0..20).for_each(|n| seen.arrived(arrival(1, n * 500)));
        let rate = seen.recent(at(10_000)).1;
        assert!((rate - 2.0).abs() < 0.01, "{rate}");
        assert!(seen.recent(at(200_000)).1.abs() < f64::EPSILON, "none has come for a long time");
        (0..5_000).for_each(|n| seen.arrived(arrival(1, 200_000 + n)));
        let (recent, rate) = seen.recent(at(205_000));
        assert!(recent.len() == RECENT && (rate - 102.4).abs() < 0.1, "{rate}: in five seconds at least");
    }
}
