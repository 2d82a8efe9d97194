//! When a task that waits will start: an interval in which eight in ten of those start that a queue is asked about.
//!
//! The queue's own line is run forward in virtual time, some twenty times, with the durations that its tasks have had
//! lately; one pass says it for all places of the line. A queue that gets its slots from a pool has no line of its own: there a
//! copy of the [pool](crate::core::slots) is run forward. How often such forecasts came true decides how wide the next ones are. Nothing
//! here has a clock or chance of its own: the caller passes the time, and a seed once.
//!
//! Invariants:
//! - Nothing is forecast before [`OBSERVED_AT_LEAST`] runs were seen.
//! - What it costs is bounded: [`FORWARD_RUNS`] runs of [`MOST_STARTS`] starts, which are good for a [second](GOOD) and say it
//!   for all who wait; places further back are told by how fast the line moved until there.
//! - The forecasts are about starts that only others who run or wait delay. Whoever knows that something else holds a task,
//!   such as a pause, does not ask.

mod arrivals;
mod calibration;
mod draws;
mod line;
mod pool;
mod run_times;

use std::time::Duration;

use serde::Serialize;

use self::arrivals::Arrivals;
use self::calibration::Calibration;
pub(super) use self::draws::Draws;
use self::line::{ForecastLine, Quantiles};
pub(super) use self::run_times::RunTimes;
use super::{Timestamp, time};
pub use calibration::ForecastRecord;
pub use line::LineView;
pub use pool::{MOST_STEPS, POOL_RUNS, PoolForecaster, PoolTurn};

/// The number of runs that a queue has to have seen before it forecasts anything.
pub const OBSERVED_AT_LEAST: u64 = 20;
/// The number of times that the line is run forward for one forecast.
pub const FORWARD_RUNS: usize = 20;
/// The most starts of one forward run.
pub const MOST_STARTS: usize = 1_000;
/// For how long the forward runs of a line are good.
pub const GOOD: Duration = Duration::from_secs(1);

/// A queue with more slots than this is run forward as a smaller one of the same shape: each slot has to become free some
/// times within [`MOST_STARTS`].
const MOST_SLOTS: usize = 250;
/// For so long they are good even if the number of runs has changed: in a queue of short tasks it changes all the time.
const GOOD_ENOUGH: Duration = Duration::from_millis(100);
/// How many of them are kept: of tasks of several priorities that are asked about in turns.
const MOST_KEPT: usize = 4;
/// The least half of an interval, as a share of the middle and in seconds: even a line of equal tasks is not exact.
const LEAST_SHARE: f64 = 0.05;
const LEAST_SECONDS: f64 = 0.002;

/// The forecast of when a task will start, as far as that can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartForecast {
    /// Between these two times, for eight in ten tasks of which this is said.
    Between {
        /// The earlier time.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        from: Timestamp,
        /// The later time.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        to: Timestamp,
        /// How often the queue's forecasts came true lately.
        record: ForecastRecord,
    },
    /// Too few runs were seen to say anything yet.
    NotKnownYet {
        /// How many were seen. It takes [`OBSERVED_AT_LEAST`].
        observed: u64,
    },
    /// Not before this time, and then as soon as its turn comes.
    NotBefore {
        /// The time.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        at: Timestamp,
    },
    /// More urgent tasks come as fast as the queue starts them.
    NotInSight,
    /// Nobody can say: it depends on a person, or on something that nobody has measured.
    Open,
}

/// The forecasts of a queue, with what it has seen of its runs and starts.
#[derive(Clone, Debug)]
pub struct Forecaster {
    draws: Draws,
    run_times: RunTimes,
    arrivals: Arrivals,
    calibration: Calibration,
    /// The latest forward runs, the newest last.
    latest: Vec<ForwardRuns>,
    sampled_at: Option<Timestamp>,
}

/// What the forward runs of a line say.
#[derive(Clone, Debug)]
struct ForwardRuns {
    made_at: Timestamp,
    /// How many tasks could run, and ran.
    slots: usize,
    busy: usize,
    /// How many tasks came in a second that overtake others.
    overtaking: f64,
    /// How many places they were to reach.
    reach: usize,
    /// Those that they did.
    places: Vec<Quantiles>,
}

