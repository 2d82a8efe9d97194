//! A line of tasks before a number of slots, and forward runs of it: the queue in virtual time, with durations that are
//! drawn.
//!
//! A forward run says when each place of the line starts, so a few of them say it for all who wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::repeat_n;
use std::time::Duration;

use super::draws::Draws;
use super::run_times::RunTimes;
use super::{FORWARD_RUNS, MOST_STARTS};

/// The place of a task in its line, with what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineView {
    /// The number of tasks that may run at a time.
    pub slots: usize,
    /// The number of slots that are busy now.
    pub busy: usize,
    /// The number of tasks that start before this one.
    pub ahead: u64,
    /// The priority of the task: those of a higher one overtake it.
    pub priority: u8,
}

/// A line as forward runs see it.
pub(super) struct ForecastLine {
    pub(super) slots: usize,
    /// The task of each run, and for how long it goes on.
    pub(super) runs: Vec<(usize, Duration)>,
    /// How many tasks come in a second that overtake all who wait.
    pub(super) overtaking: f64,
}

/// The seconds until a start of which one in ten, five in ten and nine in ten forward runs are sooner.
pub(super) type Quantiles = [f64; 3];

impl ForecastLine {
    /// When each of the first `places` of the line starts. Fewer come back if the line does not get there: it has no
    /// slots, or those who overtake come as fast as tasks start.
    pub(super) fn quantiles(&self, places: usize, run_times: &RunTimes, draws: &mut Draws) -> Vec<Quantiles> {
        let runs: Vec<Vec<u64>> =
            (0..FORWARD_RUNS).map(|_| self.forward_run(places, run_times, draws)).collect();
        let reached = runs.iter().map(Vec::len).min().unwrap_or_default();
        let mut at = Vec::with_capacity(FORWARD_RUNS);
        let of_place = |place: usize| {
            at.clear();
            at.extend(runs.iter().filter_map(|run| run.get(place)).map(|micros| *micros as f64 / 1e6));
            at.sort_unstable_by(f64::total_cmp);
            [0.1, 0.5, 0.9].map(|share| quantile(&at, share))
        };
        (0..reached).map(of_place).collect()
    }

    /// One forward run: after how many microseconds each place starts.
    fn forward_run(&self, places: usize, run_times: &RunTimes, draws: &mut Draws) -> Vec<u64> {
        let mut ends: Vec<u64> =
            self.runs.iter().map(|(task, age)| micros(run_times.draw_rest(*task, *age, draws))).collect();
        ends.sort_unstable();
        // A queue that was made smaller lets the first of its runs end without starting another one.
        let surplus = ends.len().saturating_sub(self.slots);
        let idle = self.slots.saturating_sub(ends.len()).min(places);
        let mut free: BinaryHeap<Reverse<u64>> =
            ends.into_iter().skip(surplus).chain(repeat_n(0, idle)).map(Reverse).collect();
        let gap = |draws: &mut Draws| micros(draws.exponential() / self.overtaking);
        let mut overtaker = if self.overtaking > 0.0 { gap(draws) } else { u64::MAX };
        let mut overtakers = 0_usize;
        let mut starts = Vec::with_capacity(places);
        // Each step is a start of somebody. Without the bound, a line that is overtaken for ever would go on for ever.
        for _ in 0..places + MOST_STARTS {
            if starts.len() == places {
                break;
            }
            let Some(Reverse(at)) = free.pop() else { break };
            while overtaker <= at && overtakers < MOST_STARTS {
                overtakers += 1;
                overtaker = overtaker.saturating_add(gap(draws).max(1));
            }
            if overtakers > 0 {
                overtakers -= 1;
            } else {
                starts.push(at);
            }
            free.push(Reverse(at.saturating_add(micros(run_times.draw(draws)))));
        }
        starts
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64 // saturates, and what is no number is 0
}

/// The value below which this share of the sorted values lies, between its neighbours; 0 of none.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * sorted.len().saturating_sub(1) as f64;
    let below = at as usize;
    let value = |index: usize| sorted.get(index).or(sorted.last()).copied().unwrap_or_default();
    value(below) + at.fract() * (value(below + 1) - value(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of exactly ten seconds.
    fn tens() -> RunTimes {
        let mut times = RunTimes::default();
        (0..20).for_each(|_| times.record(0, Duration::from_secs(10)));
        times
    }

    fn of(slots: usize, ages: &[u64], overtaking: f64) -> ForecastLine {
        let runs = ages.iter().map(|age| (0, Duration::from_secs(*age))).collect();
        ForecastLine { slots, runs, overtaking }
    }

    fn medians(line: &ForecastLine, places: usize) -> Vec<f64> {
        let all = line.quantiles(places, &tens(), &mut Draws::seeded(5));
        all.iter().map(|[_, median, _]| median.round()).collect()
    }

    #[test]
    fn a_line_of_equal_tasks_is_arithmetic() {
        // Two slots whose runs end in 4 and 9 seconds.
        assert_eq!(medians(&of(2, &[6, 1], 0.0), 5), [4.0, 9.0, 14.0, 19.0, 24.0]);
        // Idle slots start somebody at once.
        assert_eq!(medians(&of(3, &[6], 0.0), 4), [0.0, 0.0, 4.0, 10.0]);
        // Of three runs in a queue that was made smaller, only the last two leave room.
        assert_eq!(medians(&of(2, &[8, 5, 1], 0.0), 3), [5.0, 9.0, 15.0]);
        assert_eq!(medians(&of(0, &[], 0.0), 3), [0.0; 0], "without slots nothing starts");
    }

    #[test]
    fn who_is_overtaken_waits_longer_and_may_wait_for_ever() {
        // One start in ten seconds, and every second one goes to somebody more urgent.
        let alone = of(1, &[0], 0.0).quantiles(20, &tens(), &mut Draws::seeded(6));
        let overtaken = of(1, &[0], 0.05).quantiles(20, &tens(), &mut Draws::seeded(6));
        assert!(overtaken[19][1] > 1.5 * alone[19][1], "{overtaken:?}");
        assert!(of(1, &[0], 1.0).quantiles(20, &tens(), &mut Draws::seeded(6)).is_empty());
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let close = |one: f64, other: f64| (one - other).abs() < 1e-9;
        let sorted: Vec<f64> = (0..=20).map(f64::from).collect();
        assert!(close(quantile(&sorted, 0.1), 2.0) && close(quantile(&sorted, 0.5), 10.0));
        assert!(close(quantile(&[1.0, 2.0], 0.9), 1.9) && close(quantile(&[3.0], 0.9), 3.0));
        assert!(close(quantile(&[], 0.5), 0.0));
        assert_eq!((micros(1.5), micros(f64::NAN), micros(f64::INFINITY)), (1_500_000, 0, u64::MAX));
    }
}
