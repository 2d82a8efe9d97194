//! Which tasks go before one that waits for a slot of a pool, and when it starts: a copy of the pool is run forward.
//!
//! Arrival decides nothing there: shares, promises and guarantees do, over all queues and tenants of the pool. So nobody guesses
//! at the order; the [copy](ForwardPool) takes the pool's own decisions. One run to which nothing comes says how many go before a
//! task; some more, to which tasks come as they came lately, say when it starts. Invariants:
//! - What it costs is bounded: [`POOL_RUNS`] runs of [`MOST_STEPS`] starts, ends and arrivals, good for a [second](super::GOOD) for
//!   all tasks of the pool that start within them. A task further back is told how its line moved until there, or only that it
//!   does not start before that.
//! - The same pool, seed and questions get the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draws::Draws;
use super::line::{Quantiles, quantile};
use super::{GOOD, OBSERVED_AT_LEAST};
use crate::core::Timestamp;
use crate::core::slots::ForwardPool;

/// How often the copy of a pool is run forward to see when tasks start.
pub const POOL_RUNS: usize = 10;
/// The most starts, ends and arrivals of one such run.
pub const MOST_STEPS: usize = 1_000;

/// The number of starts of a line that say how it moves.
const TELLING: usize = 8;

/// When the turn of a task of a pool comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolTurn {
    /// The time at which the view was taken.
    pub as_of: Timestamp,
    /// How many runs the pool has seen.
    pub observed: u64,
    /// How many of the tasks that wait now start before it.
    pub before: u64,
    /// Whether there may be more than that, because the run did not get so far.
    pub or_more: bool,
    /// The seconds until its start of which one in ten, five in ten and nine in ten runs are sooner. `None`: the runs did not get
    /// so far, or the
    /// pool has seen too few runs.
    pub starts: Option<[f64; 3]>,
    /// How many seconds ahead all runs have got to.
    pub reached: f64,
}

/// Runs the copies of one pool forward, and knows what the last ones said.
#[derive(Debug)]
pub struct PoolForecaster {
    draws: Draws,
    latest: Option<PoolRuns>,
}

/// What forward runs said.
#[derive(Debug)]
struct PoolRuns {
    made_at: Timestamp,
    observed: u64,
    /// The lines of each queue by their tenants.
    lines: Vec<BTreeMap<Arc<str>, LineRuns>>,
    /// How many tasks had started at the end of the run to which nothing came.
    before: u64,
    /// How many seconds had passed at the end of each of the others, at least.
    reached: f64,
    /// Whether the runs went on as far as they may, and did not end with a start that was looked for.
    is_whole: bool,
}

#[derive(Clone, Debug)]
struct LineRuns {
    /// How many tasks waited in it.
    waiting: u64,
    /// How many tasks started before each place, as far as the run got.
    before: Vec<u64>,
    /// When each place starts, as far as all runs got.
    starts: Vec<Quantiles>,
}

/// One forward run: of each line, by queue and tenant, how many tasks started before each place, and after how many seconds it
/// did.
#[derive(Default)]
struct OneRun {
    lines: BTreeMap<(usize, usize), Vec<(u64, f64)>>,
    before: u64,
    reached: f64,
    has_found: bool,
}

impl PoolForecaster {
    /// A forecaster that has looked at nothing. The seed decides all that it draws.
    pub fn new(seed: u64) -> Self {
        Self { draws: Draws::seeded(seed), latest: None }
    }

    /// The turn of the task in this place of its tenant's line, as far as the latest runs tell it. `None`: they are old, or have
    /// not looked so far.
    pub fn known(&self, queue: usize, tenant: &str, place: usize, now: Timestamp) -> Option<PoolTurn> {
        let latest = self.latest.as_ref()?;
        let is_fresh = latest.made_at <= now && now.since(latest.made_at) < GOOD;
        let line = latest.line(queue, tenant)?;
        let is_whole = latest.is_whole && (place as u64) < line.waiting;
        let is_timed = latest.observed < OBSERVED_AT_LEAST || place < line.starts.len();
        let is_told = is_whole || (place < line.before.len() && is_timed);
        (is_fresh && is_told).then(|| latest.turn_of(queue, tenant, place, now))
    }

    /// As [`known`](Self::known), by running this copy of the pool forward.
    pub fn run(
        &mut self,
        pool: &ForwardPool,
        queue: usize,
        tenant: &str,
        place: usize,
        now: Timestamp,
    ) -> PoolTurn {
        let line = pool.tenant_in(queue, tenant).map(|tenant| (queue, tenant));
        let order = OneRun::of(pool.clone().alone(), line, place, &mut self.draws);
        let runs = if pool.observed() < OBSERVED_AT_LEAST { 0 } else { POOL_RUNS };
        let timed: Vec<OneRun> =
            (0..runs).map(|_| OneRun::of(pool.clone(), line, place, &mut self.draws)).collect();
        let runs = PoolRuns::of(&order, &timed, pool, now);
        let turn = runs.turn_of(queue, tenant, place, now);
        self.latest = Some(runs);
        turn
    }
}