impl Forecaster {
    /// A forecaster that has seen nothing. The seed decides all that it draws.
    pub fn new(seed: u64) -> Self {
        Self {
            draws: Draws::seeded(seed),
            run_times: RunTimes::default(),
            arrivals: Arrivals::default(),
            calibration: Calibration::default(),
            latest: Vec::new(),
            sampled_at: None,
        }
    }

    /// A task of this priority has come to the queue.
    pub fn arrived(&mut self, priority: u8, now: Timestamp) {
        self.arrivals.record(priority, now);
    }

    /// A run has ended. The task is known by its place in the queue's accounts.
    pub fn ended(&mut self, task: usize, took: Duration) {
        self.run_times.record(task, took);
    }

    /// The task of this delivery starts.
    pub fn started(&mut self, tag: u64, now: Timestamp) {
        self.calibration.started(tag, now);
    }

    /// A delivery has gone without a start, as when its task is revoked.
    pub fn left(&mut self, tag: u64) {
        self.calibration.left(tag);
    }

    /// The queue has stopped, so the forecasts that were made say nothing about how good forecasts are.
    pub fn forget_made(&mut self) {
        self.calibration.forget_made();
    }

    /// Says how often forecasts came true lately.
    pub fn record(&self) -> ForecastRecord {
        self.calibration.record()
    }

    /// Makes intervals of what forward runs of a pool say, as wide as they have to be by now.
    pub fn judge(&self) -> ForecastJudge {
        ForecastJudge {
            observed: self.run_times.observed(),
            factor: self.calibration.factor(),
            record: self.record(),
        }
    }

    /// Somebody finds out the [turn](PoolTurn) of a task that has just come, and has to wait: none is sampled for a second.
    pub fn sampling(&mut self, now: Timestamp) {
        self.sampled_at = Some(now);
    }

    /// Samples, as [`sample`](Self::sample) does, a task that waits for a slot of a pool.
    pub fn sampled(&mut self, tag: u64, turn: &PoolTurn) -> Option<(Timestamp, Timestamp)> {
        let StartForecast::Between { from, to, .. } = self.judge().of_turn(turn) else { return None };
        self.calibration.made(tag, from, to);
        Some((from, to))
    }

    /// Whether a task that has just come, and has to wait, is to be [sampled](Self::sample). One a second is, at most.
    pub fn wants_sample(&mut self, now: Timestamp) -> bool {
        let is_time = self.sampled_at.is_none_or(|at| now.since(at) >= GOOD || now < at);
        if self.run_times.observed() < OBSERVED_AT_LEAST || !is_time {
            return false;
        }
        self.calibration.expire(now);
        !self.calibration.is_full()
    }

    /// Makes a forecast for a task that has just come, and remembers it until the task starts. `runs` are the runs of the
    /// queue now: the task of each by its place in the accounts, and for how long it goes on. Returns the interval, if
    /// there is one.
    pub fn sample(
        &mut self,
        tag: u64,
        line: LineView,
        runs: impl Iterator<Item = (usize, Duration)>,
        now: Timestamp,
    ) -> Option<(Timestamp, Timestamp)> {
        self.sampled_at = Some(now);
        let StartForecast::Between { from, to, .. } = self.forecast(line, runs, now) else { return None };
        self.calibration.made(tag, from, to);
        Some((from, to))
    }

    /// Forecasts when a task starts that stands in this place of the line. `runs` is as for a [sample](Self::sample); it is asked
    /// only if the line has to be run forward anew.
    pub fn forecast(
        &mut self,
        line: LineView,
        runs: impl Iterator<Item = (usize, Duration)>,
        now: Timestamp,
    ) -> StartForecast {
        let observed = self.run_times.observed();
        if observed < OBSERVED_AT_LEAST {
            return StartForecast::NotKnownYet { observed };
        }
        match self.quantiles(line, runs, now) {
            Some(quantiles) => self.judge().between(quantiles, now),
            None => StartForecast::NotInSight,
        }
    }

