//! Which tasks go before one that waits for a slot of a pool, and when it starts: a copy of the pool is run forward some ten
//! times.
//!
//! Arrival decides nothing there: shares, promises and guarantees do, over all queues and tenants of the pool. So nobody guesses
//! at the order; the [copy](ForwardPool) takes the pool's own decisions. Invariants:
//! - What it costs is bounded: [`POOL_RUNS`] runs of [`MOST_STEPS`] starts, ends and arrivals, good for a [second](super::GOOD) for
//!   all tasks of the pool that start within them. A task further back is told how its line moved until there, or only that it
//!   does not start before that.
//! - The same pool, seed and questions get the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::GOOD;
use super::draws::Draws;
use super::line::{Quantiles, quantile};
use crate::core::Timestamp;
use crate::core::slots::ForwardPool;

/// How often the copy of a pool is run forward.
pub const POOL_RUNS: usize = 10;
/// The most starts, ends and arrivals of one such run.
pub const MOST_STEPS: usize = 1_000;

/// So many starts of a line say how it moves.
const TELLING: usize = 8;

/// When the turn of a task of a pool comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolTurn {
    /// As of when.
    pub as_of: Timestamp,
    /// How many of the tasks that wait now start before it. It is the middle of what the runs say.
    pub before: u64,
    /// Whether there are more than that, because the runs did not get so far.
    pub or_more: bool,
    /// The seconds until its start of which one in ten, five in ten and nine in ten runs are sooner. `None`: the runs did not get
    /// so far.
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
    /// The lines of each queue by their tenants.
    lines: Vec<BTreeMap<Arc<str>, LineRuns>>,
    /// How many tasks had started, and how many seconds had passed, at the end of each run, at least.
    before: u64,
    reached: f64,
    /// Whether the runs went on as far as they may, and did not end with a start that was looked for.
    is_whole: bool,
}

#[derive(Clone, Debug)]
struct LineRuns {
    /// How many tasks waited in it.
    waiting: u64,
    /// The starts in their order, as far as all runs got.
    starts: Vec<LineStart>,
}

#[derive(Clone, Copy, Debug)]
struct LineStart {
    at: Quantiles,
    before: u64,
}

/// One forward run: of each line, by queue and tenant, after how many seconds each place started, and how many before it.
#[derive(Default)]
struct OneRun {
    lines: BTreeMap<(usize, usize), Vec<(f64, u64)>>,
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
        let is_told = place < line.starts.len() || (latest.is_whole && (place as u64) < line.waiting);
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
        let runs: Vec<OneRun> =
            (0..POOL_RUNS).map(|_| OneRun::of(pool.clone(), line, place, &mut self.draws)).collect();
        let runs = PoolRuns::of(&runs, pool, now);
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
                run.lines.entry((start.queue, start.tenant)).or_default().push((start.after, run.before));
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
    fn of(runs: &[OneRun], pool: &ForwardPool, made_at: Timestamp) -> Self {
        let mut lines = vec![BTreeMap::new(); pool.queues()];
        for (queue, tenant, waiting) in pool.waiting() {
            let Some(of_queue) = lines.get_mut(queue) else { continue };
            let starts = line_starts(runs, (queue, tenant));
            of_queue.insert(pool.tenant_name(tenant), LineRuns { waiting, starts });
        }
        let seconds = runs.iter().map(|run| run.reached);
        Self {
            made_at,
            lines,
            before: runs.iter().map(|run| run.before).min().unwrap_or_default(),
            reached: seconds.min_by(f64::total_cmp).unwrap_or_default(),
            is_whole: !runs.iter().any(|run| run.has_found),
        }
    }

    fn line(&self, queue: usize, tenant: &str) -> Option<&LineRuns> {
        self.lines.get(queue)?.get(tenant)
    }

    fn turn_of(&self, queue: usize, tenant: &str, place: usize, as_of: Timestamp) -> PoolTurn {
        let reached = self.reached;
        let line = self.line(queue, tenant).map_or(&[][..], |line| &line.starts[..]);
        if let Some(LineStart { at, before }) = line.get(place).copied() {
            return PoolTurn { as_of, before, or_more: false, starts: Some(at), reached };
        }
        let half = line.len() / 2;
        let (Some(last), Some(middle), true) = (line.last(), line.get(half), line.len() >= TELLING) else {
            return PoolTurn { as_of, before: self.before, or_more: true, starts: None, reached };
        };
        // Further back each start takes as long as it did in the second half of the way there.
        let further = place.saturating_sub(line.len() - 1) as f64;
        let steps = (line.len() - 1 - half).max(1) as f64;
        let mut at = last.at;
        for (seconds, at_half) in at.iter_mut().zip(middle.at) {
            *seconds += further * (*seconds - at_half) / steps;
        }
        let more = further * last.before.saturating_sub(middle.before) as f64 / steps;
        let before = last.before.saturating_add(more as u64);
        PoolTurn { as_of, before, or_more: true, starts: Some(at), reached }
    }
}

/// The starts of a line, as far as all runs got.
fn line_starts(runs: &[OneRun], line: (usize, usize)) -> Vec<LineStart> {
    let of_line: Vec<&[(f64, u64)]> =
        runs.iter().map(|run| run.lines.get(&line).map_or(&[][..], |starts| &starts[..])).collect();
    let reached = of_line.iter().map(|starts| starts.len()).min().unwrap_or_default();
    let of_place = |place: usize| {
        let starts = of_line.iter().filter_map(|starts| starts.get(place));
        let (mut at, mut before): (Vec<f64>, Vec<u64>) = starts.copied().unzip();
        at.sort_unstable_by(f64::total_cmp);
        before.sort_unstable();
        let before = before.get(before.len() / 2).copied().unwrap_or_default();
        LineStart { at: [0.1, 0.5, 0.9].map(|share| quantile(&at, share)), before }
    };
    (0..reached).map(of_place).collect()
}

#[cfg(test)]
mod tests;