impl OneRun {
    /// Runs a copy forward until the task in this place of this line starts.
    fn of(mut pool: ForwardPool, line: Option<(usize, usize)>, place: usize, draws: &mut Draws) -> Self {
        let mut run = Self::default();
        let mut started = Vec::new();
        pool.begin(draws);
        for _ in 0..MOST_STEPS {
            let goes_on = pool.step(draws, &mut started);
            // A task that came later goes before others, and is none of those that wait.
            for start in started.drain(..).filter(|start| start.has_waited) {
                run.lines.entry((start.queue, start.tenant)).or_default().push((run.before, start.after));
                run.before += 1;
            }
            let of_line = line.and_then(|line| run.lines.get(&line));
            run.has_found = of_line.is_some_and(|starts| starts.len() > place);
            if run.has_found || !goes_on {
                break;
            }
        }
        run.reached = pool.elapsed();
        run
    }
}

impl PoolRuns {
    fn of(order: &OneRun, timed: &[OneRun], pool: &ForwardPool, made_at: Timestamp) -> Self {
        let mut lines = vec![BTreeMap::new(); pool.queues()];
        for (queue, tenant, waiting) in pool.waiting() {
            let Some(of_queue) = lines.get_mut(queue) else { continue };
            let before = order.starts(&(queue, tenant)).iter().map(|(before, _)| *before).collect();
            let starts = quantiles(timed, (queue, tenant));
            of_queue.insert(pool.tenant_name(tenant), LineRuns { waiting, before, starts });
        }
        let reached = timed.iter().map(|run| run.reached).min_by(f64::total_cmp);
        Self {
            made_at,
            observed: pool.observed(),
            lines,
            before: order.before,
            reached: reached.unwrap_or_default(),
            is_whole: !order.has_found && !timed.iter().any(|run| run.has_found),
        }
    }

    fn line(&self, queue: usize, tenant: &str) -> Option<&LineRuns> {
        self.lines.get(queue)?.get(tenant)
    }

    fn turn_of(&self, queue: usize, tenant: &str, place: usize, as_of: Timestamp) -> PoolTurn {
        let line = self.line(queue, tenant);
        let told = line.and_then(|line| line.before.get(place).copied());
        let further = || line.and_then(|line| further_before(&line.before, place));
        let before = told.or_else(further).unwrap_or(self.before);
        let starts = line
            .and_then(|line| line.starts.get(place).copied().or_else(|| further_starts(&line.starts, place)));
        let (observed, reached) = (self.observed, self.reached);
        PoolTurn { as_of, observed, before, or_more: told.is_none(), starts, reached }
    }
}

impl OneRun {
    /// The starts of a line, in its order.
    fn starts(&self, line: &(usize, usize)) -> &[(u64, f64)] {
        self.lines.get(line).map_or(&[][..], |starts| &starts[..])
    }
}

/// When each place of a line starts, as far as all runs got.
fn quantiles(runs: &[OneRun], line: (usize, usize)) -> Vec<Quantiles> {
    let of_line: Vec<&[(u64, f64)]> = runs.iter().map(|run| run.starts(&line)).collect();
    let reached = of_line.iter().map(|starts| starts.len()).min().unwrap_or_default();
    let of_place = |place: usize| {
        let at = of_line.iter().filter_map(|starts| starts.get(place)).map(|(_, after)| *after);
        let mut at: Vec<f64> = at.collect();
        at.sort_unstable_by(f64::total_cmp);
        [0.1, 0.5, 0.9].map(|share| quantile(&at, share))
    };
    (0..reached).map(of_place).collect()
}

/// What is told of the last place and of the one half way there, and how many times the way between them it is from the last
/// one to this place, if the line moved far enough to say so.
fn half_way<T: Copy>(line: &[T], place: usize) -> Option<(T, T, f64)> {
    let (last, half) = (line.len().checked_sub(1)?, line.len() / 2);
    let times = place.saturating_sub(last) as f64 / last.saturating_sub(half).max(1) as f64;
    (line.len() >= TELLING).then_some((*line.get(last)?, *line.get(half)?, times))
}

/// How many tasks start before a place that the run did not get to: each place is as far from the one before it as in the
/// second half of the way there.
fn further_before(line: &[u64], place: usize) -> Option<u64> {
    let (last, half, times) = half_way(line, place)?;
    Some(last.saturating_add((times * last.saturating_sub(half) as f64) as u64))
}

/// When a place starts that the runs did not get to: each start takes as long as in the second half of the way there.
fn further_starts(line: &[Quantiles], place: usize) -> Option<Quantiles> {
    let (mut at, half, times) = half_way(line, place)?;
    for (seconds, at_half) in at.iter_mut().zip(half) {
        *seconds += times * (*seconds - at_half);
    }
    Some(at)
}

#[cfg(test)]
mod tests;