    /// When the task in this place starts, in seconds from now. `None`: the line does not get there.
    fn quantiles(
        &mut self,
        line: LineView,
        runs: impl Iterator<Item = (usize, Duration)>,
        now: Timestamp,
    ) -> Option<Quantiles> {
        // What is too large to be run forward is run forward as a smaller line of the same shape.
        let scale = line.slots.max(line.busy).div_ceil(MOST_SLOTS).max(1);
        let line = LineView {
            slots: line.slots.div_ceil(scale),
            busy: line.busy.div_ceil(scale),
            ahead: line.ahead / scale as u64,
            priority: line.priority,
        };
        let place = usize::try_from(line.ahead).unwrap_or(usize::MAX).min(MOST_STARTS - 1);
        let overtaking = self.arrivals.rate_above(line.priority, now) / scale as f64;
        if let Some(good) =
            self.latest.iter().rev().find(|latest| latest.are_good(line, overtaking, place, now))
        {
            return good.at(line.ahead, place);
        }
        self.latest.retain(|latest| latest.made_at <= now && now.since(latest.made_at) < GOOD);
        if self.latest.len() >= MOST_KEPT {
            self.latest.remove(0);
        }
        let reach = (place + 1).next_power_of_two().min(MOST_STARTS);
        let whole = ForecastLine { slots: line.slots, runs: runs.step_by(scale).collect(), overtaking };
        let places = whole.quantiles(reach, &self.run_times, &mut self.draws);
        let LineView { slots, busy, .. } = line;
        let made = ForwardRuns { made_at: now, slots, busy, overtaking, reach, places };
        let told = made.at(line.ahead, place);
        self.latest.push(made);
        told
    }
}

/// The judge of a queue's forecasts, which says how wide they are at the moment.
#[derive(Clone, Copy, Debug)]
pub struct ForecastJudge {
    observed: u64,
    factor: f64,
    record: ForecastRecord,
}

impl ForecastJudge {
    /// Forecasts when a task starts whose turn in its pool comes so. What the forward runs did not get to starts later than they
    /// got.
    pub fn of_turn(&self, turn: &PoolTurn) -> StartForecast {
        let observed = self.observed.min(turn.observed);
        if observed < OBSERVED_AT_LEAST {
            return StartForecast::NotKnownYet { observed };
        }
        match turn.starts {
            Some(quantiles) => self.between(quantiles, turn.as_of),
            None if turn.reached > 0.0 => {
                StartForecast::NotBefore { at: turn.as_of + time::seconds(turn.reached).unwrap_or_default() }
            }
            None => StartForecast::NotInSight,
        }
    }

    fn between(&self, [early, middle, late]: Quantiles, now: Timestamp) -> StartForecast {
        let least = middle * LEAST_SHARE + LEAST_SECONDS;
        let from = middle - self.factor * (middle - early).max(least);
        let to = middle + self.factor * (late - middle).max(least);
        let after = |seconds: f64| now + time::seconds(seconds).unwrap_or_default();
        StartForecast::Between { from: after(from), to: after(to), record: self.record }
    }
}

impl ForwardRuns {
    /// Whether they say when this place of this line starts. A line that they did not get to the end of will not be seen to
    /// the end by running it once more.
    fn are_good(&self, line: LineView, overtaking: f64, place: usize, now: Timestamp) -> bool {
        let age = now.since(self.made_at);
        let is_as_busy = self.busy == line.busy || age < GOOD_ENOUGH;
        let is_as_urgent = (self.overtaking - overtaking).abs() <= 0.05 * self.overtaking.max(overtaking);
        let is_fresh = self.made_at <= now && age < GOOD;
        is_fresh && self.slots == line.slots && is_as_busy && is_as_urgent && self.reach > place
    }

    /// When the task behind so many others starts. `place` is its place, or the last one that was run forward. Further back,
    /// each start takes as long as it did in the second half of the way there.
    fn at(&self, ahead: u64, place: usize) -> Option<Quantiles> {
        let mut told = *self.places.get(place)?;
        let further = ahead.saturating_sub(place as u64) as f64;
        if further > 0.0 {
            let half = place / 2;
            let steps = (place - half).max(1) as f64;
            for (seconds, at_half) in told.iter_mut().zip(self.places.get(half)?) {
                *seconds += further * (*seconds - at_half) / steps;
            }
        }
        Some(told)
    }
}

#[cfg(test)]
mod tests;
